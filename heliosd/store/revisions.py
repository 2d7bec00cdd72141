"""Presents a revision as a directory that engines load from. It can always be made again from the manifest."""

import asyncio
import os
import shutil
import uuid
from pathlib import Path

from heliosd.core.manifest import Manifest
from heliosd.core.names import Digest
from heliosd.errors import CorruptData
from heliosd.store.durable import sync_directory
from heliosd.store.layout import Layout
from heliosd.store.threads import Threads


class Revisions:
    def __init__(self, layout: Layout, threads: Threads) -> None:
        self._layout = layout
        self._threads = threads
        self._making = asyncio.Lock()

    async def present(self, manifest: Manifest) -> Path:
        """Return the revision's directory, complete: every link checked, and made anew if one was amiss.

        Raises CorruptData when a blob is gone or has another size.
        """
        async with self._making:
            return await self._threads.run(self._present, manifest)

    def _present(self, manifest: Manifest) -> Path:
        for file in manifest.files:
            self._check_blob(file.path, file.digest, file.size_bytes)
        directory = self._layout.revision(manifest.digest)
        links = {file.path: self._layout.link_text(manifest.digest, file.path, file.digest) for file in manifest.files}
        if _links_in(directory) != links:
            self._make(directory, links)
        return directory

    def _check_blob(self, path: str, digest: Digest, size_bytes: int) -> None:
        try:
            found = self._layout.blob(digest).lstat().st_size
        except FileNotFoundError as error:
            raise CorruptData(f"cannot present {path}: its blob {digest} is gone; add the model again") from error
        if found != size_bytes:
            raise CorruptData(
                f"cannot present {path}: its blob {digest} has {found} bytes instead of {size_bytes}; "
                "remove the model and add it again"
            )

    def _make(self, directory: Path, links: dict[str, str]) -> None:
        beside = self._layout.incoming / f"links-{uuid.uuid4().hex}"
        beside.mkdir()
        for path, text in links.items():
            link = beside / path
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(text)
        for folder, _, _ in os.walk(beside):
            sync_directory(Path(folder))
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


def _links_in(directory: Path) -> dict[str, str]:
    """What is there: path to link text; a thing that is no link has the text ''."""
    found = {}
    for folder, folders, files in os.walk(directory):
        for name in [*files, *folders]:
            path = Path(folder, name)
            if path.is_symlink():
                found[str(path.relative_to(directory))] = str(path.readlink())
            elif name in files:
                found[str(path.relative_to(directory))] = ""
    return found
