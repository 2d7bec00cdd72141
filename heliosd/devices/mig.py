"""The slices of a GPU in MIG mode. Such a GPU runs nothing itself; each slice is a device with memory of its own."""

from typing import Any

from heliosd.devices.driver import ask


def is_sliced(nvml: Any, gpu: Any) -> bool:
    """Whether MIG is on now (not: after the next reset). False for GPUs and drivers that do not know MIG."""
    mode = ask(nvml, nvml.nvmlDeviceGetMigMode, gpu)
    return mode is not None and mode[0] == nvml.NVML_DEVICE_MIG_ENABLE


def slices(nvml: Any, gpu: Any) -> list[Any]:
    """Handles of the slices in the driver's order. The numbers have gaps where slices were destroyed."""
    places = ask(nvml, nvml.nvmlDeviceGetMaxMigDeviceCount, gpu) or 0
    found = (ask(nvml, nvml.nvmlDeviceGetMigDeviceHandleByIndex, gpu, place) for place in range(places))
    return [handle for handle in found if handle is not None]


def instance(nvml: Any, handle: Any) -> int | None:
    """The number that events use for the GPU instance of a slice."""
    number = ask(nvml, nvml.nvmlDeviceGetGpuInstanceId, handle)
    return None if number is None else int(number)
