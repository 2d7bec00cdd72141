"""A manifest lists the files of one immutable revision. Its digest is the revision's name."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from heliosd.core.names import Digest

MAX_FILES = 10_000


@dataclass(frozen=True, slots=True, order=True)
class ManifestFile:
    path: str
    """Relative, with forward slashes; checked by `checked_path`."""
    digest: Digest
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Manifest:
    files: tuple[ManifestFile, ...]

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)

    @property
    def digest(self) -> Digest:
        """sha256 over the canonical list of (path, digest, size); equal content has an equal name."""
        rows = [[file.path, file.digest, file.size_bytes] for file in sorted(self.files)]
        return Digest(hashlib.sha256(json.dumps(rows, separators=(",", ":")).encode()).hexdigest())

    def file(self, path: str) -> ManifestFile | None:
        return next((file for file in self.files if file.path == path), None)


def manifest_of(files: Iterable[ManifestFile]) -> Manifest:
    """Make a manifest, sorted by path. Raises ValueError for an unsafe or repeated path."""
    rows = tuple(sorted(files))
    paths = [checked_path(file.path) for file in rows]
    if len(set(paths)) != len(paths):
        raise ValueError("cannot make a manifest: a path is listed twice")
    if len(paths) > MAX_FILES:
        raise ValueError(f"cannot make a manifest of {len(paths)} files: the limit is {MAX_FILES}")
    return Manifest(rows)


def checked_path(path: str) -> str:
    """Return `path` if it stays inside the folder it is put in. Raises ValueError otherwise."""
    parts = PurePosixPath(path).parts
    unsafe = (
        not parts
        or path.startswith("/")
        or "\\" in path
        or any(part == ".." for part in parts)
        or "/".join(parts) != path
        or any(ord(character) < 32 for character in path)
        or len(path) > 512
    )
    if unsafe:
        raise ValueError(f"cannot accept the file name {path!r}: it must be a plain relative path")
    return path
