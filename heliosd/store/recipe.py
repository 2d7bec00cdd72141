"""A file that is kept as pieces of blobs rather than as a blob of its own: joined, they are its bytes. Pure.

What an engine reads of it is a small JSON file in the revision's directory, in place of the file itself.
"""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from heliosd.core.names import Digest

ENDING = ".recipe"
"""Behind the file's own name."""
FORMAT = 1


@dataclass(frozen=True, slots=True)
class Piece:
    blob: Digest
    offset: int
    size_bytes: int

    @property
    def end(self) -> int:
        return self.offset + self.size_bytes


@dataclass(frozen=True, slots=True)
class Recipe:
    pieces: tuple[Piece, ...]

    @property
    def size_bytes(self) -> int:
        return sum(piece.size_bytes for piece in self.pieces)

    @property
    def blobs(self) -> frozenset[Digest]:
        return frozenset(piece.blob for piece in self.pieces)

    def least_bytes(self, blob: Digest) -> int:
        """How large that blob must at least be for its pieces to be in it."""
        return max((piece.end for piece in self.pieces if piece.blob == blob), default=0)

    def between(self, begin: int, size_bytes: int) -> tuple[Piece, ...]:
        """What of the blobs makes up this range of the file; the part of it that is behind the end is left out."""
        found, position = [], 0
        for piece in self.pieces:
            first = max(begin, position)
            last = min(begin + size_bytes, position + piece.size_bytes)
            if first < last:
                found.append(Piece(piece.blob, piece.offset + first - position, last - first))
            position += piece.size_bytes
        return tuple(found)


def joined(pieces: Sequence[Piece]) -> Recipe:
    """A recipe in which pieces that continue one another are one."""
    found: list[Piece] = []
    for piece in pieces:
        if found and found[-1].blob == piece.blob and found[-1].end == piece.offset:
            last = found.pop()
            found.append(Piece(last.blob, last.offset, last.size_bytes + piece.size_bytes))
        else:
            found.append(piece)
    return Recipe(tuple(found))


def to_row(recipe: Recipe) -> str:
    """For the catalog: `[[blob, offset, size], …]`."""
    return json.dumps([[piece.blob, piece.offset, piece.size_bytes] for piece in recipe.pieces], separators=(",", ":"))


def from_row(text: str) -> Recipe:
    return Recipe(tuple(Piece(Digest(blob), offset, size) for blob, offset, size in json.loads(text)))


def written(recipe: Recipe, digest: Digest, folder: Path, blob: Callable[[Digest], Path]) -> str:
    """What the file that stands for `digest` in `folder` says; paths are relative to that folder."""
    paths = {each: os.path.relpath(blob(each), folder) for each in recipe.blobs}
    parts = [
        {"path": paths[piece.blob], "offset": piece.offset, "size_bytes": piece.size_bytes} for piece in recipe.pieces
    ]
    return json.dumps({"format": FORMAT, "size_bytes": recipe.size_bytes, "sha256": digest, "parts": parts})
