"""What every probe promises, tried on each. tests/hardware runs the same tests on a real GPU."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from heliosd.core.hardware import DeviceFault
from heliosd.core.units import GiB
from heliosd.devices.fleet import parse_fleet
from heliosd.devices.host import HostProbe
from heliosd.devices.nvml import NvmlProbe
from heliosd.devices.probe import Probe
from heliosd.devices.simulated import SimulatedDevices
from heliosd.devices.union import UnionProbe
from tests.devices.fake_nvml import fake_driver

FLEET = '[[device]]\nname = "g"\ncapacity = "80GiB"\ncount = 3\nforeign = "2GiB"\n'


@pytest.fixture(params=["nvml", "sliced", "host", "simulated", "union"])
async def probe(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Probe]:
    with fake_driver(tmp_path) as driver:
        driver.gpus[0].run(pid=1, used_bytes=GiB)
        if request.param == "sliced":
            driver.gpus[1].slice_up(0, 1, 2)
        nvml = NvmlProbe(driver.nvml)
        probes: dict[str, Probe] = {
            "nvml": nvml,
            "sliced": nvml,
            "host": HostProbe(),
            "simulated": SimulatedDevices(parse_fleet(FLEET)),
            "union": UnionProbe([nvml, HostProbe()]),
        }
        probe = probes[request.param]
        yield probe
        await probe.close()


async def test_devices_are_there_and_each_has_a_name_of_its_own(probe: Probe) -> None:
    devices = await probe.devices()
    ids = [device.id for device in devices]
    assert ids and len(set(ids)) == len(ids)
    assert all(device.name and device.capacity_bytes > 0 for device in devices)


async def test_devices_keep_their_order(probe: Probe) -> None:
    assert await probe.devices() == await probe.devices()


async def test_there_is_one_reading_for_each_device_in_the_same_order(probe: Probe) -> None:
    readings = await probe.read({})
    assert [reading.device for reading in readings] == [device.id for device in await probe.devices()]


async def test_used_and_free_add_up_to_the_capacity(probe: Probe) -> None:
    capacity = {device.id: device.capacity_bytes for device in await probe.devices()}
    for reading in await probe.read({}):
        assert reading.fault is None
        assert reading.used_bytes >= 0 and reading.free_bytes >= 0
        # A driver counts its own few pages on either side.
        assert reading.used_bytes + reading.free_bytes == pytest.approx(capacity[reading.device], rel=0.01)


async def test_what_is_measured_is_plausible(probe: Probe) -> None:
    for reading in await probe.read({}):
        assert reading.utilization_ratio is None or 0 <= reading.utilization_ratio <= 1
        assert reading.temperature_c is None or 0 < reading.temperature_c < 120
        assert reading.power_w is None or 0 <= reading.power_w < 5000
        assert all(one.pid > 0 for one in reading.processes)


async def test_links_lead_to_other_devices_of_the_probe(probe: Probe) -> None:
    devices = await probe.devices()
    ids = {device.id for device in devices}
    for device in devices:
        reached = [other for other, _ in device.links]
        assert set(reached) <= ids - {device.id} and len(set(reached)) == len(reached)


async def test_processes_that_are_gone_disturb_nothing(probe: Probe) -> None:
    gone = frozenset({2**22 - 1})
    ours = {device.id: gone for device in await probe.devices()}
    for reading in await probe.read(ours):
        assert not gone & {one.pid for one in reading.processes}


async def test_faults_end_when_the_probe_is_closed(probe: Probe) -> None:
    async def listen() -> list[DeviceFault]:
        return [fault async for fault in probe.faults()]

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        heard = group.create_task(listen())
        await probe.read({})
        await probe.close()
    assert heard.result() == []


async def test_listening_for_faults_can_be_cancelled(probe: Probe) -> None:
    async def listen() -> None:
        async for _ in probe.faults():
            pass

    async with asyncio.TaskGroup() as group:
        listening = group.create_task(listen())
        await probe.read({})
        listening.cancel()
    assert listening.cancelled()
    assert await probe.read({}), "it still reads"


async def test_readings_may_be_asked_for_at_once(probe: Probe) -> None:
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(probe.read({})) for _ in range(8)]
    assert len({tuple(reading.device for reading in task.result()) for task in asked}) == 1


async def test_closing_twice_is_harmless(probe: Probe) -> None:
    await probe.devices()
    await probe.close()
    await probe.close()
