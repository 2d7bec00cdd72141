"""One file being written, with its hashes kept up to date. Synchronous: belongs to one thread at a time."""

import ctypes
import errno
import os
from pathlib import Path
from typing import Self

from heliosd.core.names import Digest
from heliosd.core.units import MiB
from heliosd.store.unfinished import Hashes, become_blob, open_unfinished, put

CHUNK_BYTES = 4 * MiB
COPY_BYTES = 8 * MiB
"""Enough that what it costs to hand a piece from thread to thread does not count."""

_libc = ctypes.CDLL(None, use_errno=True)
_SYNC_FILE_RANGE_WRITE = 2
_NO_KERNEL_COPY = (errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM)


class Part:
    """An unfinished file under `incoming/`. What it already holds is read through `absorb` before writing on.

    `copy_from` alone may run in one thread while `absorb` runs in another: it copies ahead of what is hashed.

    With `git_size_bytes` it also keeps the id that git gives a blob of that size.
    """

    def __init__(self, path: Path, *, git_size_bytes: int | None = None) -> None:
        self.path = path
        self._git_size_bytes = git_size_bytes
        self._file = open_unfinished(path)
        self._start()

    def _start(self) -> None:
        self._copied_bytes = 0
        self._hashes = Hashes(self._git_size_bytes)

    @property
    def size_bytes(self) -> int:
        """Of what is hashed."""
        return self._hashes.size_bytes

    def absorb(self, limit_bytes: int = CHUNK_BYTES) -> int:
        """Hash the next bytes that the file holds already; returns how many, 0 at their end."""
        begin, end = self.size_bytes, self.size_bytes + limit_bytes
        while self.size_bytes < end:
            data = os.pread(self._file, min(CHUNK_BYTES, end - self.size_bytes), self.size_bytes)
            if not data:
                break
            self._hashes.take(data)
        return self.size_bytes - begin

    def write(self, data: bytes) -> None:
        """Append. Raises OSError, with the position unchanged, when the disk does not take all of it."""
        put(self._file, data, self.size_bytes)
        self._hashes.take(data)

    def copy_from(self, source: int, limit_bytes: int = COPY_BYTES) -> int:
        """Append the next bytes of the open file `source`, for `absorb` to hash; returns how many, 0 at its end.

        It is what lies in the part that is hashed, not what was read: `source` may change in between.
        """
        begin = self._copied_bytes
        try:
            while (count := begin + limit_bytes - self._copied_bytes) and (
                done := os.copy_file_range(source, self._file, count, offset_dst=self._copied_bytes)
            ):
                self._copied_bytes += done
        except OSError as error:
            if error.errno not in _NO_KERNEL_COPY:
                raise
            self._copy_by_hand(source, begin + limit_bytes - self._copied_bytes)
        # The disk is busy from now on, not only once everything is there. It says no where it cannot: no matter.
        _libc.sync_file_range(
            self._file, ctypes.c_int64(begin), ctypes.c_int64(self._copied_bytes - begin), _SYNC_FILE_RANGE_WRITE
        )
        return self._copied_bytes - begin

    def _copy_by_hand(self, source: int, limit_bytes: int) -> None:
        data = os.read(source, limit_bytes)
        put(self._file, data, self._copied_bytes)
        self._copied_bytes += len(data)

    def restart(self) -> None:
        """Throw away what was written."""
        os.ftruncate(self._file, 0)
        self._start()

    @property
    def digest(self) -> Digest:
        return self._hashes.digest

    @property
    def git_sha1(self) -> str:
        return self._hashes.git_sha1

    def finish(self) -> None:
        """Make the bytes durable. Bytes behind the position, if any, are cut off."""
        os.ftruncate(self._file, self.size_bytes)
        os.fsync(self._file)

    def become(self, blob: Path) -> None:
        """Take the blob's name, read-only."""
        become_blob(self._file, self.path, blob)
        self.close()

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def discard(self) -> None:
        """Close and remove it."""
        self.close()
        self.path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
