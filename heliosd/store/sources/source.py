"""What every source of models can do: list a model's files, and bring one of them into the blobs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from heliosd.core.manifest import ManifestFile
from heliosd.core.names import Digest
from heliosd.store.blobs import Hold


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an addition or a comparison is."""

    phase: Literal["list", "fetch", "convert", "verify", "commit", "compare"]
    item: str | None = None
    """The file being worked on."""
    done_bytes: int = 0
    """Of all files together."""
    total_bytes: int | None = None
    rate_bytes_per_s: float | None = None
    """Of late, without what was here already; None: not known yet."""
    eta_s: float | None = None
    """Until all files are here, at that rate."""


Tell = Callable[[Progress], None]
"""Called on the event loop; must not block."""


class Told(Protocol):
    """Told, on the event loop, how many more bytes are done; `here`: they did not have to come."""

    def __call__(self, count: int, /, *, here: bool = False) -> None: ...


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file as its source lists it; what the source does not know beforehand is None."""

    path: str
    size_bytes: int
    digest: Digest | None = None
    git_sha1: str | None = None
    """The id git gives the content, hexadecimal."""

    @property
    def key(self) -> str | None:
        """What its unfinished part is kept under; None when it cannot be taken up again."""
        return self.digest or (f"git-{self.git_sha1}" if self.git_sha1 else None)


@dataclass(frozen=True, slots=True)
class Listing:
    files: tuple[SourceFile, ...]
    origin: Mapping[str, Any]
    """JSON: `kind`, `location` and what pins it, such as `commit`."""
    resumable: bool = False
    """What was delivered before an interruption should be kept for the next attempt."""
    adopted: bool = False
    """The files lie in the store's own incoming folder: delivering takes no further space."""


class Source(Protocol):
    async def list(self, tell: Tell) -> Listing:
        """Find out which files there are. Raises the kinds of `heliosd.errors` with what to do about it."""
        ...

    async def deliver(self, file: SourceFile, hold: Hold, report: Told) -> ManifestFile:
        """Bring one listed file into the blobs, verified, and hold it; several at once are allowed.

        `report` is told of bytes done, also of those that were here already; a negative number takes some back.
        Raises SourceFailed or CorruptData.
        """
        ...

    async def close(self) -> None:
        """Free what listing or delivering took. Idempotent."""
        ...
