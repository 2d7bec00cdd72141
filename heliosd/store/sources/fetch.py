"""Fetches one file into the blobs, whatever happens on the way.

Bytes land in a part that is named after the content, with a journal of its durable pieces beside it, and are hashed
while others arrive. So after a cut, a killed daemon or a week the next attempt asks only for the rest. The server is
believed in nothing: a blob comes to be only if size and hash are the listed ones.

Nodes nearby that have the file are asked before the hub, one after the other; what one of them leaves undone the next
goes on with.
"""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from weakref import WeakValueDictionary

import aiohttp

from heliosd.core.names import Digest
from heliosd.core.units import KiB
from heliosd.errors import CorruptData, HeliosError, SourceFailed
from heliosd.store.blobs import Blobs, Hold
from heliosd.store.layout import Layout
from heliosd.store.ranged_part import RangedPart
from heliosd.store.sources.asking import Asking
from heliosd.store.sources.bandwidth import Bandwidth
from heliosd.store.sources.nearby import Holder, Nearby, Nobody
from heliosd.store.sources.source import Told
from heliosd.store.sources.transfer import CHUNK_BYTES, Lines, Transfer
from heliosd.store.sources.wanted import Patience, Refusal, Wanted
from heliosd.store.threads import Threads

CONNECTIONS = 8
WITH_PEERS = Patience(
    attempts=2,
    first_wait_s=0.2,
    longest_wait_s=2.0,
    silence_s=10.0,
    longest_pause_s=2.0,
    least_bytes_per_s=16 * KiB,
)
"""Others have the file too: no node is waited for as long as the hub."""


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
        with_peers: Patience = WITH_PEERS,
    ) -> None:
        self._layout = layout
        self._blobs = blobs
        self._threads = threads
        self._patience = patience
        self._lines = Lines(asyncio.Semaphore(connections), connections, bandwidth or Bandwidth(), chunk_bytes)
        self._writers: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._with_peers = with_peers
        self._session: aiohttp.ClientSession | None = None
        self._peer_session: aiohttp.ClientSession | None = None
        self.nearby: Nearby = Nobody()
        """Set by who knows the cluster."""

    async def close(self) -> None:
        """Close the connections."""
        for session in (self._session, self._peer_session):
            if session is not None:
                await session.close()
        self._session = self._peer_session = None

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
        if part.here_bytes:
            report(part.here_bytes, here=True)
        if await self._from_peers(wanted, part, report):
            return
        if wanted.url is None:
            raise SourceFailed(
                f"cannot fetch {wanted.name}: no other node that is alive delivers it now, and there is no hub to ask. "
                f"{part.here_bytes} of {part.expected_bytes} bytes are kept; ask again to go on",
                code="peers_failed",
            )
        asking = Asking(wanted, wanted.url, self._client(), refusal)
        resumed = part.here_bytes > 0
        await self._transfer(asking, part, report)
        if resumed and not _is(part, wanted):
            await self._restart(part, report)
            await self._transfer(asking, part, report)
        if not _is(part, wanted):
            report(-part.here_bytes, here=True)
            found = part.digest if wanted.digest else part.git_sha1
            await self._threads.run(part.discard)
            raise CorruptData(
                f"cannot accept {wanted.name}: the server lists {wanted.digest or wanted.git_sha1} but delivers "
                f"{wanted.size_bytes} bytes with {found}; nothing of them was kept"
            )

    async def _from_peers(self, wanted: Wanted, part: RangedPart, report: Told) -> bool:
        """Ask the nodes nearby, one after the other; whether the part is whole and right then. What a node brought
        stays for whoever is asked next, unless it alone brought all of it and it is wrong."""
        if wanted.digest is None:
            return False
        for holder in await self.nearby.holders(wanted.digest, wanted.size_bytes):
            asking = Asking(wanted, holder.url, self._peer_client(), _refused_by(holder), holder.proof)
            try:
                resumed = part.here_bytes > 0
                await self._transfer(asking, part, report, self._with_peers)
                if resumed and not _is(part, wanted):  # of whom are the wrong ones? This node shall bring all
                    await self._restart(part, report)
                    await self._transfer(asking, part, report, self._with_peers)
            except HeliosError as error:
                self.nearby.failed(holder.node, wanted.name, error.cause or error.message, lied=False)
                continue
            if _is(part, wanted):
                return True
            await self._restart(part, report)
            self.nearby.failed(holder.node, wanted.name, "its bytes have another sha256", lied=True)
        return False

    async def _restart(self, part: RangedPart, report: Told) -> None:
        report(-part.here_bytes, here=True)
        await self._threads.run(part.restart)

    async def _transfer(
        self, asking: Asking, part: RangedPart, report: Told, with_peers: Patience | None = None
    ) -> None:
        transfer = Transfer(
            asking,
            part,
            lines=self._lines,
            threads=self._threads,
            patience=with_peers or self._patience,
            report=report,
            source="peer" if with_peers else "hub",
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

    def _peer_client(self) -> aiohttp.ClientSession:
        """Goes to the node itself, whatever proxy leads to the hub."""
        if self._peer_session is None:
            silence_s = self._with_peers.silence_s
            self._peer_session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=2.0, sock_read=silence_s),
                connector=aiohttp.TCPConnector(limit=0),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                headers={"Accept-Encoding": "identity", "User-Agent": "helios"},
            )
        return self._peer_session


def _refused_by(holder: Holder) -> Refusal:
    def refusal(status: int, headers: Mapping[str, str], name: str) -> HeliosError:
        return SourceFailed(f"cannot fetch {name} from node {holder.node}: it answers {status}")

    return refusal


def _leave(part: RangedPart) -> None:
    """Keep what arrived of a part that is no blob yet."""
    with suppress(OSError):  # what cannot be kept is fetched again
        part.keep()
    part.close()


def _is(part: RangedPart, wanted: Wanted) -> bool:
    return wanted.digest in (None, part.digest) and wanted.git_sha1 in (None, part.git_sha1)
