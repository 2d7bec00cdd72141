"""Devices that are only said to exist: a fleet file on a laptop, and tests. What replicas hold, engines tell."""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from heliosd.core.hardware import Device, DeviceFault, DeviceKind, DeviceReading, LinkKind, ProcessUse
from heliosd.core.names import DeviceId
from heliosd.core.units import format_bytes
from heliosd.errors import EngineFailed


@dataclass(frozen=True, slots=True)
class _Process:
    """What stands for the process of a replica that is told of as one."""

    pid: int
    since: float
    leak_bytes_per_s: int


@dataclass(frozen=True, slots=True)
class SimulatedDevice:
    """One device of a fleet."""

    id: DeviceId
    name: str
    capacity_bytes: int
    foreign_bytes: int = 0
    """What processes that are not ours hold, for ever."""
    numa_node: int | None = None
    nvlink: bool = False
    """Reaches every other device with NVLink through it."""


class SimulatedDevices:
    """A probe over a fleet, and the account that simulated engines book their memory on."""

    def __init__(self, fleet: Sequence[SimulatedDevice], now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._processes: dict[str, _Process] = {}
        self._last_pid = 0
        self._fleet = {one.id: one for one in fleet}
        self._held: defaultdict[DeviceId, dict[str, int]] = defaultdict(dict)
        self._failed: dict[DeviceId, str] = {}
        self._reports: asyncio.Queue[DeviceFault | None] = asyncio.Queue()

    async def devices(self) -> tuple[Device, ...]:
        return tuple(
            Device(
                id=one.id,
                kind=DeviceKind.SIMULATED,
                name=one.name,
                capacity_bytes=one.capacity_bytes,
                index=index,
                numa_node=one.numa_node,
                links=tuple((other.id, _link(one, other)) for other in self._fleet.values() if other.id != one.id),
            )
            for index, one in enumerate(self._fleet.values())
        )

    async def read(self, ours: Mapping[DeviceId, frozenset[int]]) -> tuple[DeviceReading, ...]:
        """Simulated engines have no processes; those of `follow` are listed, with numbers below zero."""
        return tuple(self._look(one) for one in self._fleet.values())

    async def faults(self) -> AsyncIterator[DeviceFault]:
        """What `fail` was told."""
        while (fault := await self._reports.get()) is not None:
            yield fault

    async def close(self) -> None:
        await self._reports.put(None)

    def take(self, replica: str, device: DeviceId, n_bytes: int) -> None:
        """Book bytes for a replica, on top of what it holds there.

        Raises EngineFailed when the device has failed or has not as much free, as a real one would.
        """
        reading = self._look(self._fleet[device])
        if reading.fault is not None:
            raise EngineFailed(f"cannot take memory of {device}: {reading.fault}", cause=reading.fault)
        if n_bytes > reading.free_bytes:
            raise EngineFailed(
                f"cannot take {format_bytes(n_bytes)} of {device}: {format_bytes(reading.free_bytes)} "
                f"of {format_bytes(self._fleet[device].capacity_bytes)} are free",
                cause=(
                    f"CUDA out of memory. Tried to allocate {format_bytes(n_bytes)}. {device} has a total capacity of "
                    f"{format_bytes(self._fleet[device].capacity_bytes)} of which "
                    f"{format_bytes(reading.free_bytes)} is free."
                ),
            )
        held = self._held[device]
        held[replica] = held.get(replica, 0) + n_bytes

    def give(self, replica: str) -> None:
        """Free all that a replica holds, on every device. Harmless when it holds nothing."""
        for held in self._held.values():
            held.pop(replica, None)
        self._processes.pop(replica, None)

    def follow(self, replica: str, leak_bytes_per_s: int) -> int:
        """From now on list what a replica holds as that of a process; returns its number. It leaks so much of each
        device on which it holds anything, until it gives its memory back."""
        self._last_pid -= 1
        self._processes[replica] = _Process(self._last_pid, self._now(), leak_bytes_per_s)
        return self._last_pid

    def set_foreign(self, device: DeviceId, n_bytes: int) -> None:
        """From now on processes that are not ours hold so much."""
        self._fleet[device] = replace(self._fleet[device], foreign_bytes=n_bytes)

    def fail(self, device: DeviceId, message: str, *, xid: int | None = None) -> None:
        """Break a device: its readings carry the fault, and it is reported as fatal."""
        self._failed[device] = message
        self._reports.put_nowait(DeviceFault(self._fleet[device].id, message, xid=xid, fatal=True))

    def heal(self, device: DeviceId) -> None:
        """As after a reset. What replicas booked there is still booked."""
        self._failed.pop(device, None)

    def _look(self, one: SimulatedDevice) -> DeviceReading:
        if one.id in self._failed:
            return DeviceReading(one.id, used_bytes=0, free_bytes=0, fault=self._failed[one.id])
        held = {replica: n_bytes + self._leaked(replica) for replica, n_bytes in self._held[one.id].items()}
        used = min(one.capacity_bytes, one.foreign_bytes + sum(held.values()))
        listed = [(self._processes[replica].pid, held[replica]) for replica in held if replica in self._processes]
        return DeviceReading(one.id, used, one.capacity_bytes - used, tuple(ProcessUse(*each) for each in listed))

    def _leaked(self, replica: str) -> int:
        process = self._processes.get(replica)
        return int((self._now() - process.since) * process.leak_bytes_per_s) if process else 0


def _link(one: SimulatedDevice, other: SimulatedDevice) -> LinkKind:
    if one.nvlink and other.nvlink:
        return LinkKind.NVLINK
    return LinkKind.NUMA if one.numa_node == other.numa_node else LinkKind.SYSTEM
