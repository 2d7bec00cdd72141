"""The KV cache of a simulated engine: who has room in it, who waits, and who is put back when it is full.

As in vLLM: sequences are served in order of arrival; each takes a token's room at a time; when there is none, the
youngest that runs is put back, loses its room and waits before all others until it fits again.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from heliosd.engines.engine import Pressure


class Sequence:
    """A request's place in the cache."""

    def __init__(self, n_tokens: int) -> None:
        self.n_tokens = n_tokens
        self.running = asyncio.Event()


class SimulatedCache:
    """`capacity_tokens` must hold the longest sequence, else that one would wait for ever."""

    def __init__(self, capacity_tokens: int, most_sequences: int, changed: Callable[[Pressure], None]) -> None:
        self._capacity = capacity_tokens
        self._most = most_sequences
        self._changed = changed
        self._running: list[Sequence] = []
        self._waiting: list[Sequence] = []
        self._preemptions = 0

    @asynccontextmanager
    async def sequence(self, prompt_tokens: int) -> AsyncIterator[Sequence]:
        """Wait for room for a prompt, and give it back at the end."""
        sequence = Sequence(prompt_tokens)
        self._waiting.append(sequence)
        try:
            self._admit()
            await sequence.running.wait()
            yield sequence
        finally:
            (self._running if sequence in self._running else self._waiting).remove(sequence)
            self._admit()

    async def grow(self, sequence: Sequence) -> None:
        """Take room for one more token; when put back, wait until there is room for all of it again."""
        sequence.n_tokens += 1
        while self._used() > self._capacity:
            self._put_back(self._running[-1])
        self._tell()
        await sequence.running.wait()

    def _put_back(self, victim: Sequence) -> None:
        self._running.remove(victim)
        self._waiting.insert(0, victim)
        victim.running.clear()
        self._preemptions += 1

    def _admit(self) -> None:
        while (
            self._waiting
            and len(self._running) < self._most
            and self._used() + self._waiting[0].n_tokens <= self._capacity
        ):
            sequence = self._waiting.pop(0)
            self._running.append(sequence)
            sequence.running.set()
        self._tell()

    def _used(self) -> int:
        return sum(sequence.n_tokens for sequence in self._running)

    def _tell(self) -> None:
        used_ratio = self._used() / self._capacity
        self._changed(Pressure(len(self._running), len(self._waiting), used_ratio, self._preemptions))
