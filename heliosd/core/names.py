"""What things are called: models, revisions, replicas, devices, tickets."""

import re
from dataclasses import dataclass
from typing import NewType

Ticket = NewType("Ticket", str)
"""A waiting request's number; also the request id in logs, journal and the engine."""
ReplicaId = NewType("ReplicaId", str)
DeviceId = NewType("DeviceId", str)
"""Stable across restarts: a GPU's or MIG slice's UUID, `host`, or the name in a simulation file."""
Digest = NewType("Digest", str)
"""64 lower-case hexadecimal digits: a sha256."""
PeerName = NewType("PeerName", str)

_SEGMENT = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_NAME = re.compile(rf"(?:{_SEGMENT}/)?{_SEGMENT}")
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}")
_DIGEST = re.compile(r"[0-9a-f]{64}")

DEFAULT_REVISION = "main"


@dataclass(frozen=True, slots=True, order=True)
class ModelRef:
    """What a user types to mean a model: `org/name`, `name` or either with `@revision`."""

    name: str
    revision: str = DEFAULT_REVISION

    def __str__(self) -> str:
        return self.name if self.revision == DEFAULT_REVISION else f"{self.name}@{self.revision}"


def parse_ref(text: str) -> ModelRef:
    """Read `org/name@revision`. Raises ValueError, with what is allowed, when it is no ref."""
    name, at, revision = text.partition("@")
    if not _NAME.fullmatch(name) or ".." in name:
        raise ValueError(
            f"cannot read {text!r} as a model: write org/name, name or org/name@revision "
            "with letters, digits, '.', '_' and '-'"
        )
    if at and (not _REVISION.fullmatch(revision) or ".." in revision or "//" in revision):
        raise ValueError(f"cannot read {revision!r} as a revision of {name}: use a branch, tag or commit")
    return ModelRef(name, revision if at else DEFAULT_REVISION)


def parse_digest(text: str) -> Digest:
    """Accept a sha256 in hexadecimal. Raises ValueError otherwise."""
    if not _DIGEST.fullmatch(text):
        raise ValueError(f"cannot read {text!r} as a sha256: 64 lower-case hexadecimal digits are expected")
    return Digest(text)
