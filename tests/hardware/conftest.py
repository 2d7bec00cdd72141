"""The first NVIDIA GPU of the machine; without a driver what wants it is skipped."""

from collections.abc import Iterator

import pytest

from heliosd.core.hardware import Device, DeviceKind
from heliosd.core.names import DeviceId


@pytest.fixture(scope="module")
def nvml() -> Iterator[object]:
    pynvml = pytest.importorskip("pynvml")
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        pytest.skip("no NVIDIA driver here")
    yield pynvml
    pynvml.nvmlShutdown()


@pytest.fixture(scope="module")
def gpu(nvml: object) -> Device:
    handle = nvml.nvmlDeviceGetHandleByIndex(0)  # type: ignore[attr-defined]
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)  # type: ignore[attr-defined]
    name = nvml.nvmlDeviceGetName(handle)  # type: ignore[attr-defined]
    uuid = nvml.nvmlDeviceGetUUID(handle)  # type: ignore[attr-defined]
    return Device(DeviceId(uuid), DeviceKind.CUDA, name, memory.total, index=0)


def used_bytes(nvml: object) -> int:
    """Of the first GPU, by all processes."""
    handle = nvml.nvmlDeviceGetHandleByIndex(0)  # type: ignore[attr-defined]
    return int(nvml.nvmlDeviceGetMemoryInfo(handle).used)  # type: ignore[attr-defined]
