"""Who has the memory: KV cache used of what is reserved, sleepers, breakers and waits, from a snapshot."""

from dataclasses import replace

from heliosd.core.hardware import Device, DeviceKind
from heliosd.core.lifecycle import State
from heliosd.core.messages import Footprint
from heliosd.core.names import DeviceId, ReplicaId, Ticket
from heliosd.core.snapshot import BreakerStatus, DeviceAccount, HostAccount, ReplicaStatus, Snapshot, Waiting
from heliosd.telemetry.accounts import accounts

G0, G1 = DeviceId("g0"), DeviceId("g1")
WHOLE = Footprint(50, 40, 10)
AWAKE = ReplicaStatus(
    ReplicaId("r1"), "org/a", "f" * 64, State.READY, (G0, G1), frozenset({Ticket("t1"), Ticket("t2")}), WHOLE,
    Footprint(50, 40, 8), 0.0, None, 300.0, limit=4, kv_used_ratio=0.25,
)  # fmt: skip
ASLEEP = replace(
    AWAKE, id=ReplicaId("r2"), state=State.ASLEEP, devices=(G0,), leases=frozenset(), promised=Footprint(0, 0, 7)
)


def account(device: DeviceId) -> DeviceAccount:
    return DeviceAccount(Device(device, DeviceKind.SIMULATED, "card", 200), None, 0, 0, WHOLE, 0, 0)


def values(snapshot: Snapshot) -> dict[tuple[str, frozenset[str]], float]:
    return {
        (sample.name, frozenset(sample.labels.values())): sample.value
        for family in accounts(snapshot)
        for sample in family.samples
    }


def test_devices_tell_what_tokens_and_sleepers_hold() -> None:
    found = values(Snapshot(0.0, (account(G0), account(G1)), (AWAKE, ASLEEP), (), False))
    assert found["helios_device_kv_used_bytes", frozenset({"g0"})] == 10
    assert found["helios_device_kv_used_bytes", frozenset({"g1"})] == 10
    assert found["helios_device_residue_bytes", frozenset({"g0"})] == 7
    assert found["helios_device_residue_bytes", frozenset({"g1"})] == 0


def test_replicas_tell_predicted_and_measured_term_by_term() -> None:
    found = values(Snapshot(0.0, (account(G0), account(G1)), (AWAKE, ASLEEP), (), False))
    memory = "helios_replica_memory_bytes"
    assert found[memory, frozenset({"r1", "org/a", "overhead", "promised"})] == 10
    assert found[memory, frozenset({"r1", "org/a", "overhead", "measured"})] == 8
    assert found["helios_replica_leases", frozenset({"r1", "org/a"})] == 2
    assert found["helios_replica_limit", frozenset({"r1", "org/a"})] == 4
    assert found["helios_replica_kv_used_ratio", frozenset({"r1", "org/a"})] == 0.25
    assert ("helios_replica_kv_used_ratio", frozenset({"r2", "org/a"})) not in found, "a sleeper has no KV cache"
    assert ("helios_replica_info", frozenset({"r1", "org/a", "f" * 12, "g0+g1"})) in found


def test_breakers_and_waits_are_told_by_place_and_reason() -> None:
    breakers = (
        BreakerStatus("org/b", (G0,), "open", 3, 9.0, "no"),
        BreakerStatus("org/c", (G1,), "half-open", 1, 1.0, ""),
    )
    waiting = tuple(
        Waiting(Ticket(f"t{number}"), "m", 0.0, reason)
        for number, reason in enumerate(("r1 is starting", "r1 is starting", "r3 works on 4 of 4 requests"))
    )
    found = values(Snapshot(0.0, (), (), waiting, False, HostAccount(100, 10, 80, 5), breakers))
    assert found["helios_breaker_open", frozenset({"org/b", "g0"})] == 1
    assert found["helios_breaker_open", frozenset({"org/c", "g1"})] == 0
    assert found["helios_breaker_failures", frozenset({"org/b", "g0"})] == 3
    assert found["helios_queue_reason_requests", frozenset({"starting"})] == 2
    assert found["helios_queue_reason_requests", frozenset({"busy"})] == 1
    assert found["helios_queue_reason_requests", frozenset({"foreign"})] == 0
    assert found["helios_host_free_bytes", frozenset()] == 80
    assert found["helios_host_tier_bytes", frozenset()] == 5
