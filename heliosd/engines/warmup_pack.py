"""A kept warm-up as one plain tar, for peers with the same engine on the same kind of device.

First the manifest, then the files in its order. Nothing in it is unpickled, run or linked: names, sizes and hashes must
be those of the manifest, and the manifest's facts those of this machine.
"""

import hashlib
import io
import shutil
import tarfile
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO

from heliosd.core.hardware import Device
from heliosd.core.units import format_bytes
from heliosd.engines.warmup_facts import device_facts, engine_facts
from heliosd.engines.warmup_manifest import Manifest, WarmupSpoiled, parse_manifest
from heliosd.engines.warmups import FILES, LIVE, MANIFEST, Warmups

LONGEST_MANIFEST_BYTES = 64 * 1024 * 1024


def pack(warmups: Warmups, key: str, out: IO[bytes]) -> None:
    """Write what is kept under `key`. Blocks. Raises WarmupSpoiled, OSError."""
    manifest = warmups.check(key)
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        text = manifest.to_json()
        head = tarfile.TarInfo(MANIFEST)
        head.size, head.mode = len(text), 0o600
        tar.addfile(head, io.BytesIO(text))
        for path, file in sorted(manifest.files.items()):
            entry = tarfile.TarInfo(f"{FILES}/{path}")
            source = warmups.folder / key / FILES / path
            entry.size, entry.mode = file.size_bytes, source.lstat().st_mode & 0o700
            with source.open("rb") as content:
                tar.addfile(entry, content)


def unpack(warmups: Warmups, packed: IO[bytes], fits: "Fits") -> Manifest:
    """Take in what a peer packed, in the place of what is kept under its key. Blocks.

    Raises WarmupSpoiled for what is none, is damaged, or was not made for this machine.
    """
    live = warmups.folder / LIVE
    live.mkdir(mode=0o700, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix="import-", dir=live))
    try:
        with tarfile.open(fileobj=packed, mode="r|") as tar:
            entries = iter(tar)
            manifest = _manifest(tar, next(entries, None))
            fits.check(manifest)
            _files(tar, entries, manifest, fresh / FILES)
        warmups.put(manifest, fresh)
    except tarfile.TarError as error:
        raise WarmupSpoiled(f"cannot take in the warm-up: it is no tar file, or a damaged one ({error})") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return manifest


def _manifest(tar: tarfile.TarFile, entry: tarfile.TarInfo | None) -> Manifest:
    if entry is None or entry.name != MANIFEST or not entry.isreg() or entry.size > LONGEST_MANIFEST_BYTES:
        raise WarmupSpoiled("cannot take in the warm-up: the tar does not begin with its manifest")
    content = tar.extractfile(entry)
    assert content is not None, "a regular file has content"
    return parse_manifest(content.read())


def _files(tar: tarfile.TarFile, entries: Iterable[tarfile.TarInfo], manifest: Manifest, folder: Path) -> None:
    folder.mkdir(mode=0o700)
    missing = dict(manifest.files)
    for entry in entries:
        path = entry.name.removeprefix(f"{FILES}/")
        expected = missing.pop(path, None) if entry.isreg() and entry.name.startswith(f"{FILES}/") else None
        if expected is None:
            raise WarmupSpoiled(f"cannot take in the warm-up: its manifest does not name {entry.name!r} as a file")
        content = tar.extractfile(entry)
        assert content is not None, "a regular file has content"
        data = content.read(expected.size_bytes + 1)
        if len(data) != expected.size_bytes or hashlib.sha256(data).hexdigest() != expected.sha256:
            raise WarmupSpoiled(f"cannot take in the warm-up: {path} is not what its manifest says")
        target = folder / path
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        target.touch(mode=0o700 if entry.mode & 0o100 else 0o600)
        target.write_bytes(data)
    if missing:
        raise WarmupSpoiled(f"cannot take in the warm-up: {len(missing)} files are missing, such as {min(missing)}")


class Fits:
    """Whether a warm-up was made for this machine. `engines`: versions of those that it can start."""

    def __init__(self, engines: Iterable[str], devices: Iterable[Device], max_bytes: int) -> None:
        self._engines = [engine_facts(engine) for engine in engines]
        self._devices = [device_facts(device) for device in devices]
        self._max_bytes = max_bytes

    def check(self, manifest: Manifest) -> None:
        """Raises WarmupSpoiled with what differs."""
        for kind, ours in (("engine", self._engines), ("device", self._devices)):
            if not any(_differs(manifest.facts, each) is None for each in ours):
                why = _differs(manifest.facts, ours[0]) if ours else f"there is no {kind} here"
                raise WarmupSpoiled(f"cannot take in the warm-up: it was not made for this machine: {why}")
        if manifest.size_bytes > self._max_bytes:
            raise WarmupSpoiled(
                f"cannot take in the warm-up: it has {format_bytes(manifest.size_bytes)}, and engines.warmup_cache is "
                f"{format_bytes(self._max_bytes)}"
            )


def _differs(facts: Mapping[str, str], ours: Mapping[str, str]) -> str | None:
    for name, value in ours.items():
        if facts.get(name) != value:
            return f"its {name} is {facts.get(name, 'not told')}, and here it is {value}"
    return None
