"""One addition from the wish to the committed model, in this order so that a crash at any point loses nothing.

list → choose → room? → claim → blobs (durable one by one) → verify → base? → directory of links → catalog. Before the
last step nothing refers to the new model; after it everything it needs is on the disk.
"""

import asyncio
import shutil
from collections.abc import Callable, Iterable
from typing import Literal

from heliosd.core.manifest import Manifest, ManifestFile, manifest_of
from heliosd.core.names import Digest, ModelRef, parse_ref
from heliosd.core.units import MiB, format_bytes
from heliosd.errors import BadRequest, CorruptData, NotFound, Unavailable
from heliosd.store.blobs import Blobs, Hold
from heliosd.store.catalog import Catalog
from heliosd.store.claims import Claim, Claims
from heliosd.store.inspection import Inspected, inspect
from heliosd.store.layout import Layout
from heliosd.store.recipe import Recipe
from heliosd.store.revisions import Revisions
from heliosd.store.selection import choose
from heliosd.store.sources.source import Listing, Progress, Source, SourceFile, Tell
from heliosd.store.stored import Addition
from heliosd.store.threads import Threads

AT_ONCE = 4
"""Files under way at the same time."""
SPARE_BYTES = 64 * MiB
"""Left on the disk for the database and what else needs to write a little."""


class Adding:
    def __init__(
        self,
        *,
        layout: Layout,
        blobs: Blobs,
        revisions: Revisions,
        catalog: Catalog,
        claims: Claims,
        threads: Threads,
        clock: Callable[[], float],
    ) -> None:
        self._layout = layout
        self._blobs = blobs
        self._revisions = revisions
        self._catalog = catalog
        self._claims = claims
        self._threads = threads
        self._clock = clock

    async def run(self, wanted: Addition, ref: ModelRef, source: Source, tell: Tell) -> Inspected:
        """Add the model; return what its files say. Raises what went wrong; only what a next attempt can use stays."""
        touched: set[Digest] = set()
        try:
            with self._blobs.hold() as hold:
                touched = hold.digests
                seen = await self._run(wanted, ref, source, hold, tell)
        finally:
            await source.close()
            await self._blobs.delete(touched, self.wanted)
        return seen

    async def wanted(self) -> frozenset[str]:
        """What the catalog knows and what unfinished downloads claim: nobody may delete these."""
        known = await self._catalog.digests()
        return known.union(*(claim.keys for claim in await self._claims.all(self._clock())))

    async def _run(self, wanted: Addition, ref: ModelRef, source: Source, hold: Hold, tell: Tell) -> Inspected:
        if wanted.base is not None:
            await self._whole_model(wanted.base, wanted.location)
        listing = await source.list(tell)
        files = choose(listing.files, wanted.location, allow_pickle=wanted.allow_pickle)
        await self._check_room(wanted.location, listing, files)
        claim = Claim(str(ref), frozenset(file.key for file in files if file.key), self._clock())
        if listing.resumable:
            await self._claims.write(claim)
        manifest = await self._deliver(files, source, hold, tell, "verify" if listing.adopted else "fetch")
        tell(Progress("verify", None, manifest.size_bytes, manifest.size_bytes))
        try:
            recipes, pieces = await self._recipes(manifest, hold)
            seen = await self._threads.run(inspect, manifest, self._blobs.path, recipes)
        except CorruptData:
            # The source delivered what it promised and it is no good: nothing to go on with.
            await self._claims.give_up(claim, self._clock())
            raise
        base = await self._base(wanted, seen)
        tell(Progress("commit", None, manifest.size_bytes, manifest.size_bytes))
        await self._revisions.present(manifest, recipes)
        origin = {**listing.origin, "allow_pickle": wanted.allow_pickle}
        await self._catalog.commit(
            ref, manifest, origin, wanted.alias, self._clock(), base, recipes=recipes, pieces=pieces
        )
        await self._claims.drop(str(ref))
        return seen

    async def _recipes(self, manifest: Manifest, hold: Hold) -> tuple[dict[Digest, Recipe], dict[Digest, int]]:
        """Which of the files are kept as recipes whose blobs are all here, and the sizes of those blobs."""
        files = {file.digest for file in manifest.files}
        recipes = {
            digest: recipe
            for digest, recipe in hold.recipes.items()
            if digest in files and await self._blobs.intact(recipe)
        }
        blobs = {blob for recipe in recipes.values() for blob in recipe.blobs}
        return recipes, {blob: await self._blobs.size(blob) or 0 for blob in blobs}

    async def _base(self, wanted: Addition, seen: Inspected) -> ModelRef | None:
        """The model an adapter is for; None for a whole model."""
        if seen.facts.adapter is None:
            if wanted.base is not None:
                raise BadRequest(
                    f"cannot add {wanted.location} as an adapter of {wanted.base}: it is a whole model; leave out base",
                    param="base",
                )
            return None
        if wanted.base is not None:
            return await self._whole_model(wanted.base, wanted.location)
        named = seen.facts.adapter.base
        try:
            ref = parse_ref(named or "")
        except ValueError as error:
            says = f"calls its base {named!r}" if named else "does not name its base"
            raise BadRequest(
                f"cannot add {wanted.location}: it is an adapter whose configuration {says}, which is no model's name; "
                "say which model of the store it is for (base; `heliosctl … --base REF`)",
                param="base",
            ) from error
        return await self._whole_model(ref, wanted.location)

    async def _whole_model(self, base: ModelRef, location: str) -> ModelRef:
        """The model that `base`, perhaps an alias, means. Raises NotFound, or BadRequest for another adapter."""
        record = await self._catalog.find(base)
        if record is None:
            raise NotFound(
                f"cannot add {location}: it is an adapter of {base}, which the store does not have; add that first, or "
                "say which model of the store it is for (base; `heliosctl … --base REF`)",
                code="base_not_found",
            )
        if record.base is not None:
            raise BadRequest(
                f"cannot add {location} as an adapter of {base}: that is itself an adapter, of {record.base}",
                param="base",
            )
        return record.ref

    async def _check_room(self, what: str, listing: Listing, files: Iterable[SourceFile]) -> None:
        """Raise Unavailable when the files cannot fit on the disk, with the arithmetic."""
        if listing.adopted:
            return
        needs_bytes = sum([await self._missing_bytes(file) for file in files])
        has_bytes = (await self._threads.run(shutil.disk_usage, self._layout.root)).free - SPARE_BYTES
        if needs_bytes > has_bytes:
            raise Unavailable(
                f"cannot add {what}: it needs {format_bytes(needs_bytes)} of disk and {self._layout.root} has "
                f"{format_bytes(max(0, has_bytes))} to spare; remove models or move the store to a larger disk",
                code="disk_full",
                retry_after_s=60.0,
            )

    async def _missing_bytes(self, file: SourceFile) -> int:
        if file.digest is not None and await self._blobs.exists(file.digest, file.size_bytes):
            return 0
        if file.key is None:
            return file.size_bytes
        return max(0, file.size_bytes - await self._threads.run(_length, self._layout, file.key))

    async def _deliver(
        self,
        files: tuple[SourceFile, ...],
        source: Source,
        hold: Hold,
        tell: Tell,
        phase: Literal["fetch", "verify"],
    ) -> Manifest:
        total_bytes = sum(file.size_bytes for file in files)
        done_bytes = 0
        delivered: list[ManifestFile] = []
        turns = asyncio.Semaphore(AT_ONCE)

        def report(name: str, count: int) -> None:
            nonlocal done_bytes
            done_bytes += count
            tell(Progress(phase, name, done_bytes, total_bytes))

        async def deliver(file: SourceFile) -> None:
            async with turns:
                delivered.append(await source.deliver(file, hold, lambda count: report(file.path, count)))

        try:
            async with asyncio.TaskGroup() as group:
                for file in files:
                    group.create_task(deliver(file))
        except BaseExceptionGroup as errors:
            # The first is the reason; the others are usually the same once more.
            raise errors.exceptions[0] from errors
        return manifest_of(delivered)


def _length(layout: Layout, key: str) -> int:
    try:
        return layout.part(key).stat().st_size
    except FileNotFoundError:
        return 0
