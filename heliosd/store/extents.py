"""Sharing below the file where the file system can, which is XFS: two files stay whole and equal blocks exist once.

The kernel compares the bytes itself and shares only what is equal. Not used on btrfs, which can too, but keeps the
whole of an extent for as long as any block of it is used: measured, it gave back less than half of what was shared.
Synchronous; call in a thread. The structures are those of `linux/fs.h` and `linux/fiemap.h`.
"""

import errno
import fcntl
import os
import struct
import uuid
from collections.abc import Iterable
from pathlib import Path

from heliosd.core.units import MiB

BLOCK_BYTES = 4096
"""What is shared begins and ends at a multiple of this; file systems with larger blocks refuse, and are left alone."""
STEP_BYTES = 16 * MiB
"""Some file systems take no more at a time."""

Range = tuple[int, int]
"""Where bytes lie on the volume: begin and end."""

_FIDEDUPERANGE = 0xC0189436
_ASK = struct.Struct("=QQHHI")
_TARGET = struct.Struct("=qQQiI")
_FS_IOC_FIEMAP = 0xC020660B
_MAP = struct.Struct("=QQIIII")
_EXTENT = struct.Struct("=QQQQQIIII")
_EXTENTS_AT_ONCE = 256
_FIEMAP_FLAG_SYNC = 1
_FIEMAP_EXTENT_LAST = 1


def can_share(folder: Path) -> bool:
    """Whether files of this folder can share blocks, and give back what they share: tried with two small ones."""
    if _file_system(folder) != "xfs":
        return False
    paths = [folder / f"probe-{uuid.uuid4().hex}" for _ in range(2)]
    handles: list[int] = []
    try:
        for path in paths:
            handles.append(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            os.write(handles[-1], b"x" * BLOCK_BYTES)
            os.fsync(handles[-1])
        return share(handles[0], 0, handles[1], 0, BLOCK_BYTES) == BLOCK_BYTES
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.EPERM, errno.ENOSYS):
            raise
        return False
    finally:
        for handle in handles:
            os.close(handle)
        for path in paths:
            path.unlink(missing_ok=True)


def _file_system(folder: Path) -> str | None:
    """The name of the file system that it lies on."""
    device = folder.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text(errors="replace").splitlines():
        mount, _, volume = line.partition(" - ")
        if mount.split()[2] == wanted:
            return volume.split()[0]
    return None


def share(source: int, source_offset: int, target: int, target_offset: int, size_bytes: int) -> int:
    """Let the target's range be the source's blocks where the bytes are equal; returns how many bytes are.

    Offsets and size are multiples of BLOCK_BYTES, the size at most STEP_BYTES; all or nothing of it is shared. Raises
    OSError where the file system cannot.
    """
    ask = bytearray(_ASK.pack(source_offset, size_bytes, 1, 0, 0) + _TARGET.pack(target, target_offset, 0, 0, 0))
    fcntl.ioctl(source, _FIDEDUPERANGE, ask, True)
    _, _, done_bytes, status, _ = _TARGET.unpack_from(ask, _ASK.size)
    if status < 0:
        raise OSError(-status, os.strerror(-status))
    return int(done_bytes) if status == 0 else 0


def ranges(path: Path) -> tuple[Range, ...]:
    """Where a file's bytes lie on the volume."""
    found: list[Range] = []
    position = 0
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        while True:
            rest = 2**63 - 1 - position
            ask = bytearray(_MAP.pack(position, rest, _FIEMAP_FLAG_SYNC, 0, _EXTENTS_AT_ONCE, 0))
            ask += bytes(_EXTENT.size * _EXTENTS_AT_ONCE)
            fcntl.ioctl(handle, _FS_IOC_FIEMAP, ask, True)
            count = _MAP.unpack_from(ask)[3]
            if not count:
                return tuple(found)
            for number in range(count):
                logical, physical, length, _, _, flags, *_ = _EXTENT.unpack_from(ask, _MAP.size + number * _EXTENT.size)
                found.append((physical, physical + length))
            if flags & _FIEMAP_EXTENT_LAST:
                return tuple(found)
            position = logical + length
    finally:
        os.close(handle)


def taken_bytes(files: Iterable[Iterable[Range]]) -> int:
    """What files take together, blocks that they share counted once. Pure."""
    total_bytes = end = 0
    for begin, its_end in sorted(each for file in files for each in file):
        total_bytes += max(0, its_end - max(begin, end))
        end = max(end, its_end)
    return total_bytes
