"""For which device an estimate is made: a GPU of the catalogue, so many bytes, or what this node has. Pure."""

import functools
from collections.abc import Iterable
from dataclasses import dataclass, replace

from heliosd.core.hardware import Device, DeviceKind
from heliosd.core.units import format_bytes
from heliosd.errors import BadRequest
from heliosd.estimation.catalogue import Gpu, Link, gpu
from heliosd.estimation.launch import Platform
from heliosd.wire import EstimateRequest

USUAL = "H100"
"""What is meant where nothing is said and this node has nothing."""

_FIRST = (DeviceKind.CUDA, DeviceKind.MIG, DeviceKind.SIMULATED, DeviceKind.HOST)


@dataclass(frozen=True, slots=True)
class Target:
    """One device."""

    name: str
    gpu: Gpu
    """With the memory of just this device; of the catalogue, where it is known there."""
    assumed: str | None = None
    """What to tell of how it was chosen."""

    @property
    def device_bytes(self) -> int:
        return self.gpu.usable_bytes


def target_of(asked: EstimateRequest, here: Target | None) -> Target:
    """The device that is meant. Raises BadRequest for a GPU that nobody knows."""
    if asked.gpu is not None:
        return named_target(asked.gpu, asked.device_bytes)
    if asked.device_bytes is not None:
        return Target(f"a device of {format_bytes(asked.device_bytes)}", _unknown("", asked.device_bytes))
    if here is not None:
        return here
    return Target(USUAL, named(USUAL), f"no `gpu` is named and this node has none: a {USUAL} is taken")


def target_here(devices: Iterable[Device]) -> Target | None:
    """The largest of this node's devices, GPUs before its memory; None when it has none."""
    ranked = sorted(devices, key=lambda each: (_FIRST.index(each.kind), -each.capacity_bytes))
    if not ranked:
        return None
    return device_like(ranked[0])


def device_like(device: Device) -> Target:
    """A device of this node, with what is known of its kind."""
    if device.kind is DeviceKind.HOST:
        return Target("this node's memory", _unknown("cpu", device.capacity_bytes, Platform.CPU))
    return Target(f"this node's {device.name}", _like(device.name, device.capacity_bytes))


def named_target(name: str, device_bytes: int | None = None) -> Target:
    """A GPU of the catalogue, with other memory than usual if so told. Raises BadRequest."""
    found = named(name)
    return Target(found.name, _resized(found, device_bytes))


@functools.lru_cache(maxsize=256)
def named(name: str) -> Gpu:
    """The catalogue's entry of this loose name. Raises BadRequest."""
    return gpu(name)


def _like(name: str, device_bytes: int) -> Gpu:
    try:
        return _resized(named(name), device_bytes)
    except BadRequest:
        return _unknown(name, device_bytes)


def _resized(found: Gpu, device_bytes: int | None) -> Gpu:
    if device_bytes is None or device_bytes == found.usable_bytes:
        return found
    return replace(found, usable_bytes=device_bytes)


def _unknown(name: str, device_bytes: int, platform: Platform = Platform.CUDA) -> Gpu:
    return Gpu(
        name=name or "such a device",
        device_name=name,
        usable_bytes=device_bytes,
        capability=None,
        platform=platform,
        multiprocessors=0,
        link=Link.PCIE,
        link_group=0,
        usd_per_hour=0.0,
    )
