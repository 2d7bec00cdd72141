"""NVIDIA GPUs and MIG slices, through NVML. All calls happen in one thread, waiting for faults in another."""

import asyncio
import ctypes
import importlib
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from heliosd.core.hardware import Device, DeviceFault, DeviceReading
from heliosd.core.names import DeviceId
from heliosd.devices.driver import LIBRARY, ask, driver_unusable
from heliosd.devices.fault_watch import FaultWatch
from heliosd.devices.gpus import Found, faulty, find, look

log = logging.getLogger("heliosd.devices")
T = TypeVar("T")

_WAIT_MS = 250
"""Nothing interrupts the driver's own wait, so this is how long closing may take."""


def present() -> bool:
    """Whether the driver's library can be loaded here. Takes milliseconds; says nothing about GPUs."""
    try:
        ctypes.CDLL(LIBRARY)
    except OSError:
        return False
    return True


class NvmlProbe:
    """The GPUs of this machine, as the driver shows them."""

    def __init__(self, nvml: Any = None, *, patience_s: float = 10.0) -> None:
        """`nvml` is the module pynvml, imported when first needed if not given.

        After `patience_s` without an answer (drivers do hang), readings say so as a fault.
        """
        self._nvml = nvml
        self._patience_s = patience_s
        self._driver = ThreadPoolExecutor(1, "nvml")
        self._listener = ThreadPoolExecutor(1, "nvml-faults")
        self._closing = asyncio.Event()
        self._started = False
        self._found: tuple[Found, ...] | None = None
        self._watch: FaultWatch | None = None

    async def devices(self) -> tuple[Device, ...]:
        """GPUs in the driver's order; one with MIG on as its slices. Raises Unavailable without a usable driver."""
        found = await self._ask_driver(self._find)
        return tuple(one.device for one in found)

    async def read(self, ours: Mapping[DeviceId, frozenset[int]]) -> tuple[DeviceReading, ...]:
        """One reading per device of the last `devices()`, used bytes without what the driver reserves.

        Process ids are those of the driver's own namespace: in a container they differ from ours.
        """
        found = await self._known()
        try:
            async with asyncio.timeout(self._patience_s):
                return await self._ask_driver(lambda: tuple(look(self._nvml, one) for one in found))
        except TimeoutError:
            fault = f"the driver has not answered for {self._patience_s:g} s"
            return tuple(faulty(one.device.id, fault) for one in found)

    async def faults(self) -> AsyncIterator[DeviceFault]:
        """Xids and uncorrectable memory errors, for each slice of a GPU that they concern."""
        found = await self._known()
        watch = await self._listen(lambda: self._open_watch(found))
        while watch.watching and not self._closing.is_set():
            for fault in await self._listen(lambda: watch.wait(_WAIT_MS)):
                yield fault
        await self._closing.wait()

    async def close(self) -> None:
        """Returns once both threads are done with the driver, or the driver is found to hang."""
        if self._closing.is_set():
            return
        self._closing.set()
        try:
            async with asyncio.timeout(self._patience_s):
                await self._listen(self._close_watch)
                await self._ask_driver(self._stop)
        except TimeoutError:
            log.warning("driver hangs, so it is left as it is", extra={"seconds": self._patience_s})
        self._listener.shutdown(wait=False)
        self._driver.shutdown(wait=False)

    async def _known(self) -> tuple[Found, ...]:
        found = self._found
        return await self._ask_driver(self._find) if found is None else found

    def _find(self) -> tuple[Found, ...]:
        if self._nvml is None:
            self._nvml = importlib.import_module("pynvml")
        try:
            if not self._started:
                self._nvml.nvmlInit()
                self._started = True
            found = find(self._nvml)
        except self._nvml.NVMLError as error:
            raise driver_unusable(error) from error
        self._found = found
        return found

    def _stop(self) -> None:
        if self._started:
            ask(self._nvml, self._nvml.nvmlShutdown)

    def _open_watch(self, found: tuple[Found, ...]) -> FaultWatch:
        if self._watch is None:
            self._watch = FaultWatch(self._nvml, found)
        return self._watch

    def _close_watch(self) -> None:
        if self._watch is not None:
            self._watch.close()

    async def _ask_driver(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._driver, work)

    async def _listen(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._listener, work)
