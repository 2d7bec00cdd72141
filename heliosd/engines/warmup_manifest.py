"""What is kept of one warm-up, and what it was made for: as data, and as the file beside it."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from heliosd.errors import HeliosError

MOST_FILES = 100_000


class WarmupSpoiled(HeliosError):
    """What is kept is not what was kept, or is not to be trusted."""


@dataclass(frozen=True, slots=True)
class KeptFile:
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """What is kept of one warm-up, and what it was made for."""

    facts: Mapping[str, str]
    files: Mapping[str, KeptFile]
    """By path, relative and with slashes."""

    @property
    def key(self) -> str:
        return key_of(self.facts)

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files.values())

    def to_json(self) -> bytes:
        files = {path: [file.sha256, file.size_bytes] for path, file in sorted(self.files.items())}
        return json.dumps({"facts": dict(self.facts), "files": files}, indent=1).encode()


def key_of(facts: Mapping[str, str]) -> str:
    """The name of what is kept for an engine of these facts: equal ones compile alike."""
    return hashlib.sha256(json.dumps(dict(facts), sort_keys=True).encode()).hexdigest()[:32]


def parse_manifest(text: bytes) -> Manifest:
    """Raises WarmupSpoiled for what was not written by `Manifest.to_json`, and for paths that lead elsewhere."""
    try:
        whole = json.loads(text)
        facts = {str(name): str(value) for name, value in whole["facts"].items()}
        files = {str(path): KeptFile(str(sha256), int(size)) for path, (sha256, size) in whole["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WarmupSpoiled(f"cannot read a warm-up's manifest: {error!r}") from error
    for path in files:
        pure = PurePosixPath(path)
        if pure.is_absolute() or ".." in pure.parts or str(pure) != path or "\0" in path or path == ".":
            raise WarmupSpoiled(f"cannot use a warm-up: its file {path!r} lies outside of its folder")
    if len(files) > MOST_FILES or any(file.size_bytes < 0 for file in files.values()):
        raise WarmupSpoiled(f"cannot use a warm-up of {len(files)} files: at most {MOST_FILES} are taken")
    return Manifest(facts, files)


def facts_of(told: Mapping[str, Any]) -> dict[str, str]:
    """Facts as text, always written alike."""
    return {name: each if isinstance(each, str) else json.dumps(each, sort_keys=True) for name, each in told.items()}
