"""What a safetensors header says, checked completely before anyone believes it. Pure: bytes in, a `Header` out.

The file is untrusted: the header is capped, every tensor must lie where the next one expects it, and nothing but
`CorruptData` is ever raised. The data behind the header is never looked at.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from heliosd.core.units import MiB, format_bytes
from heliosd.errors import CorruptData

LENGTH_BYTES = 8
MAX_HEADER_BYTES = 16 * MiB
"""A legal header of 67 MB takes a reader 8.5 s and 1 GB; the largest published ones are under 2 MiB."""
MAX_TENSORS = 200_000
MAX_DIMENSIONS = 32

BITS: Mapping[str, int] = {
    "BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64,
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "F16": 16, "BF16": 16, "F32": 32, "F64": 64, "C64": 64,
}  # fmt: skip
"""Bits of one element, by the dtype's name in the file."""


@dataclass(frozen=True, slots=True)
class Tensor:
    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    """Bytes from the start of the data, which begins after the header."""
    end: int

    @property
    def elements(self) -> int:
        count = 1
        for side in self.shape:
            count *= side
        return count

    @property
    def size_bytes(self) -> int:
        return self.end - self.begin


@dataclass(frozen=True, slots=True)
class Header:
    tensors: tuple[Tensor, ...]
    """In the order of their offsets; together they cover the data without a gap."""
    metadata: Mapping[str, str]

    @property
    def data_bytes(self) -> int:
        return self.tensors[-1].end if self.tensors else 0

    @property
    def elements(self) -> int:
        return sum(tensor.elements for tensor in self.tensors)

    @property
    def bytes_by_dtype(self) -> dict[str, int]:
        totals: dict[str, int] = {}
        for tensor in self.tensors:
            totals[tensor.dtype] = totals.get(tensor.dtype, 0) + tensor.size_bytes
        return totals


def header_length(first_bytes: bytes, file_size_bytes: int) -> int:
    """How many bytes from the file's start `parse_header` needs. Raises CorruptData when that is absurd."""
    if len(first_bytes) < LENGTH_BYTES or file_size_bytes < LENGTH_BYTES:
        raise _corrupt(f"{file_size_bytes} bytes are too few for the length of a header")
    length = int.from_bytes(first_bytes[:LENGTH_BYTES], "little")
    if length > MAX_HEADER_BYTES:
        raise _corrupt(f"it claims {format_bytes(length)}, the limit is {format_bytes(MAX_HEADER_BYTES)}")
    if LENGTH_BYTES + length > file_size_bytes:
        raise _corrupt(f"it claims {length} bytes after the first 8 of a file of {file_size_bytes}")
    return LENGTH_BYTES + length


def parse_header(first_bytes: bytes, file_size_bytes: int) -> Header:
    """Read the header of a safetensors file of `file_size_bytes` from its first `header_length` bytes (or more).

    Raises CorruptData for anything a correct writer would not have written.
    """
    needed = header_length(first_bytes, file_size_bytes)
    if len(first_bytes) < needed:
        raise _corrupt(f"{needed} bytes are needed, {len(first_bytes)} were given")
    entries = _json(first_bytes[LENGTH_BYTES:needed])
    metadata = entries.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _corrupt("__metadata__ is no map of texts")
    if len(entries) > MAX_TENSORS:
        raise _corrupt(f"it lists {len(entries)} tensors, the limit is {MAX_TENSORS}")
    tensors = sorted(
        (_tensor(name, entry) for name, entry in entries.items()), key=lambda tensor: (tensor.begin, tensor.end)
    )
    _check_cover(tensors, file_size_bytes - needed)
    return Header(tuple(tensors), metadata)


def _corrupt(why: str) -> CorruptData:
    return CorruptData(f"cannot accept the safetensors header: {why}", cause=why)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _corrupt("a key is given twice")
    return found


def _json(text: bytes) -> dict[str, Any]:
    if not text.startswith(b"{"):
        raise _corrupt("it is no JSON object")
    try:
        entries = json.loads(text.decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise _corrupt(f"it is no JSON: {error}") from error
    if not isinstance(entries, dict):
        raise _corrupt("it is no JSON object")
    return entries


def _whole(value: object) -> bool:
    """A count or offset that a 64-bit reader would take; JSON's `true` is no number."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _tensor(name: str, entry: Any) -> Tensor:
    match entry:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [begin, end]} if len(entry) == 3:
            pass
        case _:
            raise _corrupt(f"{name[:80]!r} does not have exactly dtype, shape and data_offsets")
    if dtype not in BITS:
        raise _corrupt(f"{name[:80]!r} has the unknown dtype {dtype[:20]!r}")
    if len(shape) > MAX_DIMENSIONS or not all(map(_whole, shape)):
        raise _corrupt(f"{name[:80]!r} has an impossible shape")
    if not _whole(begin) or not _whole(end) or end < begin:
        raise _corrupt(f"{name[:80]!r} has impossible offsets")
    tensor = Tensor(name, dtype, tuple(shape), begin, end)
    bits = tensor.elements * BITS[dtype]
    if bits != tensor.size_bytes * 8:
        raise _corrupt(f"{name[:80]!r} is {dtype} {shape[:8]}, which is {bits} bits, but has {tensor.size_bytes} bytes")
    return tensor


def _check_cover(tensors: list[Tensor], data_bytes: int) -> None:
    position = 0
    for tensor in tensors:
        if tensor.begin != position:
            fault = "overlaps the one before" if tensor.begin < position else "leaves a hole before it"
            raise _corrupt(f"{tensor.name[:80]!r} {fault}: it begins at {tensor.begin}, not at {position}")
        position = tensor.end
    if position != data_bytes:
        raise _corrupt(f"the tensors end at {position}, the file's data at {data_bytes}")
