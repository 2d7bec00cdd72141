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
_BEGINNING = re.compile(r"[0-9a-f]{8,64}")

DEFAULT_REVISION = "main"
SHOWN_DIGITS = 12
"""Of a revision's digest, where people read it and in the refs of kept revisions."""


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


def digest_beginning(ref: ModelRef) -> str | None:
    """What may be the beginning of a revision's digest in `org/name@1a2b3c4d`: at least 8 hexadecimal digits.

    None for another label. A branch or commit that looks so is found first, by its own name.
    """
    return ref.revision if _BEGINNING.fullmatch(ref.revision) else None


def kept_ref(ref: ModelRef, revision: Digest) -> ModelRef:
    """What a revision is called that `ref` has meant: `org/name@1a2b3c4d5e6f`."""
    return ModelRef(ref.name, revision[:SHOWN_DIGITS])


def parse_digest(text: str) -> Digest:
    """Accept a sha256 in hexadecimal. Raises ValueError otherwise."""
    if not _DIGEST.fullmatch(text):
        raise ValueError(f"cannot read {text!r} as a sha256: 64 lower-case hexadecimal digits are expected")
    return Digest(text)
