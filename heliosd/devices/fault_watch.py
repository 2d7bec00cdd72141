"""What the driver reports of its own accord: Xids and uncorrectable ECC errors. Blocks, so it has its own thread."""

import ctypes
import logging
from collections.abc import Iterable
from typing import Any

from heliosd.core.hardware import DeviceFault
from heliosd.devices.driver import ask, device_fault
from heliosd.devices.gpus import Found

log = logging.getLogger("heliosd.devices")

_TIMEOUT = 10
_ALL_INSTANCES = 0xFFFFFFFF

# The Xids one meets, and whether the GPU is of use afterwards. The others end the process that caused them.
_XIDS: dict[int, tuple[str, bool]] = {
    13: ("a kernel raised an exception", False),
    31: ("a kernel used memory that is not its own", False),
    43: ("a process's work was stopped", False),
    45: ("a process's work was cleaned up after an error", False),
    48: ("uncorrectable memory error", True),
    61: ("the GPU's microcontroller met an error", False),
    62: ("the GPU's microcontroller halted", True),
    63: ("a memory row was retired; it is replaced at the next reset", False),
    64: ("a memory row could not be retired", True),
    74: ("NVLink error", True),
    79: ("the GPU has fallen off the bus", True),
    92: ("many corrected memory errors", False),
    94: ("uncorrectable memory error, contained to one process", False),
    95: ("uncorrectable memory error, not contained", True),
    109: ("a context switch took too long", False),
    119: ("the GPU's system processor does not answer", True),
    120: ("the GPU's system processor failed", True),
    140: ("unrecovered memory error", True),
}


class FaultWatch:
    """An event set over boards. Only its own thread may use it."""

    def __init__(self, nvml: Any, found: Iterable[Found]) -> None:
        self._nvml = nvml
        self._boards: dict[int, list[Found]] = {}
        for one in found:
            if one.board is not None:
                self._boards.setdefault(_address(one.board), []).append(one)
        self._events: Any = None
        self._renew()

    @property
    def watching(self) -> bool:
        """False once there is nothing left that could report."""
        return self._events is not None

    def wait(self, timeout_ms: int) -> list[DeviceFault]:
        """Block until something is reported; empty after the time-out."""
        try:
            event = self._nvml.nvmlEventSetWait(self._events, timeout_ms)
        except self._nvml.NVMLError as error:
            return [] if error.value == _TIMEOUT else self._after(error)
        hit = self._boards.get(_address(event.device), [])
        if event.gpuInstanceId != _ALL_INSTANCES:
            hit = [one for one in hit if one.instance in (None, event.gpuInstanceId)]
        return [self._fault(one, event) for one in hit]

    def close(self) -> None:
        if self._events is not None:
            ask(self._nvml, self._nvml.nvmlEventSetFree, self._events)
            self._events = None

    def _fault(self, one: Found, event: Any) -> DeviceFault:
        if event.eventType == self._nvml.nvmlEventTypeDoubleBitEccError:
            return DeviceFault(one.device.id, "uncorrectable memory error", fatal=True)
        xid = int(event.eventData)
        text, fatal = _XIDS.get(xid, ("the driver reports an error", False))
        return DeviceFault(one.device.id, f"Xid {xid}: {text}", xid=xid, fatal=fatal)

    def _after(self, error: Any) -> list[DeviceFault]:
        """Waiting failed: report the boards that no longer answer and go on with the others."""
        faults = []
        alive = {}
        for address, slices in self._boards.items():
            cause = self._dead(slices[0].board)
            if cause is None:
                alive[address] = slices
            else:
                faults += [DeviceFault(one.device.id, cause, fatal=True) for one in slices]
        if not faults:
            # All are well and yet waiting fails: trying again would spin.
            log.warning("GPU faults are no longer reported", extra={"cause": device_fault(error)})
            alive = {}
        self._boards = alive
        self._renew()
        return faults

    def _dead(self, board: Any) -> str | None:
        try:
            self._nvml.nvmlDeviceGetMemoryInfo(board)
        except self._nvml.NVMLError as error:
            return device_fault(error)
        return None

    def _renew(self) -> None:
        nvml = self._nvml
        try:
            self.close()
            events = nvml.nvmlEventSetCreate()
        except nvml.NVMLError as error:
            self._events = None
            log.warning("GPU faults are not reported", extra={"cause": device_fault(error)})
            return
        self._events = events
        if not [board for slices in self._boards.values() if self._register(board := slices[0].board)]:
            self.close()

    def _register(self, board: Any) -> bool:
        nvml = self._nvml
        wanted = nvml.nvmlEventTypeXidCriticalError | nvml.nvmlEventTypeDoubleBitEccError
        try:
            wanted &= nvml.nvmlDeviceGetSupportedEventTypes(board)
            nvml.nvmlDeviceRegisterEvents(board, wanted, self._events)
        except nvml.NVMLError as error:
            log.warning("GPU does not report its faults", extra={"cause": device_fault(error)})
            return False
        return True


def _address(handle: Any) -> int:
    """Handles are compared by address: a lost GPU no longer tells its index."""
    return ctypes.cast(handle, ctypes.c_void_p).value or 0
