"""One addition from the wish to the committed model, in this order so that a crash at any point loses nothing.

list → choose → room? → claim → blobs (durable one by one) → verify → base? → directory of links → catalog. Before the
last step nothing refers to the new model; after it everything it needs is on the disk.
"""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace

from heliosd.core.manifest import Manifest
from heliosd.core.names import Digest, ModelRef, parse_ref
from heliosd.core.units import format_bytes
from heliosd.errors import BadRequest, CorruptData, NotFound, Unavailable
from heliosd.store.blobs import Blobs, Hold
from heliosd.store.catalog import Catalog
from heliosd.store.claims import Claim, Claims
from heliosd.store.delivery import Delivery
from heliosd.store.inspection import Inspected, inspect
from heliosd.store.layout import Layout
from heliosd.store.ranged_part import allocated_bytes
from heliosd.store.recipe import Recipe
from heliosd.store.revisions import Revisions
from heliosd.store.selection import choose
from heliosd.store.sources.source import Listing, Progress, Source, SourceFile, Tell
from heliosd.store.stored import Addition
from heliosd.store.threads import Threads

Room = Callable[[int], Awaitable[tuple[int, str]]]
"""Told how many bytes are needed, says how many may be written, and where."""
Collectable = Callable[[], Awaitable[int]]
"""Says how many bytes a garbage collection would free."""


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
        room: Room,
        collectable: Collectable,
    ) -> None:
        self._layout = layout
        self._blobs = blobs
        self._revisions = revisions
        self._catalog = catalog
        self._claims = claims
        self._threads = threads
        self._clock = clock
        self._room = room
        self._collectable = collectable

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
            claim = await self._claim_again(claim)
        delivery = Delivery(source, listing, claim, blobs=self._blobs, claims=self._claims, hold=hold, tell=tell)
        manifest = await delivery.run(files)
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

    async def _claim_again(self, claim: Claim) -> Claim:
        """Write the claim, with what an earlier attempt found out about the same files."""
        before = await self._claims.of(claim.ref)
        if before is not None:
            found = {key: digest for key, digest in before.found.items() if key in claim.listed}
            claim = replace(claim, found=found)
        await self._claims.write(claim)
        return claim

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
        has_bytes, place = await self._room(needs_bytes)
        if needs_bytes > has_bytes:
            raise Unavailable(
                f"cannot add {what}: it needs {format_bytes(needs_bytes)} of disk and {place} has "
                f"{format_bytes(max(0, has_bytes))} to spare; {advice(await self._collectable())}",
                code="disk_full",
                retry_after_s=60.0,
            )

    async def _missing_bytes(self, file: SourceFile) -> int:
        if file.digest is not None and await self._blobs.exists(file.digest, file.size_bytes):
            return 0
        if file.key is None:
            return file.size_bytes
        return max(0, file.size_bytes - await self._threads.run(allocated_bytes, self._layout.part(file.key)))


def advice(collectable_bytes: int) -> str:
    """What to do when the disk is full."""
    models = "remove models (`heliosctl cache du` tells what each would free) or move the store to a larger disk"
    if not collectable_bytes:
        return f"{models}; `heliosctl gc --dry-run` finds nothing else that could go"
    return (
        f"`heliosctl gc` would free {format_bytes(collectable_bytes)} (`heliosctl gc --dry-run` lists it); or {models}"
    )
