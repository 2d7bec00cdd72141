"""Brings all files of one addition into the blobs, some at a time, and tells how far it is."""

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from typing import Literal

from heliosd.core.manifest import Manifest, ManifestFile, manifest_of
from heliosd.store.blobs import Blobs, Hold
from heliosd.store.claims import Claim, Claims
from heliosd.store.pace import Pace
from heliosd.store.sources.source import Listing, Progress, Source, SourceFile, Tell, Told

AT_ONCE = 4
"""Files under way at the same time."""


class Delivery:
    def __init__(
        self, source: Source, listing: Listing, claim: Claim, *, blobs: Blobs, claims: Claims, hold: Hold, tell: Tell
    ) -> None:
        self._source = source
        self._listing = listing
        self._claim = claim
        self._blobs = blobs
        self._claims = claims
        self._hold = hold
        self._tell = tell
        self._phase: Literal["fetch", "verify"] = "verify" if listing.adopted else "fetch"
        self._total_bytes = 0
        self._done_bytes = 0
        self._pace = Pace(_now())
        self._found = dict(claim.found)
        self._writing = asyncio.Lock()

    async def run(self, files: Iterable[SourceFile]) -> Manifest:
        """Deliver these files, every one held. Raises what the source says is wrong with the first that fails."""
        files = tuple(files)
        self._total_bytes = sum(file.size_bytes for file in files)
        turns = asyncio.Semaphore(AT_ONCE)

        async def deliver(file: SourceFile) -> ManifestFile:
            async with turns:
                return await self._deliver(file)

        try:
            async with asyncio.TaskGroup() as group:
                delivered = [group.create_task(deliver(file)) for file in files]
        except BaseExceptionGroup as errors:
            # The first is the reason; the others are usually the same once more.
            raise errors.exceptions[0] from errors
        return manifest_of(task.result() for task in delivered)

    async def _deliver(self, file: SourceFile) -> ManifestFile:
        told = self._teller(file)
        digest = self._found.get(file.key or "")
        if digest is not None:
            await self._hold.add(digest)
            if await self._blobs.exists(digest, file.size_bytes):
                told(file.size_bytes, here=True)
                return ManifestFile(file.path, digest, file.size_bytes)
        row = await self._source.deliver(file, self._hold, told)
        if self._listing.resumable and file.key is not None and file.digest is None:
            # The next attempt could not tell otherwise that it has the file.
            async with self._writing:
                self._found[file.key] = row.digest
                await self._claims.write(replace(self._claim, found=dict(self._found)))
        return row

    def _teller(self, file: SourceFile) -> Told:
        def told(count: int, /, *, here: bool = False) -> None:
            self._done_bytes += count
            if not here:
                self._pace.add(_now(), count)
            rate = self._pace.bytes_per_s(_now())
            eta_s = (self._total_bytes - self._done_bytes) / rate if rate else None
            self._tell(Progress(self._phase, file.path, self._done_bytes, self._total_bytes, rate, eta_s))

        return told


def _now() -> float:
    return asyncio.get_running_loop().time()
