"""Presents a revision as a directory that engines load from. It can always be made again from the manifest.

A file is a link to its blob, or, kept as a recipe, a small file beside where it would be that says what it is made of.
"""

import asyncio
import os
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from heliosd.core.manifest import Manifest, ManifestFile
from heliosd.core.names import Digest
from heliosd.core.units import MiB
from heliosd.errors import CorruptData
from heliosd.store.durable import sync_directory
from heliosd.store.layout import Layout
from heliosd.store.placed import elsewhere, size_of
from heliosd.store.recipe import ENDING, Recipe, written
from heliosd.store.threads import Threads


@dataclass(frozen=True, slots=True)
class Link:
    says: str


@dataclass(frozen=True, slots=True)
class Text:
    """A plain file."""

    says: str


Entry = Link | Text


class Revisions:
    def __init__(self, layout: Layout, threads: Threads) -> None:
        self._layout = layout
        self._threads = threads
        self._making = asyncio.Lock()

    async def present(self, manifest: Manifest, recipes: Mapping[Digest, Recipe] | None = None) -> Path:
        """Return the revision's directory, complete: everything in it checked, and made anew if something was amiss.

        `recipes`: which of its files are kept so. Raises CorruptData when a blob is gone or has another size.
        """
        async with self._making:
            return await self._threads.run(self._present, manifest, recipes or {})

    def _present(self, manifest: Manifest, recipes: Mapping[Digest, Recipe]) -> Path:
        directory = self._layout.revision(manifest.digest)
        entries: dict[str, Entry] = {}
        for file in manifest.files:
            recipe = recipes.get(file.digest)
            if recipe is None:
                self._check_blob(file)
                entries[file.path] = Link(self._layout.link_text(manifest.digest, file.path, file.digest))
            else:
                self._check_recipe(file, recipe)
                folder = (directory / file.path).parent
                entries[file.path + ENDING] = Text(written(recipe, file.digest, folder, self._layout.blob))
        if entries_in(directory) != entries:
            self._make(directory, entries)
        return directory

    def _check_blob(self, file: ManifestFile) -> None:
        found = self._size(file.path, file.digest)
        if found != file.size_bytes:
            raise CorruptData(
                f"cannot present {file.path}: its blob {file.digest} has {found} bytes instead of {file.size_bytes}; "
                "remove the model and add it again"
            )

    def _check_recipe(self, file: ManifestFile, recipe: Recipe) -> None:
        if recipe.size_bytes != file.size_bytes:
            raise CorruptData(
                f"cannot present {file.path}: its recipe is for {recipe.size_bytes} bytes instead of "
                f"{file.size_bytes}; remove the model and add it again"
            )
        for blob in recipe.blobs:
            found, least = self._size(file.path, blob), recipe.least_bytes(blob)
            if found < least:
                raise CorruptData(
                    f"cannot present {file.path}: it shares the blob {blob}, which has {found} bytes instead of at "
                    f"least {least}; add the model again"
                )

    def _size(self, path: str, digest: Digest) -> int:
        found = size_of(self._layout.blob(digest))
        if found is None:
            moved = elsewhere(self._layout.blob(digest))
            where = f"is not on the disk that it was moved to ({moved}); mount that, or" if moved else "is gone;"
            raise CorruptData(f"cannot present {path}: its blob {digest} {where} add the model again")
        return found

    def _make(self, directory: Path, entries: Mapping[str, Entry]) -> None:
        beside = self._layout.incoming / f"links-{uuid.uuid4().hex}"
        write_entries(beside, entries)
        self._throw_away(directory)
        beside.rename(directory)
        sync_directory(directory.parent)

    async def remove(self, revision: Digest) -> None:
        async with self._making:
            await self._threads.run(self._throw_away, self._layout.revision(revision))

    def _throw_away(self, directory: Path) -> None:
        """Out of sight at once, so that nobody finds half a directory."""
        if not directory.exists():
            return
        aside = self._layout.incoming / f"gone-{uuid.uuid4().hex}"
        directory.rename(aside)
        shutil.rmtree(aside)

    async def all(self) -> set[str]:
        """The names of all directories that are presented."""
        return await self._threads.run(lambda: {path.name for path in self._layout.revisions.iterdir()})


_FOREIGN = Text("\0")
_MAX_RECIPE_BYTES = 64 * MiB


def write_entries(folder: Path, entries: Mapping[str, Entry]) -> None:
    """Make a folder with these in it, durably. Its parent must be there."""
    folder.mkdir()
    for name, entry in entries.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(entry, Link):
            path.symlink_to(entry.says)
        else:
            with path.open("x") as file:
                file.write(entry.says)
                file.flush()
                os.fsync(file.fileno())
    for each, _, _ in os.walk(folder):
        sync_directory(Path(each))


def entries_in(directory: Path) -> dict[str, Entry]:
    """What is there, by path; what nobody of us put there is no text that we would write."""
    found: dict[str, Entry] = {}
    for folder, folders, files in os.walk(directory):
        for name in [*files, *folders]:
            path = Path(folder, name)
            if path.is_symlink():
                found[str(path.relative_to(directory))] = Link(str(path.readlink()))
            elif name in files:
                found[str(path.relative_to(directory))] = _text_of(path)
    return found


def _text_of(path: Path) -> Text:
    if not path.name.endswith(ENDING) or not path.is_file() or path.stat().st_size > _MAX_RECIPE_BYTES:
        return _FOREIGN
    return Text(path.read_text(errors="replace"))
