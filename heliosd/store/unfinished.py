"""What every kind of unfinished file does with its descriptor and its hashes."""

import hashlib
import os
import stat
from pathlib import Path

from heliosd.core.names import Digest


class Hashes:
    """Of a file's bytes, as far as they were taken in, in order. With `git_size_bytes` also the id that git gives a
    blob of that size."""

    def __init__(self, git_size_bytes: int | None) -> None:
        self.size_bytes = 0
        self._git = git_size_bytes is not None
        self._sha256 = hashlib.sha256()
        self._sha1 = hashlib.sha1(usedforsecurity=False)
        self._sha1.update(b"blob %d\0" % (git_size_bytes or 0))

    def take(self, data: bytes) -> None:
        self._sha256.update(data)
        if self._git:
            self._sha1.update(data)
        self.size_bytes += len(data)

    @property
    def digest(self) -> Digest:
        return Digest(self._sha256.hexdigest())

    @property
    def git_sha1(self) -> str:
        return self._sha1.hexdigest()


def open_unfinished(path: Path) -> int:
    """Open or begin it. A link planted there must not make us write somewhere else."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def put(file: int, data: bytes, position: int) -> None:
    """Put bytes at their place. Raises OSError when the disk does not take all of them."""
    rest = memoryview(data)
    while rest:
        written = os.pwrite(file, rest, position)
        rest, position = rest[written:], position + written


def become_blob(file: int, path: Path, blob: Path) -> None:
    """Take the blob's name, then become read-only: the other way round, who is killed in between leaves a part that
    nobody but root could ever open again."""
    path.rename(blob)
    os.fchmod(file, stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH)
