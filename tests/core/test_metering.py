"""Memory is divided among those who use it, exactly, whatever happens in whatever order."""

from hypothesis import given
from hypothesis import strategies as st

from heliosd.core.messages import Footprint
from heliosd.core.metering import IDLE, MICROSECONDS, Holding, MemoryMeter, split
from heliosd.core.names import DeviceId, ReplicaId, Ticket

G0, G1 = DeviceId("g0"), DeviceId("g1")


def promise(n_bytes: int, *devices: DeviceId) -> tuple[tuple[DeviceId, ...], Footprint]:
    return devices, Footprint(n_bytes, 0, 0)


def model_of(replica: ReplicaId) -> str:
    return f"model of {replica}"


def used(meter: MemoryMeter, at: float) -> dict[tuple[str, str, str], float]:
    taken = meter.take(at)
    return {(each.account, each.model, each.device): amount / MICROSECONDS for each, amount in taken.items()}


@given(st.integers(0, 10**30), st.lists(st.sampled_from(["a", "b", "c", IDLE])))
def test_parts_add_up_exactly_and_go_by_requests(amount: int, accounts: list[str]) -> None:
    parts = split(amount, accounts)
    assert sum(parts.values()) == amount
    assert parts.keys() == (set(accounts) or {IDLE})
    for account, part in parts.items():
        fair = amount * accounts.count(account) // max(1, len(accounts)) if accounts else amount
        assert abs(part - fair) <= max(1, len(accounts)) + 1


def test_two_who_share_pay_half_and_nobody_pays_for_idle_time() -> None:
    meter, r1 = MemoryMeter(), ReplicaId("r1")
    promises = {r1: promise(1000, G0)}
    meter.promised(0.0, promises, model_of)
    meter.granted(10.0, r1, Ticket("t1"), "ann")
    meter.granted(20.0, r1, Ticket("t2"), "bob")
    meter.released(40.0, Ticket("t1"))
    meter.released(50.0, Ticket("t2"))
    meter.promised(60.0, {}, model_of)
    of = "model of r1"
    assert used(meter, 100.0) == {(IDLE, of, G0): 20_000, ("ann", of, G0): 20_000, ("bob", of, G0): 20_000}
    assert used(meter, 200.0) == {}


def test_a_replica_on_two_devices_holds_both() -> None:
    meter, r1 = MemoryMeter(), ReplicaId("r1")
    meter.promised(0.0, {r1: promise(10, G0, G1)}, model_of)
    assert used(meter, 1.0) == {(IDLE, "model of r1", G0): 10, (IDLE, "model of r1", G1): 10}
    assert meter.device_of(r1) == G0
    assert meter.device_of(ReplicaId("r2")) is None


def test_times_that_go_back_count_nothing_twice() -> None:
    meter, r1 = MemoryMeter(), ReplicaId("r1")
    meter.promised(10.0, {r1: promise(10, G0)}, model_of)
    meter.granted(20.0, r1, Ticket("t1"), "ann")
    meter.released(15.0, Ticket("t1"))
    assert used(meter, 30.0) == {(IDLE, "model of r1", G0): 200}


def test_who_was_not_granted_is_released_without_harm() -> None:
    meter = MemoryMeter()
    meter.released(1.0, Ticket("t1"))
    meter.granted(1.0, ReplicaId("unknown"), Ticket("t1"), "ann")
    assert meter.take(2.0) == {}


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["promise", "end", "grant", "release", "take"]),
        st.integers(0, 3),
        st.integers(0, 10**12),
        st.floats(0, 1000),
    ),
    max_size=60,
)


@given(STEPS)
def test_keys_and_idle_time_add_up_to_what_was_promised(steps: list[tuple[str, int, int, float]]) -> None:
    meter, at, expected = MemoryMeter(), 0.0, 0
    promises: dict[ReplicaId, tuple[tuple[DeviceId, ...], Footprint]] = {}
    total: dict[Holding, int] = {}

    def take() -> None:
        for holding, amount in meter.take(at).items():
            total[holding] = total.get(holding, 0) + amount

    for number, (kind, which, n_bytes, span_s) in enumerate(steps):
        before_us = round(at * MICROSECONDS)
        at += span_s
        span_us = round(at * MICROSECONDS) - before_us
        expected += span_us * sum(each.total_bytes * len(devices) for devices, each in promises.values())
        replica = ReplicaId(f"r{which}")
        if kind == "promise":
            promises[replica] = promise(n_bytes, *((G0, G1) if which % 2 else (G0,)))
        elif kind == "end":
            promises.pop(replica, None)
        elif kind == "grant":
            meter.granted(at, replica, Ticket(f"t{number}"), f"key {n_bytes % 3}")
        elif kind == "release":
            meter.released(at, Ticket(f"t{number - which}"))
        else:
            take()
        meter.promised(at, promises, model_of)
    take()
    assert sum(total.values()) == expected
