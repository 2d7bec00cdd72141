"""A snapshot becomes families; what a device does not say is left out."""

from heliosd.core.exhaustion import NOT_IN_SIGHT, Exhaustion
from heliosd.core.hardware import Device, DeviceKind, DeviceReading, Space
from heliosd.core.messages import Footprint, Priority
from heliosd.core.names import DeviceId, Ticket
from heliosd.core.snapshot import DeviceAccount, MemoryStatus, PreloadCount, Snapshot, Waiting
from heliosd.telemetry.gauges import gauges

NOTHING = Footprint(0, 0, 0)


def values(snapshot: Snapshot) -> dict[str, list[float]]:
    counts = dict.fromkeys(
        ("models", "store_logical_bytes", "store_physical_bytes", "journal_entries", "journal_lost"), 0
    )
    families = gauges(snapshot, version="1", fetched={"hub": 0}, recorded_events=0, recorded_lost=0, **counts)
    return {family.name: [sample.value for sample in family.samples] for family in families}


def test_the_oldest_waiting_request_is_told() -> None:
    waiting = tuple(
        Waiting(Ticket(f"t{since}"), "m", float(since), "", priority=priority)
        for since, priority in ((70, Priority.LOW), (90, Priority.HIGH))
    )
    found = values(Snapshot(100.0, (), (), waiting, True))
    assert found["helios_queue_length"] == [2]
    assert found["helios_queue_requests"] == [1, 0, 1]
    assert found["helios_queue_oldest_seconds"] == [30.0]
    assert found["helios_draining"] == [1]


def test_a_device_without_a_reading_has_its_ledger_columns_only() -> None:
    device = Device(DeviceId("host"), DeviceKind.HOST, "RAM", 1000)
    found = values(Snapshot(0.0, (DeviceAccount(device, None, 1, 2, NOTHING, 3, 4),), (), (), False))
    assert found["helios_device_free_bytes"] == [4]
    assert found["helios_device_used_bytes"] == []


def test_what_a_device_does_not_offer_is_not_zero() -> None:
    device = Device(DeviceId("host"), DeviceKind.HOST, "RAM", 1000)
    reading = DeviceReading(device.id, used_bytes=10, free_bytes=990, fault="lost")
    found = values(Snapshot(0.0, (DeviceAccount(device, reading, 0, 0, NOTHING, 0, 0),), (), (), False))
    assert found["helios_device_temperature_celsius"] == []
    assert found["helios_device_used_bytes"] == [10]
    assert found["helios_device_fault"] == [1]


def test_leaks_and_what_will_be_full_are_told() -> None:
    device = Device(DeviceId("g0"), DeviceKind.SIMULATED, "card", 1000)
    account = DeviceAccount(device, None, 0, 0, NOTHING, 0, 0, exhaustion=Exhaustion(50.0, 40.0, 60.0, "trend"))
    daemon = MemoryStatus(7, None, 5, 0, 0.5, True, "grows")
    found = values(
        Snapshot(
            0.0, (account,), (), (), False, daemon=daemon, recycles=(("m", "host", 2),),
            spaces=((Space("store", 1, 2), NOT_IN_SIGHT),),
        )
    )  # fmt: skip
    assert found["helios_exhaustion_seconds"] == [50.0, float("inf")]
    assert found["helios_process_pss_bytes"] == [7]
    assert found["helios_idle_floor_bytes"] == [5]
    assert found["helios_leak_suspected"] == [1]
    assert found["helios_leak_slope_bytes_per_second"] == [0.5]
    assert found["helios_recycles"] == [2]


def test_what_became_of_starts_ahead_is_counted() -> None:
    found = values(Snapshot(0.0, (), (), (), False, preloads=PreloadCount(1, 5, 2, 3e9)))
    assert found["helios_preloads"] == [5, 2]
    assert found["helios_preloads_unasked"] == [1]
    assert found["helios_preloads_wasted_byte_seconds"] == [3e9]
