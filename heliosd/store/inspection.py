"""Reads a revision's own words out of its blobs: every safetensors header, the index, the configuration.

Used on the way in, where anything absurd is refused, and later to tell a model's profile. Synchronous; call in a
thread. A header takes some 15 ms per MiB, most of it inside the JSON reader, and is capped at 16 MiB.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from heliosd import __version__
from heliosd.core.manifest import Manifest
from heliosd.core.names import Digest
from heliosd.core.profile import ModelProfile
from heliosd.core.units import MiB
from heliosd.errors import CorruptData
from heliosd.estimation.headers import LENGTH_BYTES, Header, header_length, parse_header
from heliosd.estimation.known import Known, known_from
from heliosd.estimation.profile import read_profile
from heliosd.store.adapter_config import CONFIG, AdapterConfig, read_adapter_config
from heliosd.store.content import Content, opened
from heliosd.store.recipe import Recipe
from heliosd.store.selection import PICKLES

MAX_JSON_BYTES = 64 * MiB
_INDEX = "model.safetensors.index.json"


INSPECTOR = f"{__version__}/1"
"""Whose facts these are. Facts of another are read anew: count up when a profile comes to say something else."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is worth remembering of every revision: a few hundred bytes."""

    profile: ModelProfile
    adapter: AdapterConfig | None = None
    """None: a whole model."""

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Raises ValueError or TypeError for what `to_json` did not write."""
        found = json.loads(text)
        adapter = found["adapter"]
        return cls(ModelProfile(**found["profile"]), AdapterConfig(**adapter) if adapter else None)


@dataclass(frozen=True, slots=True)
class Inspected:
    """What a revision's own files say of it."""

    facts: Facts
    known: Known


def inspect(
    manifest: Manifest, blob: Callable[[Digest], Path], recipes: Mapping[Digest, Recipe] | None = None
) -> Inspected:
    """Check a revision whose blobs are here and tell its profile, and what estimates rest on.

    `recipes`: which of its weights are kept so.

    Raises CorruptData, naming the file, for a bad header, an unreadable configuration or a shard that the index
    names and the revision lacks, and for an adapter that is no LoRA.
    """
    paths = {file.path: blob(file.digest) for file in manifest.files}
    adapter = None
    if CONFIG in paths and "config.json" not in paths:
        adapter = read_adapter_config(_json(paths, CONFIG))
    config = _json(paths, "config.json") if adapter is None else {}
    if _INDEX in paths:
        _check_index(_json(paths, _INDEX), manifest)
    kept = recipes or {}
    headers = [
        _header(file.digest, kept.get(file.digest), blob, file.path)
        for file in manifest.files
        if file.path.endswith(".safetensors")
    ]
    pickles = [file for file in manifest.files if file.path.endswith(PICKLES)]
    profile = read_profile(config, headers, pickled=bool(pickles))
    if pickles and not headers:
        # Pickles are not opened: their files' sizes stand for their tensors'.
        profile = replace(profile, weights_bytes=sum(file.size_bytes for file in pickles))
    return Inspected(Facts(profile, adapter), Known() if adapter else known_from(config, headers))


def read_header(path: Path, name: str) -> Header:
    """The header of the safetensors file at `path`. Raises CorruptData, naming it `name`."""
    return _header(Digest(name), None, lambda _: path, name)


def _header(digest: Digest, recipe: Recipe | None, blob: Callable[[Digest], Path], name: str) -> Header:
    try:
        with opened(digest, recipe, blob) as content:
            return header_of(content, name)[0]
    except OSError as error:
        raise CorruptData(f"cannot read {name}: {error}") from error


def header_of(content: Content, name: str) -> tuple[Header, int]:
    """The header of an open safetensors file, and how many bytes it takes with its length before it.

    Raises CorruptData, naming the file `name`.
    """
    try:
        length = header_length(content.read(0, LENGTH_BYTES), content.size_bytes)
        return parse_header(content.read(0, length), content.size_bytes), length
    except CorruptData as error:
        raise CorruptData(f"cannot accept {name}: in its header, {error.cause}", cause=error.cause) from error


def _json(paths: dict[str, Path], name: str) -> dict[str, Any]:
    try:
        if paths[name].stat().st_size > MAX_JSON_BYTES:
            raise ValueError(f"it is larger than {MAX_JSON_BYTES} bytes")
        content = json.loads(paths[name].read_bytes())
    except (OSError, ValueError, KeyError, RecursionError) as error:
        raise CorruptData(f"cannot read {name}: {error}") from error
    if not isinstance(content, dict):
        raise CorruptData(f"cannot read {name}: it is no JSON object")
    return content


def _check_index(index: dict[str, Any], manifest: Manifest) -> None:
    named = index.get("weight_map")
    shards = set(named.values()) if isinstance(named, dict) else set()
    missing = sorted(str(shard) for shard in shards if manifest.file(str(shard)) is None)
    if missing:
        raise CorruptData(
            f"cannot accept the model: its index names {len(shards)} files of weights and {len(missing)} of them "
            f"are missing, such as {missing[0]}"
        )
