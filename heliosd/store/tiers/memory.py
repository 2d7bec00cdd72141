"""Blobs kept in RAM: their pages of the page cache, mapped and locked, so that engines that map or read the file find
them there. Synchronous; nothing is copied."""

import ctypes
import errno
import logging
import mmap
import os
from pathlib import Path

from heliosd.core.units import MiB

log = logging.getLogger("heliosd.store")

STEP_BYTES = 64 * MiB
"""Read and locked at a time; a multiple of every page size."""
_FAILED = ctypes.c_void_p(-1).value
_MADV_WILLNEED = 3
_DENIED = (errno.EPERM, errno.ENOMEM, errno.EAGAIN)

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
for _call in (_libc.munmap, _libc.mlock):
    _call.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


class Resident:
    """One blob in RAM. Belongs to one thread at a time; `close` lets go of it."""

    def __init__(self, path: Path) -> None:
        """Map the file; nothing is read yet. Raises OSError."""
        self.done_bytes = 0
        self._address: int | None = None
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self.size_bytes = os.fstat(handle).st_size
            if self.size_bytes:
                found = _libc.mmap(None, self.size_bytes, mmap.PROT_READ, mmap.MAP_SHARED, handle, 0)
                if found == _FAILED:
                    raise OSError(ctypes.get_errno(), f"cannot map {path}")
                self._address = found
        finally:
            os.close(handle)

    def advance(self, *, lock: bool) -> bool:
        """Bring in the next bytes and keep them there; without `lock` only have them read ahead, for the kernel to
        keep or drop. Returns whether they are locked; the caller goes on until `done_bytes` is `size_bytes`.

        When the lock is denied they are read ahead."""
        if self._address is None:
            return lock
        start, count = self._address + self.done_bytes, min(STEP_BYTES, self.size_bytes - self.done_bytes)
        _libc.madvise(start, count, _MADV_WILLNEED)
        if lock and _libc.mlock(start, count) != 0:
            if ctypes.get_errno() not in _DENIED:
                raise OSError(ctypes.get_errno(), "cannot lock a blob in memory")
            lock = False
        self.done_bytes += count
        return lock

    def close(self) -> None:
        """Unlock and unmap."""
        if self._address is not None:
            _libc.munmap(self._address, self.size_bytes)
            self._address = None
