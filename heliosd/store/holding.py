"""Who uses a revision holds it: then its files are here, and stay whatever is added, removed or let go meanwhile."""

import logging
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from heliosd.core.manifest import Manifest
from heliosd.core.names import Digest
from heliosd.errors import HeliosError, NotFound
from heliosd.store.blobs import Blobs, Hold
from heliosd.store.catalog import Catalog
from heliosd.store.inspections import Inspections
from heliosd.store.letting_go import LettingGo
from heliosd.store.recipe import Recipe
from heliosd.store.revisions import Revisions
from heliosd.store.whole import Whole

log = logging.getLogger("heliosd.store")


class Holding:
    def __init__(
        self,
        *,
        catalog: Catalog,
        blobs: Blobs,
        revisions: Revisions,
        whole: Whole,
        inspections: Inspections,
        letting_go: LettingGo,
        wanted: Callable[[], Awaitable[frozenset[str]]],
        released: Callable[[], None],
    ) -> None:
        """`wanted`: the blobs that are not to be deleted; `released` is called when somebody is done."""
        self._catalog = catalog
        self._blobs = blobs
        self._revisions = revisions
        self._whole = whole
        self._inspections = inspections
        self._letting_go = letting_go
        self._wanted = wanted
        self._released = released
        self.held: Counter[Digest] = Counter()
        """By how many each revision is held."""

    async def directory(self, revision: Digest) -> Path:
        """See `Store.directory`."""
        manifest = await self._manifest(revision)
        return await self._revisions.present(manifest, await self.recipes(manifest))

    async def recipes(self, manifest: Manifest) -> dict[Digest, Recipe]:
        """Those of its files that are kept as recipes."""
        return await self._catalog.recipes(file.digest for file in manifest.files)

    async def _manifest(self, revision: Digest) -> Manifest:
        manifest = await self._catalog.manifest(revision)
        if manifest is None:
            raise NotFound(f"cannot present revision {revision}: the store does not have it")
        return manifest

    @asynccontextmanager
    async def hold(self, revision: Digest, *, whole: bool) -> AsyncIterator[Path]:
        """See `Store.hold`."""
        manifest = await self._manifest(revision)
        self.held[revision] += 1
        kept: set[Digest] = set()
        try:
            with self._blobs.hold() as hold:
                kept = hold.digests
                await hold.add(*(file.digest for file in manifest.files))
                await self._bring_back(manifest, hold)
                # Only now is it certain that it was not removed meanwhile.
                directory = await self.directory(revision)
                recipes = await self.recipes(manifest) if whole else {}
                if recipes:
                    async with self._whole.hold(manifest, recipes) as directory:
                        yield directory
                else:
                    yield directory
        finally:
            self.held[revision] -= 1
            await self._tidy(manifest, kept)
            self._released()

    async def bring_back(self, revision: Digest) -> bool:
        """See `Store.bring_back`."""
        manifest = await self._manifest(revision)
        with self._blobs.hold() as hold:
            await hold.add(*(file.digest for file in manifest.files))
            return await self._bring_back(manifest, hold)

    async def _bring_back(self, manifest: Manifest, hold: Hold) -> bool:
        if not await self._letting_go.away(manifest):
            return False
        record = await self._catalog.revision(manifest.digest)
        if record is not None:
            await self._letting_go.bring_back(record, hold)
        return record is not None

    async def _tidy(self, manifest: Manifest, kept: set[Digest]) -> None:
        """Delete what nobody refers to any more, when the last holder leaves."""
        has_recipes = len(kept) > len({file.digest for file in manifest.files})
        try:
            if has_recipes or await self._catalog.manifest(manifest.digest) is None:
                await self._blobs.delete(kept, self._wanted)
                await self.drop_directory(manifest.digest)
        except (HeliosError, OSError, sqlite3.Error) as error:
            log.error("revision not tidied up", extra={"revision": manifest.digest, "cause": str(error)})

    async def drop_directory(self, revision: Digest) -> None:
        """Remove the links of a revision that no ref means or has meant, and nobody holds any more."""
        if await self._catalog.manifest(revision) is None:
            self._inspections.forget(revision)
            if not self.held[revision]:
                await self._revisions.remove(revision)
