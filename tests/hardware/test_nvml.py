"""The probe on this machine's own GPUs: the contract, and what only a real driver can show."""

import asyncio
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator

import pytest

from heliosd.core.units import GiB, MiB
from heliosd.devices.nvml import NvmlProbe, present
from tests.contracts.test_probe import (
    test_closing_twice_is_harmless,
    test_devices_are_there_and_each_has_a_name_of_its_own,
    test_devices_keep_their_order,
    test_faults_end_when_the_probe_is_closed,
    test_links_lead_to_other_devices_of_the_probe,
    test_listening_for_faults_can_be_cancelled,
    test_processes_that_are_gone_disturb_nothing,
    test_readings_may_be_asked_for_at_once,
    test_there_is_one_reading_for_each_device_in_the_same_order,
    test_used_and_free_add_up_to_the_capacity,
    test_what_is_measured_is_plausible,
)

__all__ = [
    "test_closing_twice_is_harmless",
    "test_devices_are_there_and_each_has_a_name_of_its_own",
    "test_devices_keep_their_order",
    "test_faults_end_when_the_probe_is_closed",
    "test_links_lead_to_other_devices_of_the_probe",
    "test_listening_for_faults_can_be_cancelled",
    "test_processes_that_are_gone_disturb_nothing",
    "test_readings_may_be_asked_for_at_once",
    "test_there_is_one_reading_for_each_device_in_the_same_order",
    "test_used_and_free_add_up_to_the_capacity",
    "test_what_is_measured_is_plausible",
]

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not present(), reason="no NVIDIA driver on this machine")]


@pytest.fixture
async def probe() -> AsyncIterator[NvmlProbe]:
    probe = NvmlProbe()
    yield probe
    await probe.close()


async def test_a_real_gpu_tells_all_that_placement_wants(probe: NvmlProbe) -> None:
    for device in await probe.devices():
        assert device.id.startswith(("GPU-", "MIG-"))
        assert device.capacity_bytes > GiB
        assert device.compute_capability is not None and device.compute_capability >= (5, 0)
        assert device.driver_version


async def test_what_a_process_takes_is_seen_and_seen_to_go(probe: NvmlProbe) -> None:
    """A child holds 1 GiB of the first GPU through the CUDA driver's own library, so no toolkit is needed."""
    program = (
        "import ctypes\n"
        "cuda = ctypes.CDLL('libcuda.so.1')\n"
        "context, memory = ctypes.c_void_p(), ctypes.c_uint64()\n"
        "assert cuda.cuInit(0) == 0\n"
        "assert cuda.cuCtxCreate_v2(ctypes.byref(context), 0, 0) == 0\n"
        "assert cuda.cuMemAlloc_v2(ctypes.byref(memory), ctypes.c_size_t(1 << 30)) == 0\n"
        "print('held', flush=True)\n"
        "input()\n"
    )
    before = (await probe.read({}))[0]
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdin=PIPE, stdout=PIPE)
    assert child.stdin and child.stdout
    assert await child.stdout.readline() == b"held\n"
    during = (await probe.read({}))[0]
    await child.communicate(b"\n")
    after = (await probe.read({}))[0]
    assert during.used_bytes - before.used_bytes >= GiB
    assert after.used_bytes - before.used_bytes < 64 * MiB
