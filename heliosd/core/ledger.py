"""The one account of every device's bytes.

`promised ≤ capacity − foreign − safety` holds whenever a promise is made; foreign memory may grow afterwards, which
makes `free_bytes` negative and is told, not hidden. The scheduler is the only writer.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from heliosd.core.hardware import Device, DeviceReading
from heliosd.core.messages import Footprint
from heliosd.core.names import DeviceId, ReplicaId
from heliosd.core.snapshot import DeviceAccount

NOTHING = Footprint(0, 0, 0)


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

    def book(self, replica: ReplicaId, devices: tuple[DeviceId, ...], per_device: Footprint) -> None:
        """Promise bytes to a replica before it starts. Raises ValueError when they are not there: a bug of ours."""
        for device in devices:
            if per_device.total_bytes > self.free_bytes(device):
                raise ValueError(
                    f"cannot promise {per_device.total_bytes} bytes of {device} to {replica}: "
                    f"{self.free_bytes(device)} are free"
                )
        self.promised[replica] = (devices, per_device)

    def measure(self, replica: ReplicaId, measured: Footprint) -> None:
        """Take in what a replica really holds; a promise that was too small becomes what is true."""
        devices, promised = self.promised[replica]
        self.measured[replica] = measured
        if measured.total_bytes > promised.total_bytes:
            self.promised[replica] = (devices, measured)

    def release(self, replica: ReplicaId) -> None:
        """Take back what was promised. Harmless when repeated."""
        self.promised.pop(replica, None)
        self.measured.pop(replica, None)

    def read(self, readings: Iterable[DeviceReading], ours: Mapping[int, ReplicaId]) -> None:
        """Take in what the devices say; `ours` maps process ids to replicas.

        Foreign memory is what all processes hold minus what ours do. Where the driver does not say which process
        holds what, ours are taken to hold what they were measured to hold, or else what they were promised.
        While a replica starts, nobody knows how much of its promise it holds already: then what was known to be
        foreign stays so, at least. A device that fails says nothing.
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
            starting = any(
                reading.device in devices and replica not in known and replica not in self.measured
                for replica, (devices, _) in self.promised.items()
            )
            floor_bytes = self.foreign.get(reading.device, 0) if starting else 0
            self.foreign[reading.device] = max(floor_bytes, reading.used_bytes - mine)

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
        return sum(each.total_bytes for devices, each in self.promised.values() if device in devices)

    def free_bytes(self, device: DeviceId) -> int:
        return self.usable_bytes(device) - self.promised_bytes(device)

    def healthy(self, device: DeviceId) -> bool:
        reading = self.readings.get(device)
        return reading is None or reading.fault is None

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
        )
