"""How far an engine's start is, as its own process tells it: datagrams to the daemon, which nobody waits for."""

import asyncio
import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from heliosd.engines.start_clock import StartClock

ADDRESS = "HELIOS_PROGRESS"
"""The variable that names the socket to the engine's process."""
_LONGEST_BYTES = 256


class Hearing:
    """Has the clock of one start told what its engine's process says. Made and closed on the event loop; the next
    start of the same process, as another model, is heard at the same address."""

    def __init__(self, address: str, clock: StartClock) -> None:
        self._clock = clock
        self._address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            self._socket.bind(address)
        except OSError:
            self._socket.close()
            raise
        asyncio.get_running_loop().add_reader(self._socket, self._hear)

    def _hear(self) -> None:
        with suppress(BlockingIOError):
            words = self._socket.recv(_LONGEST_BYTES).decode(errors="replace").split()
            with suppress(ValueError):  # what is not understood is not progress
                phase, at = words
                self._clock.heard(phase, float(at))

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()
        with suppress(FileNotFoundError):  # a start that failed has cleared away already
            Path(self._address).unlink()


def say(phase: str, at: float) -> None:
    """In the engine's process: a phase has ended. Never blocks and never fails: the start matters, not the telling."""
    address = os.environ.get(ADDRESS)
    if address is None:
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as teller:
        teller.sendto(f"{phase} {at!r}".encode(), address)


def note_phases(clock: StartClock, report: Mapping[str, Any]) -> None:
    """Take in when the phases ended in the engine's process, as `helios_measure` reports it."""
    clock.note(report.get("born_as", "fork"), report["born_at"])
    note_swap(clock, report)


def note_swap(clock: StartClock, report: Mapping[str, Any]) -> None:
    """The same of a process that went on as another model."""
    for phase, at in report["marks"]:
        clock.note(phase, at)
    for part in report["parts"]:
        clock.part(*part)
