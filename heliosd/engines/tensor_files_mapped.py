"""Maps a tensor file's bytes into memory: nothing is read or copied until somebody looks.

The mapping is private: pages come from the page cache and are shared by all who map the file, and a page that somebody
writes to becomes theirs alone, so that nothing written ever reaches the store.
"""

import mmap
import os
from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path

from heliosd.core.units import MiB
from heliosd.engines.tensor_files import Part, TensorFile, open_regular
from heliosd.errors import CorruptData

_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)
"""A private writable mapping of more than the host's memory is refused without it."""
_POPULATE_READ = 22
"""MADV_POPULATE_READ, Linux 5.14: read into the page cache and into the page table, as `read()` would."""
_AHEAD_BYTES = 32 * MiB


@dataclass(frozen=True, slots=True)
class View:
    """Bytes of a mapped file, for whoever makes a tensor of them."""

    memory: mmap.mmap
    offset: int
    size_bytes: int


class MappedFile:
    """One tensor file. The mappings go when the last thing made of them goes: nothing to close."""

    def __init__(self, file: TensorFile) -> None:
        """Blocks for a moment. Raises CorruptData when a part is gone or shorter than it was when it was checked."""
        self.file = file
        self._maps: dict[Path, mmap.mmap] = {}
        for part in file.parts:
            if part.path not in self._maps:
                self._maps[part.path] = _map(part.path)
            if part.offset + part.size_bytes > len(self._maps[part.path]):
                raise CorruptData(f"cannot load {file.path.name}: {part.path.name} has become shorter")
        self._present: dict[Path, int] = {}

    @property
    def maps(self) -> tuple[mmap.mmap, ...]:
        return tuple(self._maps.values())

    def view(self, begin: int, end: int) -> View | None:
        """The bytes from `begin` to `end` of the data, in place; None where they straddle parts, or are none."""
        first, last = self.file.data_at + begin, self.file.data_at + end
        number = bisect_right(self.file.starts, first) - 1
        part = self.file.parts[number]
        offset = first - self.file.starts[number]
        if first >= last or offset + last - first > part.size_bytes:
            return None
        return View(self._maps[part.path], part.offset + offset, last - first)

    def copy(self, begin: int, end: int) -> bytearray:
        """The bytes from `begin` to `end` of the data, brought together."""
        together = bytearray()
        for piece in self.file.pieces(self.file.data_at + begin, self.file.data_at + end):
            together += memoryview(self._maps[piece.path])[piece.offset : piece.offset + piece.size_bytes]
        return together

    def fetch(self, begin: int, end: int) -> None:
        """Have these bytes of the data in memory, and some more after them. Blocks for as long as the disk takes.

        One sequential stream: with it the kernel reads ahead as for `read()`, twice as fast as faults one by one.
        """
        for piece in self.file.pieces(self.file.data_at + begin, self.file.data_at + end):
            self._fetch(piece)

    def _fetch(self, piece: Part) -> None:
        memory = self._maps[piece.path]
        last = piece.offset + piece.size_bytes
        first = piece.offset - piece.offset % mmap.PAGESIZE
        here = self._present.get(piece.path, 0)
        first = max(here, first)
        if last <= first:
            return
        last = min(len(memory), max(last, first + _AHEAD_BYTES))
        last = min(len(memory), last + -last % mmap.PAGESIZE)
        advise(memory, first, last - first)
        self._present[piece.path] = last - last % mmap.PAGESIZE


def advise(memory: mmap.mmap, offset: int, size_bytes: int) -> None:
    """Populate whole pages of a mapping, or with an old kernel ask for them to be read."""
    try:
        memory.madvise(_POPULATE_READ, offset, size_bytes)
    except OSError:  # EINVAL before Linux 5.14; EFAULT where the file cannot be read, and a fault will tell
        memory.madvise(mmap.MADV_WILLNEED, offset, size_bytes)


def _map(path: Path) -> mmap.mmap:
    descriptor = open_regular(path)
    try:
        size_bytes = os.fstat(descriptor).st_size
        return mmap.mmap(
            descriptor,
            size_bytes,
            flags=mmap.MAP_PRIVATE | _NORESERVE,
            prot=mmap.PROT_READ | mmap.PROT_WRITE,
        )
    except (OSError, ValueError) as error:
        raise CorruptData(f"cannot map {path.name}: {error}", cause=str(error)) from error
    finally:
        os.close(descriptor)
