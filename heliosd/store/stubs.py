"""The beginnings of weights that were let go: enough to estimate a model by, in files that take next to no room.

A stub has the file's size and, of its bytes, only the header; the rest is a hole. It is never served or loaded.
"""

import os
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from heliosd.core.names import Digest
from heliosd.errors import CorruptData
from heliosd.estimation.headers import LENGTH_BYTES, header_length
from heliosd.store.content import opened
from heliosd.store.durable import make_directory, sync_directory
from heliosd.store.layout import Layout


class Stubs:
    """Synchronous; call in a thread."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def place(self, digest: Digest) -> Path:
        """Where to read a file's header: the blob, or its stub when there is only that."""
        blob = self._layout.blob(digest)
        stub = self._layout.stub(digest)
        return stub if stub.exists() and not blob.exists() else blob

    def keep(self, digest: Digest) -> None:
        """Make the stub of a safetensors file that is here, durably. Raises CorruptData or OSError."""
        with opened(digest, None, self._layout.blob) as content:
            length = header_length(content.read(0, LENGTH_BYTES), content.size_bytes)
            header = content.read(0, length)
            if len(header) != length:
                raise CorruptData(f"cannot let go of {digest}: its header is cut")
            size_bytes = content.size_bytes
        target = self._layout.stub(digest)
        make_directory(target.parent)
        beside = self._layout.incoming / f"stub-{digest}"
        with beside.open("wb") as file:
            file.write(header)
            file.truncate(size_bytes)
            os.fsync(file.fileno())
        beside.rename(target)
        sync_directory(target.parent)

    def tidy(self, wanted: Collection[Digest]) -> None:
        """Remove all but these."""
        with suppress(FileNotFoundError):
            for path in self._layout.stubs.iterdir():
                if path.name not in wanted:
                    path.unlink(missing_ok=True)
