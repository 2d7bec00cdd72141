"""What this process holds of mapped weights: pages that other replicas of the model hold, too.

They are told apart from the process's own memory, whose size would otherwise seem to depend on how many replicas run.
"""

import ctypes
import mmap
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

_maps: list[weakref.ref[mmap.mmap]] = []
"""Of files that weights of this process were pointed at."""


def range_of(memory: mmap.mmap) -> tuple[int, int]:
    """The first address of a mapping, and the one after its last."""
    first = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    return first, first + len(memory)


def lies_in(memory: mmap.mmap, address: int, size_bytes: int) -> bool:
    first, last = range_of(memory)
    return first <= address and address + size_bytes <= last


def remember(tensors: Iterable[Any], maps: Iterable[mmap.mmap]) -> None:
    """Note which of these mappings the tensors, which parameters point at, lie in."""
    addresses = [tensor.data_ptr() for tensor in tensors]
    for memory in maps:
        first, last = range_of(memory)
        if any(first <= address < last for address in addresses):
            _maps.append(weakref.ref(memory))


def held(parameters: Iterable[Any], smaps: Path = Path("/proc/self/smaps")) -> dict[str, int]:
    """Bytes of the parameters that point at mappings; of these mappings, what is in the page table, and what of that
    nobody else has there. Takes milliseconds, and nothing where no weights are mapped."""
    ranges = [range_of(memory) for reference in _maps if (memory := reference()) is not None]
    found = {"mapped_bytes": 0, "mapped_resident_bytes": 0, "mapped_own_bytes": 0}
    if not ranges:
        return found
    pointed_at = {each.data_ptr(): each.nbytes for each in parameters if each.device.type == "cpu"}
    for begin, size_bytes in pointed_at.items():
        if any(first <= begin < last for first, last in ranges):
            found["mapped_bytes"] += size_bytes
    for begin, end, numbers in _mappings(smaps):
        if any(first <= begin and end <= last + mmap.PAGESIZE for first, last in ranges):
            found["mapped_resident_bytes"] += numbers.get("Rss", 0)
            found["mapped_own_bytes"] += numbers.get("Private_Clean", 0) + numbers.get("Private_Dirty", 0)
    return found


def _mappings(smaps: Path) -> Iterator[tuple[int, int, dict[str, int]]]:
    begin = end = 0
    numbers: dict[str, int] = {}
    for line in smaps.read_text().splitlines():
        words = line.split()
        if not words[0].endswith(":"):
            if end:
                yield begin, end, numbers
            begin, end = (int(side, 16) for side in words[0].split("-"))
            numbers = {}
        elif words[-1] == "kB":
            numbers[words[0].rstrip(":")] = int(words[1]) * 1024
    if end:
        yield begin, end, numbers
