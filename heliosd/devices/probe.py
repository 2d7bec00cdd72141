"""What every source of devices can do: say what is there, read it, and tell of faults."""

from collections.abc import AsyncIterator, Mapping
from typing import Protocol

from heliosd.core.hardware import Device, DeviceFault, DeviceReading
from heliosd.core.names import DeviceId


class Probe(Protocol):
    """A source of devices. Blocking library calls happen in its own thread, never on the event loop."""

    async def devices(self) -> tuple[Device, ...]:
        """All devices, in a stable order. Raises HeliosError when the driver cannot be used at all."""
        ...

    async def read(self, ours: Mapping[DeviceId, frozenset[int]]) -> tuple[DeviceReading, ...]:
        """One reading per device. `ours` has the process ids of Helios' engines on each device.

        A device that fails is a reading with `fault`, never an exception.
        """
        ...

    def faults(self) -> AsyncIterator[DeviceFault]:
        """Faults as the driver reports them, until closed. May never yield."""
        ...

    async def close(self) -> None: ...
