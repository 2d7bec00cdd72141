"""The share of the machine's RAM set aside for engines on the CPU, as one device.

What others take shows as used once it reaches into the share: free is never more than the kernel would really give.
"""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from heliosd.core.hardware import Device, DeviceFault, DeviceKind, DeviceReading, ProcessUse
from heliosd.core.names import DeviceId
from heliosd.core.units import format_bytes
from heliosd.devices.ram import CGROUPS, PROC, available_bytes, process_bytes, processor_name, total_bytes
from heliosd.errors import ConfigError, HeliosError

log = logging.getLogger("heliosd.devices")

HOST = DeviceId("host")


class HostProbe:
    """The CPU as a device. Its capacity is `capacity_bytes`, else `ratio` of the RAM we may use."""

    def __init__(
        self,
        *,
        capacity_bytes: int | None = None,
        ratio: float = 0.5,
        proc: Path = PROC,
        cgroups: Path = CGROUPS,
    ) -> None:
        self._asked_bytes = capacity_bytes
        self._ratio = ratio
        self._proc = proc
        self._cgroups = cgroups
        self._device: Device | None = None
        self._closed = asyncio.Event()

    async def devices(self) -> tuple[Device, ...]:
        """One device. Raises ConfigError when more is asked for than the machine or its cgroup has."""
        if self._device is None:
            self._device = await asyncio.to_thread(self._find)
        return (self._device,)

    async def read(self, ours: Mapping[DeviceId, frozenset[int]]) -> tuple[DeviceReading, ...]:
        """`processes` are ours alone, each with its share of pages that several map; no other process is looked at."""
        try:
            (device,) = await self.devices()
            return (await asyncio.to_thread(self._look, device, ours.get(HOST, frozenset())),)
        except (HeliosError, OSError, ValueError) as error:
            return (DeviceReading(HOST, used_bytes=0, free_bytes=0, fault=str(error)),)

    async def faults(self) -> AsyncIterator[DeviceFault]:
        """RAM reports none; ends when closed."""
        await self._closed.wait()
        for fault in tuple[DeviceFault, ...]():
            yield fault

    async def close(self) -> None:
        self._closed.set()

    def _find(self) -> Device:
        total = total_bytes(self._proc, self._cgroups)
        capacity = round(total * self._ratio) if self._asked_bytes is None else self._asked_bytes
        if capacity > total:
            raise ConfigError(
                f"cannot set {format_bytes(capacity)} aside for engines on the CPU: "
                f"this machine, or the cgroup heliosd runs in, has {format_bytes(total)}"
            )
        cores = os.cpu_count() or 1
        return Device(HOST, DeviceKind.HOST, f"{processor_name(self._proc)}, {cores} cores", capacity)

    def _look(self, device: Device, pids: frozenset[int]) -> DeviceReading:
        processes = tuple(
            ProcessUse(pid, n_bytes) for pid in sorted(pids) if (n_bytes := process_bytes(self._proc, pid)) is not None
        )
        held = sum(one.used_bytes or 0 for one in processes)
        available = available_bytes(self._proc, self._cgroups)
        free = max(0, min(device.capacity_bytes - held, available))
        return DeviceReading(HOST, device.capacity_bytes - free, free, processes)
