"""Fetches one file into the blobs, whatever happens on the way.

Bytes are hashed while they are written to a part that is named after the content, with a small journal beside it.
So after a cut, a killed daemon or a week the next attempt hashes what is there and asks only for the rest. The
server is believed in nothing: a blob comes to be only if size and hash are the listed ones.
"""

import asyncio
import json
from weakref import WeakValueDictionary

import aiohttp

from heliosd.core.names import Digest
from heliosd.errors import CorruptData
from heliosd.store.blobs import Blobs, Hold, Report
from heliosd.store.durable import write_file
from heliosd.store.layout import Layout
from heliosd.store.part import Part
from heliosd.store.sources.transfer import Patience, Refusal, Transfer, Wanted
from heliosd.store.threads import Threads


class Fetcher:
    """One for the whole store, so that two models with a file in common do not write its part at the same time."""

    def __init__(self, layout: Layout, blobs: Blobs, threads: Threads, patience: Patience) -> None:
        self._layout = layout
        self._blobs = blobs
        self._threads = threads
        self._patience = patience
        self._writers: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def fetch(self, wanted: Wanted, hold: Hold, report: Report, refusal: Refusal) -> tuple[Digest, int]:
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
                report(wanted.size_bytes)
                return wanted.digest, wanted.size_bytes
            git_size_bytes = wanted.size_bytes if wanted.git_sha1 else None
            part = await self._blobs.open_part(wanted.key, git_size_bytes=git_size_bytes)
            try:
                await self._fill(wanted, part, report, refusal)
                found = await self._blobs.commit(part, hold)
                await self._drop_journal(wanted.key)
                return found
            finally:
                await self._threads.run(part.close)

    async def _fill(self, wanted: Wanted, part: Part, report: Report, refusal: Refusal) -> None:
        """Make the part hold the right bytes. One with a past gets a second chance from zero: its past may be wrong."""
        while part.size_bytes <= wanted.size_bytes and (count := await self._threads.run(part.absorb)):
            report(count)
        resumed = part.size_bytes > 0
        transfer = self._transfer(wanted, part, await self._read_etag(wanted.key), report, refusal)
        if part.size_bytes > wanted.size_bytes:
            await transfer.restart()
        await transfer.run()
        if resumed and not _is(part, wanted):
            await transfer.restart()
            await transfer.run()
        if not _is(part, wanted):
            report(-part.size_bytes)
            found = part.digest if wanted.digest else part.git_sha1
            await self._threads.run(part.discard)
            await self._drop_journal(wanted.key)
            raise CorruptData(
                f"cannot accept {wanted.name}: the server lists {wanted.digest or wanted.git_sha1} but delivers "
                f"{wanted.size_bytes} bytes with {found}; nothing of them was kept"
            )

    def _transfer(self, wanted: Wanted, part: Part, etag: str | None, report: Report, refusal: Refusal) -> Transfer:
        async def begun(etag: str | None) -> None:
            await self._write_journal(wanted, etag)

        return Transfer(
            wanted,
            part,
            etag,
            client=self._client(),
            threads=self._threads,
            patience=self._patience,
            report=report,
            refusal=refusal,
            begun=begun,
        )

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

    async def _read_etag(self, key: str) -> str | None:
        """The ETag under which the part was begun."""

        def read() -> str | None:
            try:
                etag = json.loads(self._layout.part_journal(key).read_bytes())["etag"]
            except (OSError, ValueError, KeyError, TypeError):
                return None
            return etag if isinstance(etag, str) else None

        return await self._threads.run(read)

    async def _write_journal(self, wanted: Wanted, etag: str | None) -> None:
        entry = {
            "name": wanted.name,
            "etag": etag,
            "size_bytes": wanted.size_bytes,
            "sha256": wanted.digest,
            "git_sha1": wanted.git_sha1,
        }
        await self._threads.run(write_file, self._layout.part_journal(wanted.key), json.dumps(entry).encode())

    async def _drop_journal(self, key: str) -> None:
        await self._threads.run(self._layout.part_journal(key).unlink, missing_ok=True)


def _is(part: Part, wanted: Wanted) -> bool:
    return (
        part.size_bytes == wanted.size_bytes
        and wanted.digest in (None, part.digest)
        and wanted.git_sha1 in (None, part.git_sha1)
    )
