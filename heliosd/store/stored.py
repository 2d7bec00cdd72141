"""The values that go into the store and come out of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal

from heliosd.core.manifest import Manifest
from heliosd.core.names import DEFAULT_REVISION, Digest, ModelRef, parse_ref
from heliosd.core.profile import ModelProfile
from heliosd.errors import BadRequest

SourceName = Literal["hub", "directory", "gguf"]


@dataclass(frozen=True, slots=True)
class Addition:
    """A wish to bring a model in."""

    source: SourceName
    location: str
    """A hub repository, or an absolute path on this machine."""
    ref: ModelRef | None = None
    """None: named after the repository, the folder or the file."""
    revision: str | None = None
    """Hub only: branch, tag or commit."""
    alias: str | None = None
    allow_pickle: bool = False
    base: ModelRef | None = None
    """Adapters only: a model of the store, or an alias of one; None: what the adapter's configuration names."""


@dataclass(frozen=True, slots=True)
class Record:
    """One ref as the catalog has it."""

    ref: ModelRef
    revision: Digest
    manifest: Manifest
    origin: Mapping[str, Any]
    """`kind`, `location`, for the hub also `commit`; `allow_pickle` if pickles were allowed."""
    created_at: float
    aliases: tuple[str, ...]
    base: ModelRef | None = None
    """Of an adapter: the model it belongs to, which the catalog has too."""
    of: ModelRef | None = None
    """As `StoredModel.of`."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """What makes a stored model an adapter: it changes another and is nothing without it."""

    base: ModelRef
    rank: int
    """The highest of its matrices; 0 when its configuration cannot be read any more."""


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A ref, what it means now, and the facts read from its files."""

    ref: ModelRef
    revision: Digest
    manifest: Manifest
    source: str
    """For people: `hub org/name at 1a2b3c4d`, `directory /models/x`, `gguf /models/x.gguf`."""
    created_at: float
    """Seconds since the epoch."""
    aliases: tuple[str, ...]
    profile: ModelProfile
    adapter: Adapter | None = None
    """None: a whole model."""
    of: ModelRef | None = None
    """Of a revision that was asked for by its digest and that its ref does not mean now: that ref."""


@dataclass(frozen=True, slots=True)
class PastRevision:
    """A revision that a ref means or has meant, and that the store still has."""

    ref: ModelRef
    revision: Digest
    at: float
    """Seconds since the epoch: when the ref last began to mean it."""
    why: str
    """`added`, or how else that came about, for people."""
    source: str
    current: bool
    """Whether the ref means it now."""
    size_bytes: int
    """Of its files, each content once."""
    own_bytes: int
    """Of those that no other revision in the store has."""
    base: ModelRef | None = None
    """Of an adapter, the model it was for."""


def describe_origin(origin: Mapping[str, Any]) -> str:
    """Say for a person where a revision came from."""
    text = f"{origin.get('kind', 'unknown')} {origin.get('location', '')}".rstrip()
    commit, peer = origin.get("commit"), origin.get("peer")
    text += f" at {str(commit)[:12]}" if commit else ""
    return f"{text}, from node {peer}" if peer else text


def default_ref(wanted: Addition) -> ModelRef:
    """What a model is called when nobody says: its repository, its folder, its GGUF file without the ending.

    Raises BadRequest when that is no name for a model.
    """
    path = PurePosixPath(wanted.location)
    match wanted.source:
        case "hub":
            name = wanted.location if wanted.revision is None else f"{wanted.location}@{wanted.revision}"
        case "directory":
            name = path.name
        case "gguf":
            name = path.name.removesuffix(".gguf")
    try:
        ref = parse_ref(name)
    except ValueError as error:
        raise BadRequest(f"cannot name the model after {wanted.location}: {error}; give it a name") from error
    return ModelRef(ref.name, wanted.revision or DEFAULT_REVISION) if wanted.source == "hub" else ref


def checked_alias(alias: str) -> str:
    """Return `alias` if it can be one: the name of a model, without a revision. Raises BadRequest otherwise."""
    try:
        ref = parse_ref(alias)
    except ValueError as error:
        raise BadRequest(str(error)) from error
    if "@" in alias:
        raise BadRequest(f"cannot use {alias} as an alias: leave out the revision {ref.revision}")
    return alias
