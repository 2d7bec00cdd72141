"""Looks at the bytes of stored files for `Sharing`, a step at a time. Synchronous; call in a thread."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from heliosd.core.names import Digest
from heliosd.core.units import MiB
from heliosd.errors import CorruptData
from heliosd.store.content import CHUNK_BYTES, opened
from heliosd.store.extents import share
from heliosd.store.inspection import header_of
from heliosd.store.matching import Span, spans_of
from heliosd.store.part import Part
from heliosd.store.recipe import Piece, Recipe

STEP_BYTES = 64 * MiB
"""The most that is looked at before others are let through."""
SAMPLE_BYTES = 4096


class Comparing:
    def __init__(self, path: Callable[[Digest], Path]) -> None:
        """`path`: where a blob lies."""
        self._path = path

    def spans(self, digest: Digest) -> tuple[Span, ...]:
        """The tensors of a file. Raises CorruptData."""
        try:
            with opened(digest, None, self._path) as content:
                header, head_bytes = header_of(content, digest)
                return spans_of(content.read(0, head_bytes), header)
        except OSError as error:
            raise CorruptData(f"cannot read {digest}: {error}") from error

    def sampled(self, digest: Digest, spans: Sequence[Span], other: Digest) -> dict[Span, Piece]:
        """Where in the other file those of these tensors lie that are equal in a few bytes in their middle."""
        theirs = {span.key: span for span in self.spans(other)}
        places = {}
        with opened(digest, None, self._path) as mine, opened(other, None, self._path) as its:
            for span in spans:
                found = theirs.get(span.key)
                if found is None or found.size_bytes != span.size_bytes:
                    continue
                inside = max(0, span.size_bytes - SAMPLE_BYTES) // 2
                count = min(SAMPLE_BYTES, span.size_bytes)
                if mine.read(span.begin + inside, count) == its.read(found.begin + inside, count):
                    places[span] = Piece(other, found.begin, span.size_bytes)
        return places

    def equal(self, digest: Digest, begin: int, place: Piece) -> bool:
        """Whether the file has the bytes of that place from `begin` on."""
        with opened(digest, None, self._path) as mine, opened(place.blob, None, self._path) as its:
            for at in range(0, place.size_bytes, CHUNK_BYTES):
                count = min(CHUNK_BYTES, place.size_bytes - at)
                if mine.read(begin + at, count) != its.read(place.offset + at, count):
                    return False
        return True

    def copy(self, digest: Digest, begin: int, size_bytes: int, part: Part) -> None:
        """Append a range of the file to `part`."""
        with opened(digest, None, self._path) as content:
            for at in range(0, size_bytes, CHUNK_BYTES):
                part.write(content.read(begin + at, min(CHUNK_BYTES, size_bytes - at)))

    def hash(self, digest: Digest, recipe: Recipe, begin: int, update: Callable[[bytes], object]) -> None:
        """Give a hash one step of what the recipe makes."""
        end = min(begin + STEP_BYTES, recipe.size_bytes)
        with opened(digest, recipe, self._path) as content:
            for at in range(begin, end, CHUNK_BYTES):
                update(content.read(at, min(CHUNK_BYTES, end - at)))

    def share_blocks(self, digest: Digest, begin: int, place: Piece) -> int:
        """Let the file have the blocks of that place from `begin` on; returns the bytes shared."""
        with self._path(place.blob).open("rb") as its, self._path(digest).open("rb") as mine:
            if os.fstat(its.fileno()).st_dev != os.fstat(mine.fileno()).st_dev:
                return 0  # one of them is on the slower volume
            return share(its.fileno(), place.offset, mine.fileno(), begin, place.size_bytes)
