"""The real pynvml over a driver that the tests build."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from heliosd.core.hardware import DeviceFault, DeviceKind, LinkKind, ProcessUse
from heliosd.core.names import DeviceId
from heliosd.core.units import GiB
from heliosd.devices.nvml import NvmlProbe, present
from heliosd.errors import HeliosError
from tests.devices import fake_nvml
from tests.devices.fake_nvml import FakeDriver, fake_driver


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[FakeDriver]:
    with fake_driver(tmp_path) as driver:
        yield driver


@pytest.fixture
async def probe(driver: FakeDriver) -> AsyncIterator[NvmlProbe]:
    probe = NvmlProbe(driver.nvml)
    yield probe
    await probe.close()


async def test_eight_gpus_are_eight_devices(probe: NvmlProbe) -> None:
    devices = await probe.devices()
    assert [device.id for device in devices] == [f"GPU-{index:08d}" for index in range(8)]
    third = devices[3]
    assert third.kind is DeviceKind.CUDA
    assert third.name == "NVIDIA H100 80GB HBM3"
    assert third.index == 3
    assert third.capacity_bytes == fake_nvml.H100_BYTES - fake_nvml.RESERVED_BYTES
    assert third.compute_capability == (9, 0)
    assert third.numa_node == 0
    assert devices[4].numa_node == 1
    assert third.driver_version == "580.95.05"
    assert third.pcie == (5, 16)


async def test_links_say_how_gpus_reach_one_another(driver: FakeDriver, probe: NvmlProbe) -> None:
    driver.gpus[0].nvlink = 0
    driver.gpus[0].pcie_switch = driver.gpus[1].pcie_switch = 1
    devices = await probe.devices()
    assert dict(devices[2].links)[devices[7].id] is LinkKind.NVLINK
    from_first = [kind for _, kind in devices[0].links]
    assert from_first == [LinkKind.PCIE_SWITCH] + [LinkKind.PCIE_HOST] * 2 + [LinkKind.SYSTEM] * 4


async def test_a_reading_has_what_the_driver_says(driver: FakeDriver, probe: NvmlProbe) -> None:
    gpu = driver.gpus[1]
    gpu.utilization, gpu.ecc = 73, 2
    gpu.run(pid=4711, used_bytes=10 * GiB)
    reading = (await probe.read({}))[1]
    assert reading.used_bytes == 10 * GiB
    assert reading.free_bytes == fake_nvml.H100_BYTES - fake_nvml.RESERVED_BYTES - 10 * GiB
    assert reading.processes == (ProcessUse(4711, 10 * GiB),)
    assert reading.utilization_ratio == pytest.approx(0.73)
    assert (reading.temperature_c, reading.power_w, reading.power_limit_w) == (36.0, 70.5, 700.0)
    assert reading.ecc_errors == 2
    assert reading.fault is None


async def test_in_a_container_processes_are_known_but_not_their_bytes(driver: FakeDriver, probe: NvmlProbe) -> None:
    driver.gpus[0].run(pid=4711, used_bytes=fake_nvml.NOT_TOLD)
    assert (await probe.read({}))[0].processes == (ProcessUse(4711, None),)


async def test_a_gpu_with_mig_on_is_its_slices(driver: FakeDriver, probe: NvmlProbe) -> None:
    driver.gpus[7].slice_up(0, 2)
    driver.gpus[7].slices[2].run(pid=12, used_bytes=GiB)
    devices = await probe.devices()
    assert [device.id for device in devices[6:]] == ["GPU-00000006", "MIG0-00000007", "MIG2-00000007"]
    second = devices[8]
    assert second.kind is DeviceKind.MIG
    assert (second.parent, second.index) == ("GPU-00000007", 7)
    assert second.capacity_bytes == fake_nvml.SLICE_BYTES
    assert second.name == "NVIDIA H100 80GB HBM3 MIG 1g.10gb"
    assert second.links == () and "GPU-00000007" not in dict(devices[0].links)

    first, second_now = (await probe.read({}))[7:]
    assert (first.used_bytes, first.processes) == (0, ())
    assert (second_now.used_bytes, second_now.processes) == (GiB, (ProcessUse(12, GiB),))
    assert second_now.utilization_ratio is None and second_now.power_w is None
    assert second_now.temperature_c == 42.0, "the board's"


async def test_mig_on_without_slices_leaves_nothing_to_run_on(driver: FakeDriver, probe: NvmlProbe) -> None:
    driver.gpus[7].slice_up()
    assert len(await probe.devices()) == 7


async def test_an_old_driver_still_tells_the_memory(tmp_path: Path) -> None:
    with fake_driver(tmp_path, "OLD", n_gpus=2) as driver:
        probe = NvmlProbe(driver.nvml)
        driver.gpus[0].run(pid=7, used_bytes=GiB)
        device = (await probe.devices())[0]
        reading = (await probe.read({}))[0]
        async with asyncio.TaskGroup() as group:
            ended = group.create_task(anext(probe.faults(), None))
            await probe.close()
        assert ended.result() is None, "it reports no faults"
    assert device.capacity_bytes == fake_nvml.H100_BYTES, "what is reserved is not told"
    assert reading.used_bytes == GiB + fake_nvml.RESERVED_BYTES, "so it counts as used"
    assert reading.free_bytes == device.capacity_bytes - reading.used_bytes
    assert reading.processes == (ProcessUse(7, GiB),)
    assert reading.temperature_c == 35.0
    assert device.links == (("GPU-00000001", LinkKind.SYSTEM),), "without peer-to-peer, what PCIe says"


@pytest.mark.parametrize(
    ("build", "init_error", "says"),
    [
        ("ANCIENT", 0, "too old"),
        ("TODAY", fake_nvml.DRIVER_NOT_LOADED, "modprobe nvidia"),
        ("TODAY", fake_nvml.VERSION_MISMATCH, "different versions; restart the machine"),
        ("TODAY", fake_nvml.UNKNOWN, "nvidia-smi may say more"),
    ],
)
async def test_without_a_usable_driver_it_says_why(tmp_path: Path, build: str, init_error: int, says: str) -> None:
    with fake_driver(tmp_path, build) as driver:
        driver.state.init_error = init_error
        probe = NvmlProbe(driver.nvml)
        with pytest.raises(HeliosError, match=f"^cannot read the GPUs: .*{says}") as caught:
            await probe.devices()
        await probe.close()
    assert caught.value.code == "gpus_unreadable" and caught.value.cause


async def test_a_driver_that_comes_up_late_is_found_by_asking_again(driver: FakeDriver, probe: NvmlProbe) -> None:
    driver.state.init_error = fake_nvml.DRIVER_NOT_LOADED
    with pytest.raises(HeliosError):
        await probe.devices()
    driver.state.init_error = 0
    assert len(await probe.devices()) == 8


async def test_a_gpu_lost_at_the_start_is_listed_as_faulty(driver: FakeDriver, probe: NvmlProbe) -> None:
    driver.gpus[2].error = fake_nvml.GPU_IS_LOST
    devices = await probe.devices()
    assert len(devices) == 8
    assert (devices[2].id, devices[2].capacity_bytes) == ("gpu-2", 0)
    readings = await probe.read({})
    assert readings[2].fault == "GPU is lost: it has fallen off the bus; restart the machine"
    assert [reading.device for reading in readings if reading.fault is None] == [
        device.id for device in devices if device.index != 2
    ]
    assert "gpu-2" not in dict(devices[0].links)


@pytest.mark.parametrize("error", [fake_nvml.GPU_IS_LOST, fake_nvml.RESET_REQUIRED, fake_nvml.UNKNOWN])
async def test_a_gpu_that_fails_while_running_fails_alone(driver: FakeDriver, probe: NvmlProbe, error: int) -> None:
    await probe.devices()
    driver.gpus[5].error = error
    readings = await probe.read({})
    assert [reading.device for reading in readings if reading.fault] == ["GPU-00000005"]
    assert readings[5].free_bytes == 0


async def test_when_the_driver_dies_every_reading_is_a_fault(driver: FakeDriver, probe: NvmlProbe) -> None:
    await probe.devices()
    driver.state.error = fake_nvml.DRIVER_NOT_LOADED
    readings = await probe.read({})
    assert len(readings) == 8
    assert all("the NVIDIA driver is gone" in (reading.fault or "") for reading in readings)


async def test_a_hanging_driver_is_a_fault_and_not_a_hanging_daemon(driver: FakeDriver) -> None:
    probe = NvmlProbe(driver.nvml, patience_s=0.05)
    await probe.devices()
    driver.gpus[0].hang_ms = 20
    readings = await probe.read({})
    assert {reading.fault for reading in readings} == {"the driver has not answered for 0.05 s"}
    driver.gpus[0].hang_ms = 0
    await probe.close()


async def _first_fault(probe: NvmlProbe) -> DeviceFault:
    async with asyncio.timeout(5):
        return await anext(probe.faults())


@pytest.mark.parametrize(("xid", "fatal"), [(79, True), (31, False), (9999, False)])
async def test_an_xid_is_delivered(driver: FakeDriver, probe: NvmlProbe, xid: int, fatal: bool) -> None:
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(_first_fault(probe))
        driver.gpus[2].xid = xid
    fault = waiting.result()
    assert (fault.device, fault.xid, fault.fatal) == ("GPU-00000002", xid, fatal)
    assert fault.message.startswith(f"Xid {xid}: ")


async def test_a_double_bit_error_is_fatal(driver: FakeDriver, probe: NvmlProbe) -> None:
    driver.gpus[0].double_bit = 1
    assert await _first_fault(probe) == DeviceFault(DeviceId("GPU-00000000"), "uncorrectable memory error", fatal=True)


async def test_an_xid_of_one_slice_spares_the_others(driver: FakeDriver, probe: NvmlProbe) -> None:
    gpu = driver.gpus[7]
    gpu.slice_up(0, 1, 2)
    gpu.xid, gpu.xid_instance = 43, gpu.slices[1].instance
    faults = probe.faults()
    assert (await anext(faults)).device == "MIG1-00000007"
    gpu.xid_instance, gpu.xid = 0, 79
    assert {(await anext(faults)).device for _ in range(3)} == {f"MIG{place}-00000007" for place in range(3)}


async def test_after_one_gpu_is_lost_the_others_still_report(driver: FakeDriver, probe: NvmlProbe) -> None:
    faults = probe.faults()
    driver.gpus[0].xid = 31
    async with asyncio.timeout(5):
        assert (await anext(faults)).xid == 31
        driver.gpus[4].error = fake_nvml.GPU_IS_LOST
        lost = await anext(faults)
        driver.gpus[6].xid = 48
        next_one = await anext(faults)
    assert (lost.device, lost.fatal) == ("GPU-00000004", True)
    assert (next_one.device, next_one.xid) == ("GPU-00000006", 48)


def test_the_library_is_found_as_a_driver_installs_it(tmp_path: Path) -> None:
    """In a process of its own, because a library once loaded stays."""
    program = (
        "import asyncio, json\n"
        "from heliosd.devices.nvml import NvmlProbe, present\n"
        "async def main():\n"
        "    probe = NvmlProbe()\n"
        "    devices = await probe.devices()\n"
        "    await probe.close()\n"
        "    return [present(), [device.id for device in devices]]\n"
        "print(json.dumps(asyncio.run(main())))\n"
    )
    with fake_driver(tmp_path, n_gpus=2):
        environment = {**os.environ, "LD_LIBRARY_PATH": str(fake_nvml.library("TODAY").parent)}
        done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=False)
    assert json.loads(done.stdout or b"null") == [True, ["GPU-00000000", "GPU-00000001"]], done.stderr.decode()


@pytest.mark.skipif(present(), reason="this machine has the driver's library")
async def test_a_machine_without_the_library_says_so() -> None:
    probe = NvmlProbe()
    with pytest.raises(HeliosError, match=r"libnvidia-ml\.so\.1 is not on this machine"):
        await probe.devices()
    await probe.close()
