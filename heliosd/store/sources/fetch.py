"""Fetches one file into the blobs, whatever happens on the way.

Bytes land in a part that is named after the content, with a journal of its durable pieces beside it, and are hashed
while others arrive. So after a cut, a killed daemon or a week the next attempt asks only for the rest. The server is
believed in nothing: a blob comes to be only if size and hash are the listed ones.
"""

import asyncio
from contextlib import suppress
from weakref import WeakValueDictionary

import aiohttp

from heliosd.core.names import Digest
from heliosd.errors import CorruptData
from heliosd.store.blobs import Blobs, Hold
from heliosd.store.layout import Layout
from heliosd.store.ranged_part import RangedPart
from heliosd.store.sources.asking import Asking
from heliosd.store.sources.bandwidth import Bandwidth
from heliosd.store.sources.source import Told
from heliosd.store.sources.transfer import CHUNK_BYTES, Lines, Transfer
from heliosd.store.sources.wanted import Patience, Refusal, Wanted
from heliosd.store.threads import Threads

CONNECTIONS = 8


class Fetcher:
    """One for the whole store, so that two models with a file in common do not write its part at the same time."""

    def __init__(
        self,
        layout: Layout,
        blobs: Blobs,
        threads: Threads,
        patience: Patience,
        *,
        connections: int = CONNECTIONS,
        bandwidth: Bandwidth | None = None,
        chunk_bytes: int = CHUNK_BYTES,
    ) -> None:
        self._layout = layout
        self._blobs = blobs
        self._threads = threads
        self._patience = patience
        self._lines = Lines(asyncio.Semaphore(connections), connections, bandwidth or Bandwidth(), chunk_bytes)
        self._writers: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def fetch(self, wanted: Wanted, hold: Hold, report: Told, refusal: Refusal) -> tuple[Digest, int]:
        """Bring the file into the blobs, held; returns digest and size.

        Raises SourceFailed when the server does not deliver, CorruptData when it delivers other bytes than were
        listed, and what `refusal` makes of 401, 403 and 404. Failed or cancelled, it keeps the part, unless its
        bytes were wrong.
        """
        if wanted.digest is not None:
            await hold.add(wanted.digest)
        # Who waited here finds the blob, or goes on with the part that the other left.
        async with self._writers.setdefault(wanted.key, asyncio.Lock()):
            if wanted.digest is not None and await self._blobs.exists(wanted.digest, wanted.size_bytes):
                report(wanted.size_bytes, here=True)
                return wanted.digest, wanted.size_bytes
            part = await self._threads.run(self._open, wanted)
            try:
                await self._fill(wanted, part, report, refusal)
                return await self._blobs.commit(part, hold)
            finally:
                await self._threads.run(_leave, part)

    def _open(self, wanted: Wanted) -> RangedPart:
        path, journal = self._layout.part(wanted.key), self._layout.part_journal(wanted.key)
        return RangedPart(path, journal, wanted.size_bytes, git=wanted.git_sha1 is not None)

    async def _fill(self, wanted: Wanted, part: RangedPart, report: Told, refusal: Refusal) -> None:
        """Make the part hold the right bytes. One with a past gets a second chance from zero: its past may be wrong."""
        resumed = part.here_bytes > 0
        if resumed:
            report(part.here_bytes, here=True)
        await self._transfer(wanted, part, report, refusal)
        if resumed and not _is(part, wanted):
            report(-part.here_bytes, here=True)
            await self._threads.run(part.restart)
            await self._transfer(wanted, part, report, refusal)
        if not _is(part, wanted):
            report(-part.here_bytes, here=True)
            found = part.digest if wanted.digest else part.git_sha1
            await self._threads.run(part.discard)
            raise CorruptData(
                f"cannot accept {wanted.name}: the server lists {wanted.digest or wanted.git_sha1} but delivers "
                f"{wanted.size_bytes} bytes with {found}; nothing of them was kept"
            )

    async def _transfer(self, wanted: Wanted, part: RangedPart, report: Told, refusal: Refusal) -> None:
        asking = Asking(wanted, self._client(), refusal)
        transfer = Transfer(
            asking, part, lines=self._lines, threads=self._threads, patience=self._patience, report=report
        )
        await transfer.run()

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=30.0, sock_read=self._patience.silence_s),
                trust_env=True,
                # A compressed answer has other lengths and offsets than the file.
                auto_decompress=False,
                headers={"Accept-Encoding": "identity", "User-Agent": "helios"},
            )
        return self._session


def _leave(part: RangedPart) -> None:
    """Keep what arrived of a part that is no blob yet."""
    with suppress(OSError):  # what cannot be kept is fetched again
        part.keep()
    part.close()


def _is(part: RangedPart, wanted: Wanted) -> bool:
    return wanted.digest in (None, part.digest) and wanted.git_sha1 in (None, part.git_sha1)
