"""Several probes as one, in the order given: a GPU machine whose CPU runs engines too."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence

from heliosd.core.hardware import Device, DeviceFault, DeviceReading
from heliosd.core.names import DeviceId
from heliosd.devices.probe import Probe


class UnionProbe:
    """All devices of several probes. Closes them when closed."""

    def __init__(self, probes: Sequence[Probe]) -> None:
        self._probes = tuple(probes)

    async def devices(self) -> tuple[Device, ...]:
        """Raises what the first probe that cannot say raises."""
        return tuple([device for probe in self._probes for device in await probe.devices()])

    async def read(self, ours: Mapping[DeviceId, frozenset[int]]) -> tuple[DeviceReading, ...]:
        """One after the other: each takes a millisecond or so."""
        return tuple([reading for probe in self._probes for reading in await probe.read(ours)])

    async def faults(self) -> AsyncIterator[DeviceFault]:
        """The faults of all, as they come; ends when all have ended."""
        # A generator cannot keep a TaskGroup open across its yields (closing it early would raise an
        # ExceptionGroup), so the tasks are owned, and ended, right here.
        loop = asyncio.get_running_loop()
        streams = [probe.faults() for probe in self._probes]
        waiting = {loop.create_task(_next(stream)): stream for stream in streams}
        try:
            while waiting:
                done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    stream = waiting.pop(task)
                    if (fault := task.result()) is not None:
                        waiting[loop.create_task(_next(stream))] = stream
                        yield fault
        finally:
            for task in waiting:
                task.cancel()
            if waiting:
                await asyncio.wait(waiting)

    async def close(self) -> None:
        for probe in self._probes:
            await probe.close()


async def _next(stream: AsyncIterator[DeviceFault]) -> DeviceFault | None:
    """None at the end: a task may not raise StopAsyncIteration to its waiter unseen."""
    return await anext(stream, None)
