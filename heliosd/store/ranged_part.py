"""A file of known size that is filled from several places at once, and remembers which of its bytes it has.

The journal beside it names the pieces that are durable: after a kill or a power cut they need not come again. The
hashes follow the bytes that are there without a gap from the first on, so that little is left to hash at the end.
"""

import hashlib
import json
import os
import stat
from pathlib import Path

from heliosd.core.names import Digest
from heliosd.core.units import MiB
from heliosd.store.durable import write_file
from heliosd.store.spans import Span, Spans

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
        # A link planted here must not make us write somewhere else.
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._file = os.open(path, flags, 0o600)
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
        self._start_hashes()

    def _start_hashes(self) -> None:
        self.size_bytes = 0
        """How far the hashes are."""
        self._sha256 = hashlib.sha256()
        self._sha1 = hashlib.sha1(usedforsecurity=False)
        self._sha1.update(b"blob %d\0" % self.expected_bytes)

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
        rest = memoryview(data)
        while rest:
            written = os.pwrite(self._file, rest, position)
            rest, position = rest[written:], position + written

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
        self._sha256.update(data)
        if self._git:
            self._sha1.update(data)
        self.size_bytes += len(data)

    def restart(self) -> None:
        """Nothing of it counts any more."""
        self._spans = Spans()
        self.save()
        self._start_hashes()

    @property
    def digest(self) -> Digest:
        return Digest(self._sha256.hexdigest())

    @property
    def git_sha1(self) -> str:
        return self._sha1.hexdigest()

    def finish(self) -> None:
        """Make the bytes durable."""
        os.fsync(self._file)

    def become(self, blob: Path) -> None:
        """Take the blob's name, then become read-only: the other way round, who is killed in between leaves a part
        that nobody but root could ever open again."""
        self.path.rename(blob)
        os.fchmod(self._file, stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH)
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
