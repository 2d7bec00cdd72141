"""Files that are kept as recipes, put together for whoever reads whole files only, for as long as he does.

They lie under `whole/`: `files/<digest>` once for all who hold them, `<revision>/` a directory like those of
`Revisions`. Nothing there outlives the process: a start throws it away.
"""

import asyncio
import hashlib
import os
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from heliosd.core.manifest import Manifest
from heliosd.core.names import Digest
from heliosd.core.units import MiB, format_bytes
from heliosd.errors import CorruptData, Unavailable
from heliosd.store.content import CHUNK_BYTES, opened
from heliosd.store.durable import make_directory
from heliosd.store.layout import Layout
from heliosd.store.recipe import Recipe
from heliosd.store.revisions import Entry, Link, write_entries
from heliosd.store.threads import Threads

SPARE_BYTES = 64 * MiB
"""Left on the disk, as an addition leaves it."""
STEP_BYTES = 64 * MiB
"""Written at a time: who gives up waiting for the engine waits for no more than that."""


class Whole:
    def __init__(self, layout: Layout, threads: Threads) -> None:
        self._layout = layout
        self._threads = threads
        self._making = asyncio.Lock()
        self._held: Counter[Digest] = Counter()
        """How often each file, and each revision's directory, is held."""
        self._sizes: dict[Digest, int] = {}

    @property
    def size_bytes(self) -> int:
        """Of the files that are there now."""
        return sum(self._sizes.values())

    @asynccontextmanager
    async def hold(self, manifest: Manifest, recipes: Mapping[Digest, Recipe]) -> AsyncIterator[Path]:
        """A directory of the revision without recipes, for the length of the block. Its blobs must be held.

        Raises Unavailable when the disk is too small, CorruptData when the bytes are not what they should be.
        """
        names = {manifest.digest, *recipes}
        self._held.update(names)
        try:
            async with self._making:
                for digest, recipe in recipes.items():
                    await self._put_together(digest, recipe)
                    self._sizes[digest] = recipe.size_bytes
                directory = await self._threads.run(self._present, manifest, recipes)
            yield directory
        finally:
            self._held.subtract(names)
            async with self._making:
                unused = {name for name in names if not self._held[name]}
                for name in unused:
                    del self._held[name]
                    self._sizes.pop(name, None)
                await self._threads.run(self._remove, unused)

    def _file(self, digest: Digest) -> Path:
        return self._layout.whole / "files" / digest

    async def _put_together(self, digest: Digest, recipe: Recipe) -> None:
        target = self._file(digest)
        if await self._threads.run(target.exists):
            return
        await self._threads.run(self._make_room, digest, recipe)
        beside, sha256 = target.with_name(f"{digest}.new"), hashlib.sha256()
        try:
            for begin in range(0, recipe.size_bytes, STEP_BYTES):
                await self._threads.run(self._copy, digest, recipe, begin, beside, sha256.update)
            if sha256.hexdigest() != digest:
                raise CorruptData(
                    f"cannot put {digest} together: its pieces make {sha256.hexdigest()}; add the model again"
                )
            await self._threads.run(beside.rename, target)
        finally:
            await self._threads.run(beside.unlink, missing_ok=True)

    def _make_room(self, digest: Digest, recipe: Recipe) -> None:
        folder = self._file(digest).parent
        make_directory(folder)
        has_bytes = shutil.disk_usage(folder).free - SPARE_BYTES
        if recipe.size_bytes > has_bytes:
            raise Unavailable(
                f"cannot put {digest} together for an engine that reads whole files only: it needs "
                f"{format_bytes(recipe.size_bytes)} of disk and {self._layout.root} has "
                f"{format_bytes(max(0, has_bytes))} to spare; remove models, or leave load_format out of engine_args",
                code="disk_full",
                retry_after_s=60.0,
            )

    def _copy(self, digest: Digest, recipe: Recipe, begin: int, path: Path, update: Callable[[bytes], object]) -> None:
        end = min(begin + STEP_BYTES, recipe.size_bytes)
        with opened(digest, recipe, self._layout.blob) as content, path.open("ab") as file:
            for at in range(begin, end, CHUNK_BYTES):
                data = content.read(at, min(CHUNK_BYTES, end - at))
                update(data)
                file.write(data)

    def _present(self, manifest: Manifest, recipes: Mapping[Digest, Recipe]) -> Path:
        directory = self._layout.whole / manifest.digest
        if not directory.exists():
            entries: dict[str, Entry] = {}
            for file in manifest.files:
                path = self._file(file.digest) if file.digest in recipes else self._layout.blob(file.digest)
                entries[file.path] = Link(os.path.relpath(path, (directory / file.path).parent))
            write_entries(directory, entries)
        return directory

    def _remove(self, names: set[Digest]) -> None:
        for name in names:
            self._file(name).unlink(missing_ok=True)
            shutil.rmtree(self._layout.whole / name, ignore_errors=True)
