"""One file's bytes under the name of their sha256: verified on the way in, durable once there, never changed.

A blob appears by a rename of complete, synced bytes, so a crash at any instant leaves it whole or absent. What is
wanted is the catalog's knowledge, not this file's: `delete` removes what it is told, except what is held.
"""

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from heliosd.core.names import Digest
from heliosd.errors import CorruptData
from heliosd.store.durable import make_directory, sync_directory
from heliosd.store.layout import Layout
from heliosd.store.part import Part
from heliosd.store.placed import remove, size_of
from heliosd.store.ranged_part import RangedPart
from heliosd.store.recipe import Recipe
from heliosd.store.threads import Threads

Report = Callable[[int], None]
"""Told, on the event loop, how many more bytes are done."""

FindRecipes = Callable[[AbstractSet[Digest]], Awaitable[Mapping[Digest, Recipe]]]
"""Those of the files that are kept as recipes."""


async def _no_recipes(digests: AbstractSet[Digest]) -> Mapping[Digest, Recipe]:
    return {}


class Hold:
    """Files that somebody is about to use: as long as they are held nobody deletes the blobs they are made of."""

    def __init__(self, deleting: asyncio.Lock, find_recipes: FindRecipes) -> None:
        self._deleting = deleting
        self._find_recipes = find_recipes
        self.digests: set[Digest] = set()
        self.recipes: dict[Digest, Recipe] = {}
        """Of the held files those that were kept as recipes when they were taken; their blobs are held too."""

    async def add(self, *digests: Digest) -> None:
        """Protect these from now on. Waits while a deletion is under way, so what exists after it stays."""
        async with self._deleting:
            new = set(digests) - self.digests
            self.digests |= new
            if new:
                found = await self._find_recipes(new)
                self.recipes.update(found)
                self.digests.update(*(recipe.blobs for recipe in found.values()))


class Blobs:
    def __init__(self, layout: Layout, threads: Threads, find_recipes: FindRecipes = _no_recipes) -> None:
        self._layout = layout
        self._threads = threads
        self._find_recipes = find_recipes
        self._deleting = asyncio.Lock()
        self._holds: dict[str, Hold] = {}

    @contextmanager
    def hold(self) -> Iterator[Hold]:
        """A hold for the length of a `with` block."""
        name, hold = uuid.uuid4().hex, Hold(self._deleting, self._find_recipes)
        self._holds[name] = hold
        try:
            yield hold
        finally:
            del self._holds[name]

    @property
    def held(self) -> frozenset[Digest]:
        return frozenset(digest for hold in self._holds.values() for digest in hold.digests)

    def path(self, digest: Digest) -> Path:
        return self._layout.blob(digest)

    async def size(self, digest: Digest) -> int | None:
        """Bytes of the blob, None when it is not here."""
        return await self._threads.run(size_of, self.path(digest))

    async def exists(self, digest: Digest, size_bytes: int | None = None) -> bool:
        """Whether the file is here, as a blob or as a recipe, with the size that is expected if one is given."""
        found = await self.size(digest)
        if found is not None and size_bytes in (None, found):
            return True
        recipe = (await self._find_recipes({digest})).get(digest)
        return recipe is not None and size_bytes in (None, recipe.size_bytes) and await self.intact(recipe)

    async def intact(self, recipe: Recipe) -> bool:
        """Whether the blobs it is made of are here and large enough."""
        sizes = {blob: await self.size(blob) for blob in recipe.blobs}
        return all((size or 0) >= recipe.least_bytes(blob) for blob, size in sizes.items())

    async def open_part(self, key: str | None = None, *, git_size_bytes: int | None = None) -> Part:
        """Begin to write; with a `key` go on with what an earlier attempt left under that key."""
        path = self._layout.part(key or f"new-{uuid.uuid4().hex}")
        return await self._threads.run(Part, path, git_size_bytes=git_size_bytes)

    async def ingest(
        self,
        source: int,
        hold: Hold,
        report: Report,
        *,
        digest: Digest | None = None,
        size_bytes: int | None = None,
    ) -> tuple[Digest, int]:
        """Copy the open file `source` into the store; returns what it is. Raises as `commit` does.

        While one thread hashes what was copied, another copies on, and the kernel writes what is copied to the disk.
        """
        part = await self.open_part()
        try:
            copied = await self._threads.run(part.copy_from, source)
            while copied:
                async with asyncio.TaskGroup() as both:
                    copying = both.create_task(self._threads.run(part.copy_from, source))
                    hashing = both.create_task(self._threads.run(part.absorb, copied))
                report(hashing.result())
                copied = copying.result()
            return await self.commit(part, hold, digest=digest, size_bytes=size_bytes)
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from errors
        finally:
            await self._threads.run(part.discard)

    async def adopt(self, path: Path, hold: Hold, report: Report) -> tuple[Digest, int]:
        """Take over a file that lies under `incoming/` already, without copying it."""
        part = await self._threads.run(Part, path)
        try:
            while count := await self._threads.run(part.absorb):
                report(count)
            return await self.commit(part, hold)
        finally:
            await self._threads.run(part.discard)

    async def commit(
        self, part: Part | RangedPart, hold: Hold, *, digest: Digest | None = None, size_bytes: int | None = None
    ) -> tuple[Digest, int]:
        """Verify a complete part and make it a blob; returns digest and size. The part is gone afterwards.

        Raises CorruptData, leaving no part, when it is not what was expected.
        """
        if size_bytes not in (None, part.size_bytes) or digest not in (None, part.digest):
            await self._threads.run(part.discard)
            raise CorruptData(
                f"cannot accept {part.path.name}: expected {size_bytes or 'any number of'} bytes "
                f"with sha256 {digest or 'of any value'}, got {part.size_bytes} with {part.digest}"
            )
        await hold.add(part.digest)
        await self._threads.run(self._commit, part)
        return part.digest, part.size_bytes

    def _commit(self, part: Part | RangedPart) -> None:
        target = self.path(part.digest)
        if size_of(target) == part.size_bytes:
            part.discard()
        else:
            make_directory(target.parent)
            part.finish()
            part.become(target)
        # Also when it was here: another writer's rename may not be durable yet.
        sync_directory(target.parent)

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """For the length of the block nothing is deleted and nobody begins to hold anything."""
        async with self._deleting:
            yield

    async def delete(self, digests: Iterable[Digest], wanted: Callable[[], Awaitable[AbstractSet[str]]]) -> int:
        """Remove these blobs unless they are held or `wanted` names them; returns the bytes freed.

        The order matters. Who is held now is spared; who was released before now has committed what it wants, so
        `wanted` is asked after; who comes later waits in `Hold.add` and then sees what is gone.
        """
        async with self._deleting:
            spared = self.held | await wanted()
            return await self._threads.run(self._delete, set(digests) - spared)

    async def replace(self, digest: Digest, mine: Hold, commit: Callable[[], Awaitable[bool]]) -> int:
        """Remove a blob that `commit` makes unwanted in the catalog; returns the bytes freed, 0 when it stays.

        It stays when somebody else than `mine` holds it, or `commit` says False. Whoever comes to hold it meanwhile
        waits, and finds what it was replaced by.
        """
        async with self._deleting:
            if any(digest in hold.digests for hold in self._holds.values() if hold is not mine) or not await commit():
                return 0
            return await self._threads.run(self._delete, {digest})

    def _delete(self, digests: set[Digest]) -> int:
        return sum(remove(self.path(digest)) for digest in digests)

    async def sizes(self) -> dict[Digest, int]:
        """Bytes of every blob on the disk."""
        return await self._threads.run(self._sizes)

    def _sizes(self) -> dict[Digest, int]:
        found = {digest: size_of(self.path(digest)) for digest in self._all()}
        return {digest: size_bytes for digest, size_bytes in found.items() if size_bytes is not None}

    async def all(self) -> set[Digest]:
        """Every blob on the disk."""
        return await self._threads.run(self._all)

    def _all(self) -> set[Digest]:
        return {
            Digest(entry.name)
            for shard in os.scandir(self._layout.blobs)
            if shard.is_dir(follow_symlinks=False)
            for entry in os.scandir(shard.path)
        }
