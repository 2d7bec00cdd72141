"""GPUs and MIG slices through the driver: which there are, and one look at each. Blocks; knows no event loop."""

import logging
from dataclasses import dataclass, replace
from typing import Any

from heliosd.core.hardware import Device, DeviceKind, DeviceReading, ProcessUse
from heliosd.core.names import DeviceId
from heliosd.devices import mig, topology
from heliosd.devices.driver import ask, device_fault, too_old

log = logging.getLogger("heliosd.devices")


@dataclass(frozen=True, slots=True)
class Found:
    """A device with the driver's handles for it."""

    device: Device
    handle: Any = None
    """None: it could not even be opened."""
    board: Any = None
    """The whole GPU's handle: its own, or a slice's parent's."""
    instance: int | None = None
    """A slice's number in events."""
    fault: str | None = None
    """Why it could not be opened when it was looked for."""


def find(nvml: Any) -> tuple[Found, ...]:
    """All GPUs in the driver's order, one with MIG on replaced by its slices.

    A GPU that does not answer is there with `fault` and a capacity of 0, so that the operator sees it.
    Raises NVMLError when the driver itself does not answer or is too old.
    """
    driver = ask(nvml, nvml.nvmlSystemGetDriverVersion)
    found: list[Found] = []
    for index in range(nvml.nvmlDeviceGetCount()):
        try:
            found += _open(nvml, index, driver)
        except nvml.NVMLError as error:
            if too_old(error):
                raise
            fault = device_fault(error)
            log.warning("GPU cannot be used", extra={"index": index, "cause": fault})
            device = Device(DeviceId(f"gpu-{index}"), DeviceKind.CUDA, f"GPU {index}", 0, index, driver_version=driver)
            found.append(Found(device, fault=fault))
    return _linked(nvml, found)


def _open(nvml: Any, index: int, driver: str | None) -> list[Found]:
    board = nvml.nvmlDeviceGetHandleByIndex(index)
    generation = ask(nvml, nvml.nvmlDeviceGetCurrPcieLinkGeneration, board)
    width = ask(nvml, nvml.nvmlDeviceGetCurrPcieLinkWidth, board)
    compute = ask(nvml, nvml.nvmlDeviceGetCudaComputeCapability, board)
    gpu = Device(
        id=DeviceId(nvml.nvmlDeviceGetUUID(board)),
        kind=DeviceKind.CUDA,
        name=ask(nvml, nvml.nvmlDeviceGetName, board) or "NVIDIA GPU",
        capacity_bytes=_memory(nvml, board).capacity_bytes,
        index=index,
        compute_capability=(compute[0], compute[1]) if compute else None,
        numa_node=topology.numa_node(nvml, board),
        driver_version=driver,
        pcie=(generation, width) if generation and width else None,
    )
    if not mig.is_sliced(nvml, board):
        return [Found(gpu, board, board)]
    slices = [_slice(nvml, gpu, board, handle) for handle in mig.slices(nvml, board)]
    if not slices:
        log.warning("GPU has MIG on and no slices, so it runs nothing", extra={"device": gpu.id, "index": index})
    return slices


def _slice(nvml: Any, gpu: Device, board: Any, handle: Any) -> Found:
    device = replace(
        gpu,
        id=DeviceId(nvml.nvmlDeviceGetUUID(handle)),
        kind=DeviceKind.MIG,
        name=ask(nvml, nvml.nvmlDeviceGetName, handle) or f"{gpu.name} MIG",
        capacity_bytes=_memory(nvml, handle).capacity_bytes,
        parent=gpu.id,
    )
    return Found(device, handle, board, mig.instance(nvml, handle))


def _linked(nvml: Any, found: list[Found]) -> tuple[Found, ...]:
    """Slices have no links: the driver offers no peer access between them, not even on one GPU."""
    whole = [(one.device.id, one.handle) for one in found if one.handle is not None and one.device.parent is None]
    linked = []
    for one in found:
        others = [(device, handle) for device, handle in whole if device != one.device.id]
        if one.handle is not None and one.device.parent is None:
            device = replace(one.device, links=topology.links(nvml, one.handle, others))
            linked.append(replace(one, device=device))
        else:
            linked.append(one)
    return tuple(linked)


def look(nvml: Any, one: Found) -> DeviceReading:
    """One reading. Whatever the driver says against the device is its `fault`; nothing is raised."""
    if one.handle is None:
        return faulty(one.device.id, one.fault or "it could not be opened")
    try:
        return _look(nvml, one)
    except nvml.NVMLError as error:
        return faulty(one.device.id, device_fault(error))


def faulty(device: DeviceId, fault: str) -> DeviceReading:
    """The reading of a device that cannot be used: nothing is free."""
    return DeviceReading(device, used_bytes=0, free_bytes=0, fault=fault)


def _look(nvml: Any, one: Found) -> DeviceReading:
    memory = _memory(nvml, one.handle)
    utilization = ask(nvml, nvml.nvmlDeviceGetUtilizationRates, one.handle)
    uncorrected, since_driver_start = nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nvml.NVML_VOLATILE_ECC
    # Power is the board's. Shown at each slice it would be counted once per slice.
    whole = one.device.parent is None
    power_mw = ask(nvml, nvml.nvmlDeviceGetPowerUsage, one.board) if whole else None
    limit_mw = ask(nvml, nvml.nvmlDeviceGetPowerManagementLimit, one.board) if whole else None
    return DeviceReading(
        device=one.device.id,
        used_bytes=memory.used_bytes,
        free_bytes=memory.free_bytes,
        processes=_processes(nvml, one.handle),
        utilization_ratio=None if utilization is None else utilization.gpu / 100,
        temperature_c=_temperature(nvml, one.board),
        power_w=None if power_mw is None else power_mw / 1000,
        power_limit_w=None if limit_mw is None else limit_mw / 1000,
        ecc_errors=ask(nvml, nvml.nvmlDeviceGetTotalEccErrors, one.board, uncorrected, since_driver_start),
    )


@dataclass(frozen=True, slots=True)
class _Memory:
    capacity_bytes: int
    used_bytes: int
    free_bytes: int


def _memory(nvml: Any, handle: Any) -> _Memory:
    """Without what the driver keeps for itself, where it tells (since 510); before, that counts as used."""
    v2 = ask(nvml, nvml.nvmlDeviceGetMemoryInfo, handle, nvml.nvmlMemory_v2)
    if v2 is not None:
        return _Memory(v2.total - v2.reserved, v2.used, v2.free)
    v1 = nvml.nvmlDeviceGetMemoryInfo(handle)
    return _Memory(v1.total, v1.used, v1.free)


def _processes(nvml: Any, handle: Any) -> tuple[ProcessUse, ...]:
    listed = ask(nvml, nvml.nvmlDeviceGetComputeRunningProcesses_v3, handle)
    if listed is None:
        listed = ask(nvml, nvml.nvmlDeviceGetComputeRunningProcesses_v2, handle)
    return tuple(ProcessUse(one.pid, one.usedGpuMemory) for one in listed or ())


def _temperature(nvml: Any, board: Any) -> float | None:
    degrees = ask(nvml, nvml.nvmlDeviceGetTemperatureV, board, nvml.NVML_TEMPERATURE_GPU)
    if degrees is None:
        degrees = ask(nvml, nvml.nvmlDeviceGetTemperature, board, nvml.NVML_TEMPERATURE_GPU)
    return None if degrees is None else float(degrees)
