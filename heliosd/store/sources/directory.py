"""A folder of this machine as a source: only what lies inside it is read.

Symbolic links are a way out of the folder. A link to a file inside is read as that file; so is one into the `blobs`
folder of the Hub cache that the folder is a snapshot of, for that is how such caches are made. Any other is refused.
"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from heliosd.core.manifest import MAX_FILES, ManifestFile
from heliosd.errors import BadRequest, NotAllowed, NotFound, SourceFailed
from heliosd.store.blobs import Blobs, Hold, Report
from heliosd.store.sources.source import Listing, Progress, SourceFile, Tell
from heliosd.store.threads import Threads


class DirectorySource:
    def __init__(self, folder: Path, blobs: Blobs, threads: Threads) -> None:
        self._folder = folder
        self._blobs = blobs
        self._threads = threads

    async def list(self, tell: Tell) -> Listing:
        """List the folder. Raises BadRequest, NotFound or NotAllowed."""
        tell(Progress("list", str(self._folder)))
        files = await self._threads.run(self._list)
        return Listing(files, {"kind": "directory", "location": str(self._folder)})

    def _list(self) -> tuple[SourceFile, ...]:
        if not self._folder.is_absolute():
            raise BadRequest(f"cannot read {self._folder}: give an absolute path on the daemon's machine")
        if not self._folder.is_dir():
            raise NotFound(f"cannot read {self._folder}: there is no such folder, or the daemon may not see it")
        try:
            files = tuple(self._files())
        except OSError as error:
            raise SourceFailed(f"cannot read {self._folder}: {error}") from error
        if len(files) > MAX_FILES:
            raise BadRequest(f"cannot add {self._folder}: it holds over {MAX_FILES} files; is it a model's folder?")
        return files

    def _files(self) -> Iterator[SourceFile]:
        count = 0
        for folder, folders, names in os.walk(self._folder, onerror=_rise):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for name in [*folders, *names]:
                path = Path(folder, name)
                if path.is_symlink() and not (name.startswith(".") or path.is_file()):
                    raise NotAllowed(f"cannot read {path}: it is a link to a folder or to nothing; put a copy there")
            for name in names:
                path = Path(folder, name)
                if path.is_file():
                    count += 1
                    yield SourceFile(str(path.relative_to(self._folder)), path.stat().st_size)
                if count > MAX_FILES:
                    return

    async def deliver(self, file: SourceFile, hold: Hold, report: Report) -> ManifestFile:
        """Copy one file in. Raises NotAllowed for a link out of the folder, SourceFailed if it changes meanwhile."""
        source = await self._threads.run(self._open, file.path)
        try:
            digest, size_bytes = await self._blobs.ingest(source, hold, report)
        finally:
            await self._threads.run(os.close, source)
        if size_bytes != file.size_bytes:
            raise SourceFailed(
                f"cannot add {file.path}: it had {file.size_bytes} bytes when listed and {size_bytes} when read; "
                "add it again when nobody writes it any more"
            )
        return ManifestFile(file.path, digest, size_bytes)

    def _open(self, name: str) -> int:
        inside = self._folder.resolve()
        path = (self._folder / name).resolve()
        if not any(path.is_relative_to(root) for root in (inside, *_hub_cache_blobs(inside))):
            raise NotAllowed(f"cannot read {self._folder / name}: it is a link to {path}, outside the folder")
        try:
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise SourceFailed(f"cannot read {path}: {error.strerror}") from error
        # Ask what was really opened: the path may have been exchanged since it was resolved.
        if not stat.S_ISREG(os.fstat(handle).st_mode) or Path(f"/proc/self/fd/{handle}").readlink() != path:
            os.close(handle)
            raise NotAllowed(f"cannot read {path}: it is no plain file, or was exchanged while being opened")
        return handle

    async def close(self) -> None:
        """Nothing is kept open."""


def _hub_cache_blobs(folder: Path) -> tuple[Path, ...]:
    """`…/models--org--name/snapshots/<commit>` may link into `…/models--org--name/blobs`."""
    repository = folder.parent.parent
    is_snapshot = folder.parent.name == "snapshots" and repository.name.startswith("models--")
    return (repository / "blobs",) if is_snapshot else ()


def _rise(error: OSError) -> None:
    raise error
