"""What differs between two revisions: files, tensors by name wherever they lie, and configurations key by key.

Tensors of equal dtype and shape are compared byte by byte, some MiB at a time, until the first that differs; those of
one and the same file are not read at all.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from heliosd.core.manifest import Manifest
from heliosd.core.names import Digest
from heliosd.core.units import MiB
from heliosd.errors import CorruptData
from heliosd.estimation.headers import Tensor
from heliosd.store.content import Content, opened
from heliosd.store.inspection import MAX_JSON_BYTES, header_of
from heliosd.store.recipe import Recipe
from heliosd.store.threads import Threads

PIECE_BYTES = 4 * MiB
CONFIGURATIONS = ("config.json", "adapter_config.json", "generation_config.json", "tokenizer_config.json")

Change = Literal["added", "removed", "changed"]
TensorChange = Literal["added", "removed", "dtype", "shape", "bytes"]


@dataclass(frozen=True, slots=True)
class FileDifference:
    path: str
    change: Change
    before_bytes: int | None
    after_bytes: int | None


@dataclass(frozen=True, slots=True)
class TensorDifference:
    name: str
    """With the folder of its file in front, where there are folders."""
    change: TensorChange
    before: str | None
    """Such as `BF16 [64, 64]`."""
    after: str | None
    size_bytes: int
    """Of what it is now; of a removed one, of what it was."""


@dataclass(frozen=True, slots=True)
class KeyDifference:
    file: str
    key: str
    """Of nested objects, with dots."""
    change: Change
    before: Any
    after: Any


@dataclass(frozen=True, slots=True)
class Difference:
    files: tuple[FileDifference, ...]
    tensors: tuple[TensorDifference, ...]
    keys: tuple[KeyDifference, ...]
    equal_files: int
    equal_tensors: int


@dataclass(frozen=True, slots=True)
class Side:
    manifest: Manifest
    blob: Callable[[Digest], Path]
    recipes: Mapping[Digest, Recipe]
    """Which of its files are kept so. Whoever compares holds the revision meanwhile."""

    def opened(self, digest: Digest) -> AbstractContextManager[Content]:
        return opened(digest, self.recipes.get(digest), self.blob)


@dataclass(frozen=True, slots=True)
class _Place:
    """A tensor, and where its bytes lie."""

    tensor: Tensor
    side: Side
    file: Digest
    begin: int
    """In the file."""

    @property
    def words(self) -> str:
        return f"{self.tensor.dtype} {list(self.tensor.shape)}"


async def difference(
    before: Side, after: Side, threads: Threads, report: Callable[[str, int, int], None]
) -> Difference:
    """Compare two revisions. `report` is told on the event loop: a tensor's name, bytes done, bytes in all.

    Raises CorruptData for a file that cannot be read.
    """
    files = _files(before.manifest, after.manifest)
    keys = await threads.run(_keys, before, after)
    old, new = await threads.run(_places, before), await threads.run(_places, after)
    tensors = [_lone(name, old.get(name), new.get(name)) for name in sorted(old.keys() ^ new.keys())]
    same: list[tuple[str, _Place, _Place]] = []
    equal = 0
    for name in sorted(old.keys() & new.keys()):
        was, now = old[name], new[name]
        if change := _shape_change(was, now):
            tensors.append(TensorDifference(name, change, was.words, now.words, now.tensor.size_bytes))
        elif (was.file, was.begin) == (now.file, now.begin):
            equal += 1
        else:
            same.append((name, was, now))
    total_bytes, done_bytes = sum(now.tensor.size_bytes for _, _, now in same), 0
    for name, was, now in same:
        alike, at = True, 0
        while alike and at < now.tensor.size_bytes:
            report(name, done_bytes + at, total_bytes)
            length = min(PIECE_BYTES, now.tensor.size_bytes - at)
            alike = await threads.run(_equal, was, now, at, length)
            at += length
        done_bytes += now.tensor.size_bytes
        report(name, done_bytes, total_bytes)
        if alike:
            equal += 1
        else:
            tensors.append(TensorDifference(name, "bytes", was.words, now.words, now.tensor.size_bytes))
    tensors.sort(key=lambda each: each.name)
    kept = sum(1 for file in after.manifest.files if (old_file := before.manifest.file(file.path)) and old_file == file)
    return Difference(files, tuple(tensors), keys, kept, equal)


def _files(before: Manifest, after: Manifest) -> tuple[FileDifference, ...]:
    old = {file.path: file for file in before.files}
    new = {file.path: file for file in after.files}
    found = []
    for path in sorted(old.keys() | new.keys()):
        was, now = old.get(path), new.get(path)
        if was != now:
            change: Change = "added" if was is None else "removed" if now is None else "changed"
            sizes = was.size_bytes if was else None, now.size_bytes if now else None
            found.append(FileDifference(path, change, *sizes))
    return tuple(found)


def _places(side: Side) -> dict[str, _Place]:
    found: dict[str, _Place] = {}
    for file in side.manifest.files:
        if not file.path.endswith(".safetensors"):
            continue
        try:
            with side.opened(file.digest) as content:
                header, data_begin = header_of(content, file.path)
        except OSError as error:
            raise CorruptData(f"cannot read {file.path}: {error}") from error
        folder = PurePosixPath(file.path).parent
        for tensor in header.tensors:
            name = tensor.name if str(folder) == "." else f"{folder}/{tensor.name}"
            found.setdefault(name, _Place(tensor, side, file.digest, data_begin + tensor.begin))
    return found


def _lone(name: str, was: _Place | None, now: _Place | None) -> TensorDifference:
    if now is not None:
        return TensorDifference(name, "added", None, now.words, now.tensor.size_bytes)
    assert was is not None, "it is on one of the two sides"
    return TensorDifference(name, "removed", was.words, None, was.tensor.size_bytes)


def _shape_change(was: _Place, now: _Place) -> TensorChange | None:
    if was.tensor.dtype != now.tensor.dtype:
        return "dtype"
    return "shape" if was.tensor.shape != now.tensor.shape else None


def _equal(was: _Place, now: _Place, at: int, length: int) -> bool:
    with was.side.opened(was.file) as old, now.side.opened(now.file) as new:
        return old.read(was.begin + at, length) == new.read(now.begin + at, length)


def _keys(before: Side, after: Side) -> tuple[KeyDifference, ...]:
    found = []
    for name in CONFIGURATIONS:
        old, new = dict(_flat(_json(before, name))), dict(_flat(_json(after, name)))
        for key in sorted(old.keys() | new.keys()):
            if key in old and key in new and old[key] == new[key]:
                continue
            change: Change = "added" if key not in old else "removed" if key not in new else "changed"
            found.append(KeyDifference(name, key, change, old.get(key), new.get(key)))
    return tuple(found)


def _json(side: Side, name: str) -> Mapping[str, Any]:
    """A configuration; nothing when there is none or it is no JSON object: the file itself is told of all the same."""
    file = side.manifest.file(name)
    if file is None or file.size_bytes > MAX_JSON_BYTES:
        return {}
    try:
        with side.opened(file.digest) as opened_file:
            content = json.loads(opened_file.read(0, file.size_bytes))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _flat(content: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value
