import pytest

from heliosd.core.hardware import DeviceFault, LinkKind
from heliosd.core.names import DeviceId
from heliosd.core.units import GiB
from heliosd.devices.simulated import SimulatedDevice, SimulatedDevices
from heliosd.errors import EngineFailed

G0, G1 = DeviceId("g0"), DeviceId("g1")


@pytest.fixture
def devices() -> SimulatedDevices:
    return SimulatedDevices(
        [
            SimulatedDevice(G0, "H100", 80 * GiB, foreign_bytes=2 * GiB, numa_node=0, nvlink=True),
            SimulatedDevice(G1, "H100", 80 * GiB, numa_node=1, nvlink=True),
        ]
    )


async def _used(devices: SimulatedDevices) -> list[int]:
    return [reading.used_bytes // GiB for reading in await devices.read({})]


async def test_what_a_replica_takes_is_used_until_it_is_given_back(devices: SimulatedDevices) -> None:
    devices.take("r1", G0, 30 * GiB)
    devices.take("r1", G1, 30 * GiB)
    devices.take("r1", G1, 10 * GiB)
    devices.take("r2", G1, 5 * GiB)
    assert await _used(devices) == [32, 45]
    devices.give("r1")
    devices.give("r1")
    assert await _used(devices) == [2, 5]


async def test_more_than_is_free_is_out_of_memory(devices: SimulatedDevices) -> None:
    devices.take("r1", G0, 70 * GiB)
    with pytest.raises(EngineFailed, match=r"cannot take 9\.0 GiB of g0: 8\.0 GiB of 80\.0 GiB are free"):
        devices.take("r2", G0, 9 * GiB)
    assert await _used(devices) == [72, 0]


async def test_others_may_take_more(devices: SimulatedDevices) -> None:
    devices.set_foreign(G1, 79 * GiB)
    assert await _used(devices) == [2, 79]


async def test_a_failed_device_reads_as_a_fault_and_reports_it(devices: SimulatedDevices) -> None:
    devices.fail(G1, "fell off the bus", xid=79)
    first, second = await devices.read({})
    assert (first.fault, second.fault) == (None, "fell off the bus")
    assert await anext(devices.faults()) == DeviceFault(G1, "fell off the bus", xid=79, fatal=True)
    with pytest.raises(EngineFailed, match="cannot take memory of g1: fell off the bus"):
        devices.take("r1", G1, 1)
    devices.heal(G1)
    assert (await devices.read({}))[1].fault is None


async def test_links_follow_nvlink_and_numa() -> None:
    g2 = DeviceId("g2")
    devices = SimulatedDevices(
        [
            SimulatedDevice(G0, "a", GiB, numa_node=0, nvlink=True),
            SimulatedDevice(G1, "a", GiB, numa_node=1, nvlink=True),
            SimulatedDevice(g2, "a", GiB, numa_node=1),
        ]
    )
    assert [device.links for device in await devices.devices()][1] == ((G0, LinkKind.NVLINK), (g2, LinkKind.NUMA))
    assert dict((await devices.devices())[0].links)[g2] is LinkKind.SYSTEM
