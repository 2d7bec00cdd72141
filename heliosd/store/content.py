"""Reads a stored file's bytes, be it a blob of its own or made of pieces of others. Synchronous; call in a thread."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from heliosd.core.names import Digest
from heliosd.core.units import MiB
from heliosd.store.placed import elsewhere
from heliosd.store.recipe import Piece, Recipe

CHUNK_BYTES = 4 * MiB


class Content:
    """An open file of the store."""

    def __init__(self, recipe: Recipe, handles: Mapping[Digest, int]) -> None:
        self._recipe = recipe
        self._handles = handles
        self.size_bytes = recipe.size_bytes

    def read(self, begin: int, size_bytes: int) -> bytes:
        """The bytes of this range; fewer behind the end, or where a blob was cut."""
        pieces = self._recipe.between(begin, size_bytes)
        return b"".join(os.pread(self._handles[piece.blob], piece.size_bytes, piece.offset) for piece in pieces)

    def chunks(self, chunk_bytes: int = CHUNK_BYTES) -> Iterator[bytes]:
        """All of it, piece by piece."""
        for begin in range(0, self.size_bytes, chunk_bytes):
            yield self.read(begin, chunk_bytes)


@contextmanager
def opened(digest: Digest, recipe: Recipe | None, path: Callable[[Digest], Path]) -> Iterator[Content]:
    """Open the file of that digest. Raises OSError when a blob is not there."""
    blobs = frozenset({digest}) if recipe is None else recipe.blobs
    handles: dict[Digest, int] = {}
    try:
        for blob in blobs:
            place = path(blob)
            handles[blob] = os.open(elsewhere(place) or place, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        if recipe is None:
            recipe = Recipe((Piece(digest, 0, os.fstat(handles[digest]).st_size),))
        yield Content(recipe, handles)
    finally:
        for handle in handles.values():
            os.close(handle)
