"""In which blocks tensors are read from disk, and which bytes of a block belong where. Pure.

A block is one read: it begins and ends on what `O_DIRECT` asks for, and fits into one staging buffer. Large tensors
take several, small ones that lie together share one, and what no tensor wants between two is skipped when it is large.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from heliosd.core.units import MiB
from heliosd.engines.tensor_files import Part

ALIGNMENT_BYTES = 4096
GAP_BYTES = 1 * MiB
"""Reading over less than this is cheaper than another read."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes of a tensor and where they lie."""

    tensor: int
    tensor_offset: int
    at: Part


@dataclass(frozen=True, slots=True)
class Copy:
    """From a block to a tensor."""

    block_offset: int
    tensor: int
    tensor_offset: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Block:
    path: Path
    offset: int
    size_bytes: int
    """A multiple of `ALIGNMENT_BYTES`, perhaps beyond the file's end."""
    needed_bytes: int
    """How many must really come: less is a file that has become shorter."""
    copies: tuple[Copy, ...]


def blocks(pieces: Iterable[Piece], block_bytes: int) -> Iterator[Block]:
    """Blocks of at most `block_bytes`, a multiple of `ALIGNMENT_BYTES`, in the pieces' order."""
    path, start, end = Path(), 0, 0
    copies: list[Copy] = []
    for piece in _cut(pieces, block_bytes):
        first, last = piece.at.offset, piece.at.offset + piece.at.size_bytes
        fits = piece.at.path == path and end <= first <= end + GAP_BYTES and last - start <= block_bytes
        if copies and not fits:
            yield _block(path, start, end, copies)
            copies = []
        if not copies:
            path, start = piece.at.path, first - first % ALIGNMENT_BYTES
        copies.append(Copy(first - start, piece.tensor, piece.tensor_offset, piece.at.size_bytes))
        end = last
    if copies:
        yield _block(path, start, end, copies)


def _cut(pieces: Iterable[Piece], block_bytes: int) -> Iterator[Piece]:
    """Pieces none of which crosses the end of a block that begins where it begins, rounded down."""
    for piece in pieces:
        offset, done = piece.at.offset, 0
        while done < piece.at.size_bytes:
            room = block_bytes - offset % ALIGNMENT_BYTES
            size_bytes = min(room, piece.at.size_bytes - done)
            yield Piece(piece.tensor, piece.tensor_offset + done, Part(piece.at.path, offset, size_bytes))
            offset, done = offset + size_bytes, done + size_bytes


def _block(path: Path, start: int, end: int, copies: list[Copy]) -> Block:
    size_bytes = end - start
    return Block(path, start, size_bytes + -size_bytes % ALIGNMENT_BYTES, size_bytes, tuple(copies))
