"""The shells of one zygote: who waits, who is taken for a start, who has ended. How many there are, others decide."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Literal

from heliosd.core.names import ReplicaId
from heliosd.core.units import MiB
from heliosd.engines.shell import Origin, Shell

EXPECTED_BYTES = 64 * MiB
"""What a shell is thought to hold until the first one was measured."""


@dataclass(frozen=True, slots=True)
class ShellNews:
    """Something that happened to a shell and that nobody had asked for here."""

    what: Literal["used", "died"]
    own_bytes: int
    replica: ReplicaId | None = None
    """Who began in it."""
    model: str | None = None


class Shells:
    """Lives on the event loop; what blocks runs in `threads`. `rehearsal`: see `Shell`."""

    def __init__(self, zygote: Origin, threads: Executor, rehearsal: str | None) -> None:
        self._zygote = zygote
        self._threads = threads
        self._rehearsal = rehearsal
        self._waiting: list[Shell] = []
        self._making: asyncio.Future[Shell] | None = None
        self._closed = False
        self.each_bytes = EXPECTED_BYTES
        """What one holds besides what it shares with the zygote, as last measured."""
        self.tell: Callable[[ShellNews], None] = lambda news: None

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def making(self) -> bool:
        return self._making is not None

    @property
    def own_bytes(self) -> int:
        """Of all that wait."""
        return sum(shell.own_bytes for shell in self._waiting)

    @property
    def pids(self) -> frozenset[int]:
        return frozenset(shell.pid for shell in self._waiting)

    async def make(self) -> Shell:
        """Make one more. Raises EngineFailed with its own words. Cancelling leaves no process."""
        make = partial(Shell, self._zygote, self._rehearsal)
        making = self._making = asyncio.get_running_loop().run_in_executor(self._threads, make)
        try:
            shell = await asyncio.shield(making)
        except asyncio.CancelledError:
            making.add_done_callback(self._dispose)
            raise
        finally:
            self._making = None
        self.each_bytes = shell.own_bytes
        self._admit(shell)
        return shell

    def _dispose(self, made: "asyncio.Future[Shell]") -> None:
        if not made.cancelled() and made.exception() is None:
            self._end(made.result())

    def _admit(self, shell: Shell) -> None:
        self._waiting.append(shell)
        asyncio.get_running_loop().add_reader(shell.sentinel, self._died, shell)

    def _dismiss(self, shell: Shell) -> None:
        self._waiting.remove(shell)
        asyncio.get_running_loop().remove_reader(shell.sentinel)

    def _died(self, shell: Shell) -> None:
        self._dismiss(shell)
        self._end(shell)
        self.tell(ShellNews("died", shell.own_bytes))

    def _end(self, shell: Shell) -> None:
        shell.kill()
        self._threads.submit(shell.close)

    def take(self) -> Shell | None:
        """One for a start, which tells by `done_with` what became of it. Nobody else is given it."""
        for shell in tuple(self._waiting):
            self._dismiss(shell)
            if shell.alive:
                return shell
            self._end(shell)
        return None

    def done_with(self, shell: Shell, replica: ReplicaId, model: str) -> None:
        """The start it was taken for has used it, or will not: then it waits again, if it still can."""
        if shell.used:
            self.tell(ShellNews("used", shell.own_bytes, replica, model))
        elif self._closed:
            self._end(shell)
        elif shell.alive:
            self._admit(shell)
        else:
            self._end(shell)
            self.tell(ShellNews("died", shell.own_bytes))

    def give_up(self) -> int | None:
        """End one that waits; returns the bytes that it held. None: nobody waits."""
        if not self._waiting:
            return None
        shell = self._waiting[-1]
        self._dismiss(shell)
        self._end(shell)
        return shell.own_bytes

    def close(self) -> None:
        """End all that wait. Whoever is being made ends with the zygote."""
        self._closed = True
        while self.give_up() is not None:
            pass
