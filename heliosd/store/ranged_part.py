"""A file of known size that is filled from several places at once, and remembers which of its bytes it has.

The journal beside it names the pieces that are durable: after a kill or a power cut they need not come again. The
hashes follow the bytes that are there without a gap from the first on, so that little is left to hash at the end.
"""

import json
import os
from pathlib import Path

from heliosd.core.names import Digest
from heliosd.core.units import MiB
from heliosd.store.durable import write_file
from heliosd.store.spans import Span, Spans
from heliosd.store.unfinished import Hashes, become_blob, open_unfinished, put

HASH_BYTES = 4 * MiB


class RangedPart:
    """`write`, `save` and `absorb` may run at once, each in one thread at a time but `write` in any number; what
    landed is told and asked for on the event loop."""

    def __init__(self, path: Path, journal: Path, expected_bytes: int, *, git: bool = False) -> None:
        """Open or begin it; with `git` it also keeps the id that git gives the content. Raises OSError when the disk
        has no room for all of it."""
        self.path = path
        self._journal = journal
        self.expected_bytes = expected_bytes
        self._git = git
        self._file = open_unfinished(path)
        try:
            fresh = os.fstat(self._file).st_size != expected_bytes
            if fresh:
                journal.unlink(missing_ok=True)  # it speaks of another file, and must not when this one is large enough
                os.ftruncate(self._file, 0)
                if expected_bytes:
                    os.posix_fallocate(self._file, 0, expected_bytes)
        except OSError:
            self.close()
            raise
        self._spans = Spans([] if fresh else saved_pieces(journal, expected_bytes))
        self._saved = Spans(self._spans.pieces)
        self._hashes = self._no_hashes()

    def _no_hashes(self) -> Hashes:
        return Hashes(self.expected_bytes if self._git else None)

    @property
    def size_bytes(self) -> int:
        """How far the hashes are."""
        return self._hashes.size_bytes

    @property
    def here_bytes(self) -> int:
        return self._spans.total_bytes

    @property
    def complete(self) -> bool:
        return self._spans.covers(0, self.expected_bytes)

    @property
    def hashable_bytes(self) -> int:
        """How many bytes wait to be hashed."""
        return self._spans.prefix_bytes - self.size_bytes

    def missing(self, start: int, end: int) -> tuple[Span, ...]:
        return tuple(self._spans.gaps(start, end))

    def is_saved(self, start: int, end: int) -> bool:
        return self._saved.covers(start, end)

    def write(self, data: bytes, position: int) -> None:
        """Put bytes at their place. Raises OSError when the disk does not take all of them."""
        put(self._file, data, position)

    def landed(self, start: int, end: int) -> int:
        """`write` has put these bytes there; returns how many of them are new."""
        return self._spans.add(start, end)

    def save(self) -> None:
        """Make what landed durable, and then say so in the journal."""
        pieces = self._spans.pieces
        os.fdatasync(self._file)
        write_file(self._journal, json.dumps({"pieces": pieces}).encode())
        self._saved = Spans(pieces)

    def keep(self) -> None:
        """Save before closing, unless it was closed, has nothing new, or is gone."""
        if self._file >= 0 and self._spans.pieces != self._saved.pieces:
            self.save()

    def absorb(self) -> None:
        """Hash the next few of the bytes that wait for it."""
        data = os.pread(self._file, min(HASH_BYTES, self.hashable_bytes), self.size_bytes)
        self._hashes.take(data)

    def restart(self) -> None:
        """Nothing of it counts any more."""
        self._spans = Spans()
        self.save()
        self._hashes = self._no_hashes()

    @property
    def digest(self) -> Digest:
        return self._hashes.digest

    @property
    def git_sha1(self) -> str:
        return self._hashes.git_sha1

    def finish(self) -> None:
        """Make the bytes durable."""
        os.fsync(self._file)

    def become(self, blob: Path) -> None:
        """Take the blob's name, read-only."""
        become_blob(self._file, self.path, blob)
        self._journal.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def discard(self) -> None:
        """Close and remove it."""
        self.close()
        self.path.unlink(missing_ok=True)
        self._journal.unlink(missing_ok=True)


def saved_pieces(journal: Path, expected_bytes: int) -> tuple[Span, ...]:
    """What a journal says is there of a file of this size; nothing when it cannot be believed."""
    try:
        pieces = json.loads(journal.read_bytes())["pieces"]
        found = tuple((int(start), int(end)) for start, end in pieces)
    except (OSError, ValueError, KeyError, TypeError):
        return ()
    return found if all(0 <= start < end <= expected_bytes for start, end in found) else ()


def allocated_bytes(path: Path) -> int:
    """What a file takes of the disk; 0 when there is none."""
    try:
        return path.lstat().st_blocks * 512
    except FileNotFoundError:
        return 0
