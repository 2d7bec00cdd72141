"""What engines compiled, kept so that the next start of the same thing finds it: by torch.compile, Inductor, Triton and
FlashInfer, and what vLLM keeps beside.

Such caches are code. So an engine never reads what is kept: it gets a copy in a folder of its own, made file by file
against the hashes that were taken when an engine of ours had written it. What differs, is somebody else's, or may be
written by others is not used, and removed.

    <folder>/<key>/manifest.json     facts, files with sizes and hashes; last used at its time
    <folder>/<key>/files/...         what is kept
    <folder>/live/<key>/...          what a running engine reads and writes

Everything here blocks: call it from a thread.
"""

import hashlib
import logging
import os
import shutil
import stat
import threading
from collections.abc import Mapping
from pathlib import Path

from heliosd.engines.warmup_manifest import KeptFile, Manifest, WarmupSpoiled, key_of, parse_manifest

log = logging.getLogger("heliosd.engines")

MANIFEST, FILES, LIVE = "manifest.json", "files", "live"
_VARIABLES = {
    "VLLM_CACHE_ROOT": "vllm",
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "TRITON_CACHE_DIR": "triton",
    "FLASHINFER_WORKSPACE_BASE": "flashinfer",
}
"""What tells an engine's libraries where to keep what they compile, and the folder for each."""
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


class Warmups:
    """Owner of the folder. Methods may be called from any thread."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self._lock = threading.Lock()
        self._live: set[Path] = set()
        """Folders of running engines."""
        self._in_use: dict[str, int] = {}
        """How many engines run with each key."""

    def open(self) -> None:
        """Make the folder, and remove what running engines of another life left. Raises WarmupSpoiled where others
        could write."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_ours(self.folder)
        shutil.rmtree(self.folder / LIVE, ignore_errors=True)

    def take(self, facts: Mapping[str, str]) -> "Warmup":
        """A folder for one engine, with what is kept for it. Give it back with `Warmup.release`."""
        key = key_of(facts)
        with self._lock:
            number = 0
            # Compilers note paths: the same place each time, except for two engines at once.
            while (live := self.folder / LIVE / (f"{key}-{number}" if number else key)) in self._live:
                number += 1
            self._live.add(live)
            self._in_use[key] = self._in_use.get(key, 0) + 1
        shutil.rmtree(live, ignore_errors=True)
        for name in _VARIABLES.values():
            (live / name).mkdir(mode=0o700, parents=True)
        found = self._restore(key, live)
        return Warmup(self, dict(facts), live, found)

    def _restore(self, key: str, live: Path) -> dict[str, KeptFile]:
        """Copy what is kept, checking each file on the way; nothing of it where one is wrong."""
        kept = self.folder / key
        if not kept.exists():
            return {}
        try:
            manifest = self.check(key)
            for path, file in manifest.files.items():
                target = live / path
                target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                _copy_checked(kept / FILES / path, target, file)
            os.utime(kept / MANIFEST)
        except (WarmupSpoiled, OSError) as error:
            log.warning("warm-up not used", extra={"key": key, "cause": str(error)})
            shutil.rmtree(kept, ignore_errors=True)
            for name in _VARIABLES.values():
                shutil.rmtree(live / name, ignore_errors=True)
                (live / name).mkdir(mode=0o700)
            return {}
        return dict(manifest.files)

    def check(self, key: str) -> Manifest:
        """The manifest of what is kept, if it is ours and made for this key. Raises WarmupSpoiled, OSError."""
        kept = self.folder / key
        for place in (kept, kept / MANIFEST, kept / FILES):
            _check_ours(place)
        manifest = parse_manifest((kept / MANIFEST).read_bytes())
        if manifest.key != key:
            raise WarmupSpoiled(f"cannot use the warm-up {key}: its facts are those of {manifest.key}")
        return manifest

    def keep(self, warmup: "Warmup") -> None:
        """Keep what the engine has written; nothing happens where that is what is kept already."""
        found = _files_of(warmup.folder)
        if not found or found == {path: file.size_bytes for path, file in warmup.known.items()}:
            return
        fresh = self.folder / LIVE / f"{warmup.folder.name}.kept"
        shutil.rmtree(fresh, ignore_errors=True)
        try:
            files = {}
            for path in found:
                target = fresh / FILES / path
                target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                try:
                    files[path] = _copy(warmup.folder / path, target)
                except FileNotFoundError:
                    continue  # it was somebody's for a moment only
            self.put(Manifest(warmup.facts, files), fresh)
            warmup.known = files
        finally:
            shutil.rmtree(fresh, ignore_errors=True)

    def put(self, manifest: Manifest, fresh: Path) -> None:
        """Take in a folder with the files of a manifest in `files`, in the place of what is kept under its key."""
        (fresh / MANIFEST).write_bytes(manifest.to_json())
        with self._lock:
            kept = self.folder / manifest.key
            shutil.rmtree(kept, ignore_errors=True)
            fresh.rename(kept)
        self._make_room(manifest.key)

    def _make_room(self, but: str) -> None:
        """Remove what was not used for longest, until all is within the limit. What runs stays."""
        sizes = {key: manifest.size_bytes for key, manifest in self.kept().items()}
        by_age = sorted(sizes, key=self._used_at)
        for key in by_age:
            if sum(sizes.values()) <= self.max_bytes:
                return
            if key != but and not self._in_use.get(key):
                self.remove(key)
                del sizes[key]
        if sum(sizes.values()) > self.max_bytes and not self._in_use.get(but):
            self.remove(but)

    def _used_at(self, key: str) -> float:
        return (self.folder / key / MANIFEST).stat().st_mtime

    def kept(self) -> dict[str, Manifest]:
        """All that is kept and in order, by key."""
        found = {}
        for place in sorted(self.folder.iterdir()) if self.folder.is_dir() else ():
            if place.name != LIVE:
                try:
                    found[place.name] = self.check(place.name)
                except (WarmupSpoiled, OSError) as error:
                    log.warning("warm-up not used", extra={"key": place.name, "cause": str(error)})
        return found

    def remove(self, key: str) -> None:
        """Forget what is kept. Running engines have copies."""
        with self._lock:
            shutil.rmtree(self.folder / key, ignore_errors=True)

    def let_go(self, warmup: "Warmup") -> None:
        """The engine has ended."""
        shutil.rmtree(warmup.folder, ignore_errors=True)
        with self._lock:
            self._live.discard(warmup.folder)
            key = key_of(warmup.facts)
            self._in_use[key] = self._in_use.get(key, 1) - 1


class Warmup:
    """One engine's folder of what it compiles."""

    def __init__(self, owner: Warmups, facts: dict[str, str], folder: Path, known: dict[str, KeptFile]) -> None:
        self._owner = owner
        self.facts = facts
        self.folder = folder
        self.known = known
        """What is kept already; empty: nothing was there."""
        self._keeping = threading.Lock()
        self._released = self._closed = False

    @property
    def environment(self) -> dict[str, str]:
        """Variables for the engine's process."""
        return {name: str(self.folder / place) for name, place in _VARIABLES.items()}

    def keep(self) -> None:
        """Keep what was compiled so far. A disk that is full costs the next start, not this engine."""
        with self._keeping:
            if self._released or self._closed:
                return
            try:
                self._owner.keep(self)
            except OSError as error:
                log.warning("warm-up not kept", extra={"key": key_of(self.facts), "cause": str(error)})

    def close(self) -> None:
        """Nothing more is kept: the engine becomes another model."""
        with self._keeping:
            self._closed = True

    def release(self) -> None:
        """The engine has ended; its folder goes. Harmless when repeated."""
        with self._keeping:
            if not self._released:
                self._released = True
                self._owner.let_go(self)


def _files_of(folder: Path) -> dict[str, int]:
    """Relative paths of all regular files, with sizes. Links are not followed and not kept, nor are locks."""
    found = {}
    for place, _, names in os.walk(folder):
        for name in names:
            file = Path(place) / name
            told = file.lstat()
            if stat.S_ISREG(told.st_mode) and not name.endswith((".lock", ".tmp")):
                found[file.relative_to(folder).as_posix()] = told.st_size
    return found


def _check_ours(place: Path) -> os.stat_result:
    """Raises WarmupSpoiled for what belongs to or may be written by others, or is a link."""
    told = place.lstat()
    if stat.S_ISLNK(told.st_mode):
        raise WarmupSpoiled(f"cannot use {place}: it is a link")
    if told.st_uid != os.geteuid():
        raise WarmupSpoiled(f"cannot use {place}: it belongs to user {told.st_uid}, and heliosd is {os.geteuid()}")
    if told.st_mode & _WRITABLE_BY_OTHERS:
        raise WarmupSpoiled(f"cannot use {place}: others may write to it (mode {stat.S_IMODE(told.st_mode):o})")
    return told


def _copy(source: Path, target: Path) -> KeptFile:
    digest = hashlib.sha256()
    size_bytes = 0
    target.touch(mode=0o600, exist_ok=False)
    with source.open("rb") as read, target.open("wb") as write:
        while block := read.read(1 << 20):
            digest.update(block)
            size_bytes += write.write(block)
    if source.stat().st_mode & stat.S_IXUSR:
        target.chmod(0o700)
    return KeptFile(digest.hexdigest(), size_bytes)


def _copy_checked(source: Path, target: Path, expected: KeptFile) -> None:
    told = _check_ours(source)
    if not stat.S_ISREG(told.st_mode) or told.st_size != expected.size_bytes:
        raise WarmupSpoiled(f"cannot use {source}: it has {told.st_size} bytes, and {expected.size_bytes} were kept")
    if _copy(source, target) != expected:
        raise WarmupSpoiled(f"cannot use {source}: it is not what was kept (its SHA-256 differs)")
