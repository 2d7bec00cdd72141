"""The one account of every device's bytes, and of the host memory that sleeping replicas hold.

`promised ≤ capacity − foreign − safety` holds whenever a promise is made; foreign memory may grow afterwards, which
makes `free_bytes` negative and is told, not hidden. A sleeper is promised its residue. The scheduler is the only
writer.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from heliosd.core.hardware import Device, DeviceReading, HostReading
from heliosd.core.messages import Footprint
from heliosd.core.names import DeviceId, ReplicaId
from heliosd.core.snapshot import DeviceAccount, HostAccount

NOTHING = Footprint(0, 0, 0)
CREDIBLE_RATIO = 1.5
"""A driver that says that a replica holds more than so many times what was booked is not believed."""
HOST_RESERVE_RATIO = 0.05
"""Of the machine's RAM, left to others when replicas fall asleep."""


def add(footprints: Iterable[Footprint]) -> Footprint:
    """Sum footprints column by column."""
    total = NOTHING
    for one in footprints:
        total = Footprint(
            total.weights_bytes + one.weights_bytes,
            total.kv_cache_bytes + one.kv_cache_bytes,
            total.overhead_bytes + one.overhead_bytes,
        )
    return total


@dataclass
class Ledger:
    """Promises and measurements per device. Booking and releasing are keyed by replica, so neither counts twice."""

    safety_ratio: float = 0.02
    devices: dict[DeviceId, Device] = field(default_factory=dict)
    readings: dict[DeviceId, DeviceReading] = field(default_factory=dict)
    promised: dict[ReplicaId, tuple[tuple[DeviceId, ...], Footprint]] = field(default_factory=dict)
    measured: dict[ReplicaId, Footprint] = field(default_factory=dict)
    foreign: dict[DeviceId, int] = field(default_factory=dict)
    _sums: dict[DeviceId, int] | None = None
    """Of what is promised on each device; None when it has changed."""
    drift: dict[DeviceId, int] = field(default_factory=dict)
    """What the device says ours hold, minus what they were measured to hold, in bytes, at the last reading."""
    host_bytes: int = 0
    """What sleepers may hold of host memory."""
    host: HostReading | None = None
    booked: dict[ReplicaId, Footprint] = field(default_factory=dict)
    """What each replica was promised before anything said that it holds more."""
    running_out: set[DeviceId] = field(default_factory=set)
    """Devices that will soon be full; nothing is started there."""
    host_running_out: bool = False
    """Others will soon have used host memory up."""
    drained: set[DeviceId] = field(default_factory=set)
    """Devices that an operator has taken out; nothing is started there."""
    sleeping: set[ReplicaId] = field(default_factory=set)
    staged: dict[ReplicaId, int] = field(default_factory=dict)
    """What each sleeper holds of it."""
    tier_bytes: int = 0
    """What models kept ready to load hold of it: sleepers go first, so it counts as free for them."""
    shell_bytes: int = 0
    """What processes made ahead of need hold of it: they go before anything else, so it counts as free for all."""

    def book(self, replica: ReplicaId, devices: tuple[DeviceId, ...], per_device: Footprint) -> None:
        """Promise bytes to a replica before it starts. Raises ValueError when they are not there: a bug of ours."""
        for device in devices:
            if per_device.total_bytes > self.free_bytes(device):
                raise ValueError(
                    f"cannot promise {per_device.total_bytes} bytes of {device} to {replica}: "
                    f"{self.free_bytes(device)} are free"
                )
        self._promise(replica, devices, per_device)
        self.booked[replica] = per_device

    def measure(self, replica: ReplicaId, measured: Footprint) -> None:
        """Take in what a replica really holds; a promise that was too small becomes what is true."""
        devices, promised = self.promised[replica]
        self.measured[replica] = measured
        if measured.total_bytes > promised.total_bytes:
            self._promise(replica, devices, measured)
            self.booked[replica] = measured

    def slept(self, replica: ReplicaId, residue: Footprint, host_bytes: int) -> None:
        """A replica gave its memory back; what it keeps is what it is promised."""
        devices, _ = self.promised[replica]
        self._promise(replica, devices, residue)
        self.measured[replica] = residue
        self.staged[replica] = host_bytes
        self.sleeping.add(replica)

    def wake(self, replica: ReplicaId, per_device: Footprint) -> None:
        """Promise a sleeper what it needs awake. Raises ValueError when it is not there: a bug of ours."""
        devices, residue = self.promised.pop(replica)
        self._sums = None
        self.measured.pop(replica, None)
        try:
            self.book(replica, devices, per_device)
        except ValueError:
            self._promise(replica, devices, residue)
            self.measured[replica] = residue
            raise
        self.sleeping.discard(replica)

    def stage(self, replica: ReplicaId, n_bytes: int) -> None:
        """Set host memory aside for a replica that falls asleep."""
        self.staged[replica] = n_bytes

    def awake(self, replica: ReplicaId) -> None:
        """What it held of host memory is free."""
        self.staged.pop(replica, None)

    def release(self, replica: ReplicaId) -> None:
        """Take back what was promised. Harmless when repeated."""
        self.promised.pop(replica, None)
        self._sums = None
        self.measured.pop(replica, None)
        self.staged.pop(replica, None)
        self.booked.pop(replica, None)
        self.sleeping.discard(replica)

    @property
    def host_free_bytes(self) -> int:
        """What another sleeper may take of host memory; nothing while others are about to use it up."""
        return min(0, self.host_left_bytes) if self.host_running_out else self.host_left_bytes

    @property
    def host_left_bytes(self) -> int:
        """What is left of it for sleepers."""
        left = self.host_bytes - sum(self.staged.values())
        if self.host is not None:
            reserve = int(self.host.total_bytes * HOST_RESERVE_RATIO)
            left = min(left, self.host.available_bytes + self.tier_bytes + self.shell_bytes - reserve)
        return left

    @property
    def tier_room_bytes(self) -> int:
        """What models kept ready to load may hold of host memory, all together: what sleepers leave of it, and of
        what is available all but twice the reserve, so that they give way before a sleeper has to."""
        left = self.host_bytes - sum(self.staged.values())
        if self.host is not None:
            reserve = int(self.host.total_bytes * HOST_RESERVE_RATIO)
            left = min(left, self.host.available_bytes + self.tier_bytes + self.shell_bytes - 2 * reserve)
        return max(0, left)

    @property
    def shell_room_bytes(self) -> int:
        """What processes made ahead of need may hold of host memory, all together: what sleepers and models kept ready
        leave of it, and of what is available all but three times the reserve, so that they go first of all."""
        left = self.host_bytes - sum(self.staged.values()) - self.tier_bytes
        if self.host is not None:
            reserve = int(self.host.total_bytes * HOST_RESERVE_RATIO)
            left = min(left, self.host.available_bytes + self.shell_bytes - 3 * reserve)
        return max(0, left)

    def read(
        self,
        readings: Iterable[DeviceReading],
        ours: Mapping[int, ReplicaId],
        leaving: Collection[ReplicaId] = frozenset(),
    ) -> None:
        """Take in what the devices say; `ours` maps process ids to replicas.

        Foreign memory is what all processes hold minus what ours do. Where the driver does not say which process
        holds what, ours are taken to hold what they were measured to hold, or else what they were promised.
        While a replica starts, or gives its memory back (`leaving`), nobody knows how much of its promise it holds:
        then what was known to be foreign stays so, at least. A device that fails says nothing.
        """
        for reading in readings:
            self.readings[reading.device] = reading
            if reading.fault is not None:
                continue
            said = {use.pid: use.used_bytes for use in reading.processes if use.pid in ours}
            known = {ours[pid] for pid, used in said.items() if used is not None}
            mine = sum(used for used in said.values() if used is not None)
            mine += sum(
                self._held(replica)
                for replica, (devices, _) in self.promised.items()
                if reading.device in devices and replica not in known
            )
            self.drift[reading.device] = self._drift(reading, said, ours, mine)
            self._reconcile(said, ours)
            starting = any(
                reading.device in devices
                and replica not in known
                and (replica not in self.measured or replica in leaving)
                for replica, (devices, _) in self.promised.items()
            )
            floor_bytes = self.foreign.get(reading.device, 0) if starting else 0
            self.foreign[reading.device] = max(floor_bytes, reading.used_bytes - mine)

    def _drift(
        self, reading: DeviceReading, said: Mapping[int, int | None], ours: Mapping[int, ReplicaId], mine: int
    ) -> int:
        """Where the driver tells of processes, theirs; else only that all together hold less than ours should."""
        known = {ours[pid] for pid, used in said.items() if used is not None}
        if not known:
            starting = any(
                reading.device in devices and replica not in self.measured
                for replica, (devices, _) in self.promised.items()
            )
            return 0 if starting else min(0, reading.used_bytes - mine)
        settled = {replica for replica in known if replica in self.measured and replica in self.promised}
        held = sum(used for pid, used in said.items() if used is not None and ours[pid] in settled)
        return held - sum(self._held(replica) for replica in settled)

    def _reconcile(self, said: Mapping[int, int | None], ours: Mapping[int, ReplicaId]) -> None:
        """What the driver says that a measured replica's processes hold is what it holds; overhead is what changes.

        Its promise is what was booked, or what it holds where that is more. A sleeper's residue was measured by its
        engine. What is not credible (half as much again as was booked) is drift, and no reason to book anything.
        """
        for replica, was in list(self.measured.items()):
            uses = [used for pid, used in said.items() if ours[pid] == replica]
            devices, _ = self.promised[replica]
            if not uses or None in uses or len(devices) > 1 or replica in self.sleeping:
                continue
            booked = self.booked[replica]
            rest = sum(used or 0 for used in uses) - was.weights_bytes - was.kv_cache_bytes
            now = Footprint(was.weights_bytes, was.kv_cache_bytes, max(0, rest))
            if now.total_bytes <= booked.total_bytes * CREDIBLE_RATIO:
                self.measured[replica] = now
                self._promise(replica, devices, max(booked, now, key=lambda each: each.total_bytes))

    def _held(self, replica: ReplicaId) -> int:
        return self.measured.get(replica, self.promised[replica][1]).total_bytes

    def usable_bytes(self, device: DeviceId) -> int:
        """What all replicas together may be promised: capacity − foreign − safety."""
        capacity = self.devices[device].capacity_bytes
        return capacity - self.foreign.get(device, 0) - self.safety_bytes(device)

    def lasting_bytes(self, device: DeviceId) -> int:
        """What could ever be promised, foreign processes gone: capacity − safety."""
        return self.devices[device].capacity_bytes - self.safety_bytes(device)

    def safety_bytes(self, device: DeviceId) -> int:
        return int(self.devices[device].capacity_bytes * self.safety_ratio)

    def promised_bytes(self, device: DeviceId) -> int:
        if self._sums is None:
            self._sums = dict.fromkeys(self.devices, 0)
            for devices, each in self.promised.values():
                for one in devices:
                    self._sums[one] = self._sums.get(one, 0) + each.total_bytes
        return self._sums.get(device, 0)

    def beyond_booked_bytes(self, device: DeviceId) -> int:
        """What replicas turned out to hold there, beyond what was booked when they started."""
        return sum(
            max(0, now.total_bytes - self.booked[replica].total_bytes)
            for replica, (devices, now) in self.promised.items()
            if device in devices and replica in self.booked and replica not in self.sleeping
        )

    def _promise(self, replica: ReplicaId, devices: tuple[DeviceId, ...], per_device: Footprint) -> None:
        self.promised[replica] = (devices, per_device)
        self._sums = None

    def free_bytes(self, device: DeviceId) -> int:
        return self.usable_bytes(device) - self.promised_bytes(device)

    def fault(self, device: DeviceId) -> str | None:
        """Why the device cannot be used for now; None: it can."""
        reading = self.readings.get(device)
        fault = None if reading is None else reading.fault
        return fault or ("an operator drains it" if device in self.drained else None)

    def healthy(self, device: DeviceId) -> bool:
        return self.fault(device) is None

    def drift_ratio(self, device: DeviceId) -> float:
        """The drift as a share of the device; below zero where less is held than was measured."""
        return self.drift.get(device, 0) / max(1, self.devices[device].capacity_bytes)

    def account(self, device: DeviceId) -> DeviceAccount:
        """All columns of one device, for showing."""
        here = [replica for replica, (devices, _) in self.promised.items() if device in devices]
        return DeviceAccount(
            device=self.devices[device],
            reading=self.readings.get(device),
            foreign_bytes=self.foreign.get(device, 0),
            safety_bytes=self.safety_bytes(device),
            promised=add(self.promised[replica][1] for replica in here),
            measured_bytes=sum(self.measured[replica].total_bytes for replica in here if replica in self.measured),
            free_bytes=self.free_bytes(device),
            drift_bytes=self.drift.get(device, 0),
            drained=device in self.drained,
        )

    def host_account(self) -> HostAccount:
        staged_bytes = sum(self.staged.values())
        return HostAccount(self.host_bytes, staged_bytes, self.host_free_bytes, self.tier_bytes, self.shell_bytes)
