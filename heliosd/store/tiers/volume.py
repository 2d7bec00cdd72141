"""The slower volume: whole blobs under their digests, each meant by a link in the store. Synchronous.

    owner                      the store it belongs to
    blobs/sha256/ab/<digest>   one blob's bytes
    incoming/                  what is being written

The store's place of a blob changes in one rename, of a synced link over the file or of synced bytes over the link. So
who is killed leaves the blob whole under its path, and beside it at most bytes that no link means.
"""

import os
import shutil
import uuid
from pathlib import Path

from heliosd.core.names import Digest
from heliosd.errors import ConfigError, CorruptData
from heliosd.store.durable import make_directory, sync_directory, write_file
from heliosd.store.layout import Layout
from heliosd.store.part import Part
from heliosd.store.placed import elsewhere


class Volume:
    def __init__(self, root: Path, store: Layout) -> None:
        self._there = Layout(root)
        self._store = store

    @property
    def root(self) -> Path:
        return self._there.root

    def open(self) -> int:
        """Make the folders and remove what no link of the store means; returns how many files that were.

        Raises ConfigError when it cannot be used, or belongs to another store.
        """
        try:
            for folder in (self._there.blobs, self._there.incoming):
                make_directory(folder)
            self._claim()
            return self._sweep()
        except OSError as error:
            raise ConfigError(
                f"cannot use store.disk_dir {self.root}: {error}; make it writable or leave it out"
            ) from error

    def _claim(self) -> None:
        """Two stores must not sweep one volume."""
        ours = self._store.root / "store-id"
        if not ours.exists():
            write_file(ours, uuid.uuid4().hex.encode())
        owner, name = self.root / "owner", ours.read_bytes()
        if not owner.exists():
            write_file(owner, name)
        if owner.read_bytes() != name:
            raise ConfigError(
                f"cannot use store.disk_dir {self.root}: it belongs to another store than {self._store.root}; "
                f"choose another folder, or remove {owner} if that store is gone"
            )

    def _sweep(self) -> int:
        removed = 0
        for path in self._there.incoming.iterdir():
            path.unlink()
            removed += 1
        for path in self._there.blobs.glob("*/*"):
            if elsewhere(self._store.blobs / path.parent.name / path.name) != path:
                path.unlink()
                removed += 1
        return removed

    def free_bytes(self) -> int:
        return shutil.disk_usage(self.root).free

    def part(self, digest: Digest) -> Part:
        """Begin to write a blob's copy here."""
        return Part(self._there.part(digest))

    def take(self, part: Part, digest: Digest) -> None:
        """Let the copy be the blob, and the store have a link to it. Raises CorruptData as `checked` does."""
        checked(part, digest, self._store.blob(digest))
        there, here = self._there.blob(digest), self._store.blob(digest)
        make_directory(there.parent)
        part.finish()
        part.become(there)
        sync_directory(there.parent)
        link = self._store.incoming / f"link-{uuid.uuid4().hex}"
        link.symlink_to(there)
        link.rename(here)
        sync_directory(here.parent)

    def give(self, part: Part, digest: Digest) -> None:
        """The reverse, with a copy in the store."""
        here = self._store.blob(digest)
        checked(part, digest, here)
        there = elsewhere(here)
        part.finish()
        part.become(here)
        sync_directory(here.parent)
        if there is not None:
            there.unlink(missing_ok=True)


def checked(part: Part, digest: Digest, source: Path) -> None:
    """Raise CorruptData when what was copied is not the blob."""
    if part.digest != digest:
        raise CorruptData(
            f"cannot move the blob {digest}: {source} reads as {part.digest}; the disk has damaged it, so remove the "
            "models that need it and add them again"
        )


def open_blob(path: Path) -> int:
    """A descriptor to copy from, read from the beginning to the end."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_SEQUENTIAL)
    return handle
