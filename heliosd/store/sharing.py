"""Below the file: a newer file that has tensors in common with older ones is kept as a recipe of pieces of them.

Headers say which files may have tensors in common, a sample of each says which tensors probably are, and only those
are compared in full. What is different goes into a blob of its own. The file is hashed through its recipe before the
row is written, and its own blob is removed after that: killed at any moment the store has one or the other.
"""

import asyncio
import hashlib
import logging
import shutil
from array import array
from collections.abc import Awaitable, Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from heliosd.core.names import Digest
from heliosd.core.units import MiB, format_bytes
from heliosd.errors import CorruptData, Unavailable
from heliosd.store.blobs import Blobs, Hold
from heliosd.store.catalog import Catalog
from heliosd.store.comparing import STEP_BYTES, Comparing
from heliosd.store.extents import BLOCK_BYTES, can_share
from heliosd.store.extents import STEP_BYTES as BLOCKS_STEP_BYTES
from heliosd.store.layout import Layout
from heliosd.store.matching import (
    Run,
    Span,
    block_steps,
    delta_bytes,
    delta_offsets,
    likely_bytes,
    recipe_of,
    runs_of,
    signature_of,
    sizes_of,
    spans_in,
)
from heliosd.store.recipe import Piece, Recipe
from heliosd.store.revisions import Revisions
from heliosd.store.threads import Threads

log = logging.getLogger("heliosd.store")

LEAST_RATIO = 0.1
"""Of a file's bytes that must be found elsewhere: below that it is not worth the pieces."""
MOST_BASES = 16
"""Files that one is compared with, those with most in common first."""
SPARE_BYTES = 64 * MiB

Calm = Callable[[], Awaitable[None]]
"""Returns when nothing more urgent is under way."""


async def at_once() -> None:
    """Nobody else is to be considered."""


@dataclass(frozen=True, slots=True)
class Shared:
    """What one look at the store found."""

    files: int = 0
    """That are kept as recipes from now on."""
    logical_bytes: int = 0
    """Of those files."""
    freed_bytes: int = 0
    in_use: int = 0
    """Files left as they are because somebody uses them; worth another look when he is done."""


class Sharing:
    """One look at a time. `wanted` tells what nobody may delete, `tidy` removes the directory of a revision that is
    gone."""

    def __init__(
        self,
        *,
        layout: Layout,
        blobs: Blobs,
        revisions: Revisions,
        catalog: Catalog,
        wanted: Callable[[], Awaitable[AbstractSet[str]]],
        tidy: Callable[[Digest], Awaitable[None]],
        clock: Callable[[], float],
        file_bytes: int,
        run_bytes: int,
    ) -> None:
        """Smaller files than `file_bytes` are left alone; shorter equal runs than `run_bytes` count as changed."""
        self._layout = layout
        self._blobs = blobs
        self._revisions = revisions
        self._catalog = catalog
        self._wanted = wanted
        self._tidy = tidy
        self._clock = clock
        self._file_bytes = file_bytes
        self._run_bytes = run_bytes
        self._threads = Threads(1, niceness=19)
        self._comparing = Comparing(layout.blob)
        self._looking = asyncio.Lock()
        self._by_blocks: bool | None = None
        """Whether the file system can share blocks; None: not tried yet."""
        self._signatures: dict[Digest, array[int]] = {}

    def close(self) -> None:
        self._threads.close()

    async def share(self, *, again: bool, calm: Calm) -> Shared:
        """Look at every file that was not looked at yet, or with `again` at all of them."""
        async with self._looking:
            return await self._share(again, calm)

    async def _share(self, again: bool, calm: Calm) -> Shared:
        files = [
            (digest, size_bytes)
            for path, digest, size_bytes in await self._catalog.files()
            if path.endswith(".safetensors") and size_bytes >= self._file_bytes
        ]
        compared = frozenset() if again else await self._catalog.compared()
        recipes = await self._catalog.recipes(digest for digest, _ in files)
        await self._threads.run(self._forget_all_but, {digest for digest, _ in files})
        pieces, by_blocks = await self._catalog.pieces(), await self._catalog.extents()
        older: list[Digest] = []
        done = Shared()
        for digest, size_bytes in files:
            if digest in recipes:
                continue
            freed_bytes: int | None = 0
            # A file that others are made of stays whole; one that shares blocks does so already.
            if older and digest not in compared and digest not in pieces | by_blocks:
                await calm()
                freed_bytes = await self._share_file(digest, older, calm)
                if freed_bytes:
                    pieces = await self._catalog.pieces()
                    done = Shared(
                        done.files + 1, done.logical_bytes + size_bytes, done.freed_bytes + freed_bytes, done.in_use
                    )
            if freed_bytes is None:
                done = Shared(done.files, done.logical_bytes, done.freed_bytes, done.in_use + 1)
            elif digest not in compared:
                await self._catalog.set_compared(digest)
            if not freed_bytes or digest not in await self._catalog.recipes([digest]):
                older.append(digest)
        return done

    def _forget_all_but(self, digests: set[Digest]) -> None:
        for digest in self._signatures.keys() - digests:
            del self._signatures[digest]

    async def _share_file(self, digest: Digest, older: Sequence[Digest], calm: Calm) -> int | None:
        """Returns the bytes freed; None when the file is in use."""
        if digest in self._blobs.held:
            return None
        touched: set[Digest] = set()
        try:
            with self._blobs.hold() as hold:
                touched = hold.digests
                await hold.add(digest)
                if await self._blobs.size(digest) is None:
                    return 0  # its model was removed meanwhile
                try:
                    spans = await self._threads.run(self._comparing.spans, digest)
                except CorruptData as error:
                    log.warning("file not shared", extra={"digest": digest, "cause": str(error)})
                    return 0
                places = await self._places(digest, spans, older, hold)
                return await self._replace(digest, spans, places, hold, calm)
        finally:
            await self._blobs.delete(touched, self._wanted)

    def _ranked(self, spans: Sequence[Span], older: Sequence[Digest]) -> list[Digest]:
        """Of the older files those with most of the same tensors, by their headers. In the thread, which alone uses
        the signatures."""
        sizes = sizes_of(spans)
        likely = [(likely_bytes(sizes, self._signature(other)), other) for other in older]
        likely.sort(key=lambda each: -each[0])
        return [other for size_bytes, other in likely[:MOST_BASES] if size_bytes >= self._run_bytes]

    def _signature(self, digest: Digest) -> "array[int]":
        found = self._signatures.get(digest)
        if found is None:
            try:
                found = signature_of(self._comparing.spans(digest))
            except CorruptData:
                found = array("q")
            self._signatures[digest] = found
        return found

    async def _places(
        self, digest: Digest, spans: Sequence[Span], older: Sequence[Digest], hold: Hold
    ) -> dict[Span, Piece]:
        """Where the spans probably are found once more, in files that are held from now on."""
        places: dict[Span, Piece] = {}
        for other in await self._threads.run(self._ranked, spans, older):
            left = [span for span in spans if span not in places]
            await hold.add(other)
            if left and other not in hold.recipes and await self._blobs.size(other) is not None:
                places |= await self._threads.run(self._comparing.sampled, digest, left, other)
        return places

    async def _replace(
        self, digest: Digest, spans: Sequence[Span], places: dict[Span, Piece], hold: Hold, calm: Calm
    ) -> int | None:
        runs = await self._threads.run(self._runs, spans, places)
        if not runs:
            return 0
        if shared := await self._share_blocks(digest, runs, calm):
            return shared
        for span in spans_in(spans, runs):
            if not await self._equal(digest, span, places[span], calm):
                del places[span]
        runs = await self._threads.run(self._runs, spans, places)
        if not runs:
            return 0
        recipe, new, costs_bytes = await self._write(digest, runs, hold, calm)
        if (found := await self._hashed(digest, recipe, calm)) != digest:
            log.error("file not shared: put together from pieces it is another", extra={"digest": digest, "is": found})
            return 0
        before = await self._catalog.held_in(digest)

        async def commit() -> bool:
            return await self._catalog.set_recipe(digest, recipe, self._clock(), new)

        removed_bytes = await self._blobs.replace(digest, hold, commit)
        if not removed_bytes:
            return None
        for manifest in before:
            recipes = await self._catalog.recipes(file.digest for file in manifest.files)
            await self._revisions.present(manifest, recipes)
            await self._tidy(manifest.digest)
        return removed_bytes - costs_bytes

    async def _share_blocks(self, digest: Digest, runs: Sequence[Run], calm: Calm) -> int:
        """Let the file have the others' blocks, where the file system can. Returns the bytes freed; 0: it cannot, or
        too little lies at offsets that allow it."""
        if self._by_blocks is None:
            self._by_blocks = await self._threads.run(can_share, self._layout.incoming)
        steps = [step for run in runs for step in block_steps(run, BLOCK_BYTES, BLOCKS_STEP_BYTES)]
        size_bytes = runs[-1].begin + runs[-1].size_bytes
        if not self._by_blocks or sum(place.size_bytes for _, place in steps) < LEAST_RATIO * size_bytes:
            return 0
        freed_bytes = 0
        for begin, place in steps:
            await calm()
            freed_bytes += await self._threads.run(self._comparing.share_blocks, digest, begin, place)
        if freed_bytes:
            await self._catalog.set_extents({digest, *(place.blob for _, place in steps)})
        return freed_bytes if freed_bytes >= LEAST_RATIO * size_bytes else 0

    def _runs(self, spans: Sequence[Span], places: dict[Span, Piece]) -> tuple[Run, ...]:
        """None when too little would be freed."""
        runs = runs_of(spans, places, least_bytes=self._run_bytes)
        size_bytes = spans[-1].begin + spans[-1].size_bytes
        return runs if size_bytes - delta_bytes(runs) >= LEAST_RATIO * size_bytes else ()

    async def _equal(self, digest: Digest, span: Span, place: Piece, calm: Calm) -> bool:
        for begin in range(0, span.size_bytes, STEP_BYTES):
            await calm()
            step = Piece(place.blob, place.offset + begin, min(STEP_BYTES, span.size_bytes - begin))
            if not await self._threads.run(self._comparing.equal, digest, span.begin + begin, step):
                return False
        return True

    async def _write(
        self, digest: Digest, runs: Sequence[Run], hold: Hold, calm: Calm
    ) -> tuple[Recipe, dict[Digest, int], int]:
        """Write what is changed into a blob. Returns the recipe, that blob with its size, and what it takes: nothing
        if it was there."""
        changed = delta_offsets(runs)
        if not changed:
            return recipe_of(runs, None), {}, 0
        await self._check_room(digest, delta_bytes(runs))
        part = await self._blobs.open_part()
        try:
            for run, offset in changed:
                await self._threads.run(part.write, bytes(offset - part.size_bytes))
                for begin in range(0, run.size_bytes, STEP_BYTES):
                    await calm()
                    count = min(STEP_BYTES, run.size_bytes - begin)
                    await self._threads.run(self._comparing.copy, digest, run.begin + begin, count, part)
            known = await self._blobs.size(part.digest) is not None
            delta, size_bytes = await self._blobs.commit(part, hold)
        finally:
            await self._threads.run(part.discard)
        return recipe_of(runs, delta), {delta: size_bytes}, 0 if known else size_bytes

    async def _check_room(self, digest: Digest, needs_bytes: int) -> None:
        has_bytes = (await self._threads.run(shutil.disk_usage, self._layout.root)).free - SPARE_BYTES
        if needs_bytes > has_bytes:
            raise Unavailable(
                f"cannot share {digest}: what it does not share takes {format_bytes(needs_bytes)} until its blob is "
                f"removed, and {self._layout.root} has {format_bytes(max(0, has_bytes))} to spare; remove a model",
                code="disk_full",
                retry_after_s=60.0,
            )

    async def _hashed(self, digest: Digest, recipe: Recipe, calm: Calm) -> str:
        sha256 = hashlib.sha256()
        for begin in range(0, recipe.size_bytes, STEP_BYTES):
            await calm()
            await self._threads.run(self._comparing.hash, digest, recipe, begin, sha256.update)
        return sha256.hexdigest()
