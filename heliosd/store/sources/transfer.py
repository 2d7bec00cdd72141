"""Brings one file's missing bytes over several connections, a chunk at a time on each.

The first answer tells whether the server knows ranges. Where it does not, one stream brings the whole file.
"""

import asyncio
from collections import deque
from collections.abc import Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from http import HTTPStatus
from itertools import pairwise
from typing import Literal

import aiohttp

from heliosd.core.units import KiB, MiB
from heliosd.errors import SourceFailed
from heliosd.store.ranged_part import RangedPart
from heliosd.store.sources.asking import Asking, TryAgain
from heliosd.store.sources.bandwidth import Bandwidth
from heliosd.store.sources.source import Told
from heliosd.store.sources.wanted import Patience
from heliosd.store.spans import Span
from heliosd.store.threads import Threads

CHUNK_BYTES = 16 * MiB
WRITE_BYTES = 1 * MiB
"""Written at once."""
SMALL_BYTES = 64 * KiB
"""A file up to this size needs no journal before its end: to fetch it again costs less."""


@dataclass(frozen=True, slots=True)
class Lines:
    """What all transfers share."""

    connections: asyncio.Semaphore
    most: int
    """How many connections those are."""
    bandwidth: Bandwidth
    chunk_bytes: int = CHUNK_BYTES
    """A kill loses at most so much of each connection."""


class Transfer:
    """Fills one part."""

    def __init__(
        self,
        asking: Asking,
        part: RangedPart,
        *,
        lines: Lines,
        threads: Threads,
        patience: Patience,
        report: Told,
        source: Literal["hub", "peer"] = "hub",
    ) -> None:
        self._asking = asking
        self._part = part
        self._lines = lines
        self._threads = threads
        self._patience = patience
        self._report = report
        self._source = source
        self._chunks: deque[Span] = deque()
        self._answered = asyncio.Event()
        self._landed = asyncio.Event()
        self._whole = False
        """One stream brings everything."""
        self._saving = asyncio.Lock()

    async def run(self) -> None:
        """Return when the part has all bytes and their hashes. Raises SourceFailed, or what the refusal makes of 401,
        403 and 404."""
        self._chunks.extend(chunks(self._part.missing(0, self._part.expected_bytes), self._lines.chunk_bytes))
        now = asyncio.get_running_loop().time
        began, had_bytes = now(), self._part.here_bytes
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._hash())
                for number in range(min(self._lines.most, len(self._chunks))):
                    group.create_task(self._work(first=number == 0))
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from errors
        self._lines.bandwidth.note(self._source, self._part.here_bytes - had_bytes, now() - began)

    async def _hash(self) -> None:
        """Follow what arrives."""
        while self._part.size_bytes < self._part.expected_bytes:
            if self._part.hashable_bytes:
                await self._threads.run(self._part.absorb)
            else:
                self._landed.clear()
                await self._landed.wait()

    async def _work(self, *, first: bool) -> None:
        if not first:
            await self._answered.wait()
        while self._chunks and not self._whole:
            await self._bring(self._chunks.popleft())

    async def _bring(self, chunk: Span) -> None:
        """Fetch one chunk and make it durable, however many connections it takes."""
        failures, left_bytes = 0, chunk[1] - chunk[0]
        while missing := self._part.missing(*chunk):
            failure: Exception | None = None
            # Held until what came is durable: else another file's chunk comes meanwhile, and a kill loses both.
            async with self._lines.connections:
                try:
                    async with AsyncExitStack() as answer:
                        response = await self._asking.ask(missing[0])
                        answer.push_async_exit(response)
                        if response.status == HTTPStatus.OK and missing[0] != (0, self._part.expected_bytes):
                            if self._whole and chunk != (0, self._part.expected_bytes):
                                return  # another stream brings it
                            self._whole, chunk = True, (0, self._part.expected_bytes)
                            self._chunks.clear()
                            missing = (chunk,)
                        self._answered.set()
                        await self._receive(response, *missing[0])
                except (TryAgain, aiohttp.ClientError, TimeoutError) as error:
                    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.InvalidURL):
                        raise self._asking.failed(f"{error}") from error
                    failure = error
                await self._save(chunk)
            if failure is None:
                continue
            still_bytes = sum(end - start for start, end in self._part.missing(*chunk))
            failures = 1 if left_bytes - still_bytes >= self._patience.worth_bytes else failures + 1
            left_bytes = still_bytes
            if failures >= self._patience.attempts:
                raise self._gave_up(failures, failure) from failure
            asked_s = failure.wait_s if isinstance(failure, TryAgain) else 0.0
            pause_s = max(min(asked_s, self._patience.longest_pause_s), self._patience.wait_s(failures))
            await asyncio.sleep(pause_s)

    def _gave_up(self, failures: int, last: Exception) -> SourceFailed:
        return self._asking.failed(
            f"{failures} attempts in a row failed, the last with: {str(last) or type(last).__name__}. "
            f"{self._part.here_bytes} of {self._part.expected_bytes} bytes are kept; ask again to go on"
        )

    async def _receive(self, response: aiohttp.ClientResponse, position: int, end: int) -> None:
        waiting = bytearray()
        speed = _Speed(self._patience)
        try:
            async for data in response.content.iter_any():
                waiting += data
                if position + len(waiting) > end:
                    waiting.clear()
                    raise self._asking.failed(f"the server sends more than the {end - position} bytes asked for")
                speed.came(len(data))
                await self._lines.bandwidth.take(len(data), self._source)
                if len(waiting) >= WRITE_BYTES:
                    position = await self._write(waiting, position)
                speed.await_more()
        finally:
            # Also when the connection was cut: what arrived need not be fetched again.
            position = await self._write(waiting, position)
        if position < end:
            raise TryAgain(f"the connection ended after {position} bytes")

    async def _write(self, waiting: bytearray, start: int) -> int:
        """Returns how far it has come."""
        data = bytes(waiting)
        waiting.clear()
        end = start + len(data)
        if data:
            await self._threads.run(self._part.write, data, start)
            self._report(self._part.landed(start, end))
            self._landed.set()
        chunk_bytes = self._lines.chunk_bytes
        if self._whole and start // chunk_bytes != end // chunk_bytes:
            await self._save((0, end // chunk_bytes * chunk_bytes))
        return end

    async def _save(self, piece: Span) -> None:
        """Make this piece durable. Those who come together are saved together."""
        if self._part.expected_bytes <= SMALL_BYTES:
            return
        async with self._saving:
            if not self._part.is_saved(*piece):
                await self._threads.run(self._part.save)


class _Speed:
    """Notices a server that only trickles. Time in which nobody waits for it does not count against it."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._now = asyncio.get_running_loop().time
        self._waited_s, self._bytes = 0.0, 0
        self._since = self._now()

    def await_more(self) -> None:
        self._since = self._now()

    def came(self, n_bytes: int) -> None:
        """Raises TryAgain when that was too little for too long."""
        self._waited_s += self._now() - self._since
        self._bytes += n_bytes
        if self._waited_s < self._patience.slow_after_s:
            return
        rate = self._bytes / self._waited_s
        if rate < self._patience.least_bytes_per_s:
            raise TryAgain(f"it is slow: {rate:.0f} bytes/s over {self._waited_s:.1f} s")
        self._waited_s, self._bytes = 0.0, 0


def chunks(missing: Iterable[Span], chunk_bytes: int) -> Iterable[Span]:
    """Cut pieces at multiples of `chunk_bytes`."""
    for start, end in missing:
        cuts = [start, *range((start // chunk_bytes + 1) * chunk_bytes, end, chunk_bytes), end]
        yield from pairwise(cuts)
