import asyncio

import pytest

from heliosd.core.hardware import DeviceFault
from heliosd.core.names import DeviceId
from heliosd.core.units import GiB
from heliosd.devices.simulated import SimulatedDevice, SimulatedDevices
from heliosd.devices.union import UnionProbe

LEFT, RIGHT = DeviceId("left"), DeviceId("right")


@pytest.fixture
def parts() -> tuple[SimulatedDevices, SimulatedDevices]:
    left, right = (SimulatedDevices([SimulatedDevice(one, "a", GiB)]) for one in (LEFT, RIGHT))
    return left, right


async def test_devices_and_readings_come_in_the_order_of_the_probes(
    parts: tuple[SimulatedDevices, SimulatedDevices],
) -> None:
    probe = UnionProbe(parts)
    assert [device.id for device in await probe.devices()] == [LEFT, RIGHT]
    assert [reading.device for reading in await probe.read({})] == [LEFT, RIGHT]


async def test_faults_of_all_come_as_they_happen(parts: tuple[SimulatedDevices, SimulatedDevices]) -> None:
    faults = UnionProbe(parts).faults()
    for part, device in ((parts[1], RIGHT), (parts[0], LEFT), (parts[1], RIGHT)):
        part.fail(device, "hot")
        assert await anext(faults) == DeviceFault(device, "hot", fatal=True)


async def test_faults_end_when_all_are_closed(parts: tuple[SimulatedDevices, SimulatedDevices]) -> None:
    probe = UnionProbe(parts)
    async with asyncio.TaskGroup() as group:
        rest = group.create_task(anext(probe.faults(), None))
        await probe.close()
    assert rest.result() is None


async def test_who_stops_listening_leaves_no_task_behind(parts: tuple[SimulatedDevices, SimulatedDevices]) -> None:
    faults = UnionProbe(parts).faults()
    parts[0].fail(LEFT, "hot")
    await anext(faults)
    assert len(asyncio.all_tasks()) > 1
    await faults.aclose()  # type: ignore[attr-defined]
    assert asyncio.all_tasks() == {asyncio.current_task()}
