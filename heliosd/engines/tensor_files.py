"""A safetensors file as it lies in the store: whole, or as a recipe of pieces of other files. Checked, then believed.

A revision's directory has either `X.safetensors` or `X.safetensors.recipe`, a small JSON file that says of which pieces
of which files the bytes are made, one after the other. Opening reads the header and a few sizes, never the data; what
is truncated, oversized or hostile raises CorruptData. Knows neither torch nor vLLM.
"""

import json
import os
import stat
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

from heliosd.core.units import MiB, format_bytes
from heliosd.errors import CorruptData
from heliosd.estimation.headers import LENGTH_BYTES, Header, header_length, parse_header

SUFFIX = ".safetensors"
RECIPE_SUFFIX = ".recipe"
MAX_RECIPE_BYTES = 64 * MiB
MAX_PARTS = 400_000


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a file: `size_bytes` of it from `offset` on."""

    path: Path
    offset: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class TensorFile:
    path: Path
    """As the index names it; with a recipe nothing need lie there."""
    size_bytes: int
    parts: tuple[Part, ...]
    """One after the other they are the file."""
    header: Header
    data_at: int
    """Where in the file the data begins, which the header counts from."""
    starts: tuple[int, ...]
    """Where in the file each part begins."""

    def pieces(self, begin: int, end: int) -> Iterator[Part]:
        """Where the bytes from `begin` to `end` of the file lie."""
        number = bisect_right(self.starts, begin) - 1
        while begin < end:
            part, skipped = self.parts[number], begin - self.starts[number]
            size_bytes = min(end - begin, part.size_bytes - skipped)
            yield Part(part.path, part.offset + skipped, size_bytes)
            begin += size_bytes
            number += 1


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a directory, by name, those that a recipe stands for included."""
    whole = set(folder.glob(f"*{SUFFIX}"))
    return sorted(whole | {path.with_suffix("") for path in recipes_in(folder)})


def recipes_in(folder: Path) -> list[Path]:
    """Recipes that count: where the file itself lies beside its recipe, the file counts."""
    return [path for path in sorted(folder.glob(f"*{SUFFIX}{RECIPE_SUFFIX}")) if not path.with_suffix("").exists()]


def open_tensor_file(path: Path) -> TensorFile:
    """Read and check the header, and a recipe's parts. Blocks. Raises CorruptData, naming the file."""
    try:
        parts = _parts(path)
        size_bytes = sum(part.size_bytes for part in parts)
        if size_bytes < LENGTH_BYTES:
            raise CorruptData("", cause=f"{size_bytes} bytes are too few for the length of a header")
        starts = tuple(accumulate((part.size_bytes for part in parts[:-1]), initial=0))
        bare = TensorFile(path, size_bytes, parts, Header((), {}), 0, starts)
        needed = header_length(read(bare, 0, LENGTH_BYTES), size_bytes)
        header = parse_header(read(bare, 0, needed), size_bytes)
    except CorruptData as error:
        raise CorruptData(
            f"cannot load {path.name}: {error.cause}; remove the model and add it again", cause=error.cause
        ) from error
    except OSError as error:
        raise CorruptData(f"cannot load {path.name}: {error}", cause=str(error)) from error
    return replace(bare, header=header, data_at=needed)


def read(file: TensorFile, begin: int, end: int) -> bytes:
    """The bytes from `begin` to `end` of the file. Raises CorruptData when a part is shorter than it was."""
    read_so_far = bytearray()
    for piece in file.pieces(begin, end):
        descriptor = open_regular(piece.path)
        try:
            _add(read_so_far, descriptor, piece)
        finally:
            os.close(descriptor)
    return bytes(read_so_far)


def _add(read_so_far: bytearray, descriptor: int, piece: Part) -> None:
    done = 0
    while done < piece.size_bytes:
        got = os.pread(descriptor, piece.size_bytes - done, piece.offset + done)
        if not got:
            raise _wrong(f"{piece.path.name} ends before byte {piece.offset + piece.size_bytes}")
        read_so_far += got
        done += len(got)


def open_regular(path: Path, flags: int = 0) -> int:
    """A descriptor of a regular file to read. A pipe or a device would block or never end: refused."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | flags)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _wrong(f"{path.name} is no regular file")
    return descriptor


def _parts(path: Path) -> tuple[Part, ...]:
    recipe = path.with_name(path.name + RECIPE_SUFFIX)
    if path.exists() or not recipe.is_file():
        return (Part(path, 0, _size(path)),)
    if recipe.is_symlink():
        # The store writes recipes as files; a link leads to a blob, which is what somebody else has written.
        raise _wrong("its recipe is a link, and the store did not write it")
    return _recipe_parts(recipe)


def _size(path: Path) -> int:
    descriptor = open_regular(path)
    try:
        return os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)


def _recipe_parts(recipe: Path) -> tuple[Part, ...]:
    if (size_bytes := recipe.stat().st_size) > MAX_RECIPE_BYTES:
        raise _wrong(f"its recipe has {format_bytes(size_bytes)}, the limit is {format_bytes(MAX_RECIPE_BYTES)}")
    try:
        said = json.loads(recipe.read_bytes())
    except (ValueError, RecursionError) as error:
        raise _wrong(f"its recipe is no JSON: {error}") from error
    match said:
        case {"format": 1, "size_bytes": int(total), "sha256": str(), "parts": [*listed]}:
            pass
        case _:
            raise _wrong("its recipe does not have format 1 with size_bytes, sha256 and parts")
    if len(listed) > MAX_PARTS:
        raise _wrong(f"its recipe lists {len(listed)} parts, the limit is {MAX_PARTS}")
    sizes: dict[Path, int] = {}
    parts = tuple(part for entry in listed if (part := _part(recipe.parent, entry, sizes)).size_bytes)
    found = sum(part.size_bytes for part in parts)
    if found != total:
        raise _wrong(f"its recipe's parts are {found} bytes together, not {total}")
    return parts


def _part(folder: Path, entry: Any, sizes: dict[Path, int]) -> Part:
    match entry:
        case {"path": str(text), "offset": int(offset), "size_bytes": int(size_bytes)}:
            pass
        case _:
            raise _wrong("a part of its recipe does not have path, offset and size_bytes")
    if not _is_path(text) or Path(text).is_absolute():
        raise _wrong(f"a part of its recipe has the impossible path {text[:80]!r}")
    path = folder / text
    if path not in sizes:
        sizes[path] = _size(path)
    if isinstance(offset, bool) or offset < 0 or size_bytes < 0 or offset + size_bytes > sizes[path]:
        raise _wrong(
            f"a part of its recipe, {size_bytes} bytes from {offset} on, does not lie in {text[-80:]} "
            f"with its {sizes[path]} bytes"
        )
    return Part(path, offset, size_bytes)


def _is_path(text: str) -> bool:
    try:
        return bool(text) and b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False


def _wrong(why: str) -> CorruptData:
    return CorruptData(f"cannot load tensors: {why}", cause=why)
