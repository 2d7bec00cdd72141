"""How fast this storage can be loaded from: `python -m heliosd.engines.loader_measure FILE [--cuda]`.

Prints a line of JSON for each way. A process of its own, because page faults hold Python's lock, and because streamers
bring libraries. The ways take turns, each from the disk and then from the page cache; what counts is the median.
"""

import argparse
import ctypes
import json
import mmap
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

from heliosd.core.units import MiB
from heliosd.engines.loader_formats import HELIOS, STREAMERS
from heliosd.engines.surroundings import installed
from heliosd.engines.tensor_files import open_regular, open_tensor_file
from heliosd.engines.tensor_files_mapped import MappedFile

READ = "read"
DIRECT = "direct"
DIRECT_THREADS = 4
DIRECT_BYTES = 8 * MiB
READ_BYTES = 1 * MiB
STILL_THERE = 0.02
"""Of a file that was put out of the page cache: more than this means that somebody holds it there."""

Way = Callable[[Path], None]
"""Brings all bytes of a safetensors file to where they can be used."""


def read(path: Path) -> None:
    buffer = bytearray(READ_BYTES)
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def mapped(path: Path) -> None:
    file = MappedFile(open_tensor_file(path))
    file.fetch(0, file.file.header.data_bytes)


def direct(path: Path) -> None:
    """Past the page cache, by several threads. Raises OSError where the file system cannot."""
    descriptor = open_regular(path, os.O_DIRECT)
    own = threading.local()

    def block(offset: int) -> None:
        if not hasattr(own, "buffer"):
            own.buffer = mmap.mmap(-1, DIRECT_BYTES)
        os.preadv(descriptor, [own.buffer], offset)

    try:
        with ThreadPoolExecutor(DIRECT_THREADS) as pool:
            list(pool.map(block, range(0, path.stat().st_size, DIRECT_BYTES)))
    finally:
        os.close(descriptor)


def staged(path: Path) -> None:
    import torch

    from heliosd.engines.loader import DTYPES
    from heliosd.engines.loader_staging import Cuda, Ring

    file = open_tensor_file(path)
    with Ring(Cuda()) as ring:
        for _ in ring.tensors(file, file.header.tensors, DTYPES):
            pass
    torch.cuda.synchronize()


def runai_streamer(path: Path) -> None:
    """Into host memory, from where vLLM copies to the device."""
    from runai_model_streamer import SafetensorsStreamer

    with SafetensorsStreamer() as streamer:
        streamer.stream_file(str(path))
        for _ in streamer.get_tensors():
            pass


def by_vllm(name: str) -> Way:
    """A streamer as vLLM drives it; both that need this load onto a GPU."""

    def load(path: Path) -> None:
        import torch
        from vllm.model_executor.model_loader import weight_utils

        for _ in getattr(weight_utils, f"{name}_weights_iterator")([str(path)], False):
            pass
        torch.cuda.synchronize()

    return load


def ways(cuda: bool) -> dict[str, Way]:
    """What can be measured here, by name: load formats, and plain reads for comparison."""
    found: dict[str, Way] = {READ: read, HELIOS: staged if cuda else mapped, DIRECT: direct}
    there = installed(STREAMERS)
    if STREAMERS["runai_streamer"] in there:
        found["runai_streamer"] = runai_streamer
    for name in ("fastsafetensors", "instanttensor"):
        if cuda and STREAMERS[name] in there:
            found[name] = by_vllm(name)
    return found


def forget(path: Path) -> float:
    """Put a file out of the page cache; return which part of it is still there, because somebody has it mapped."""
    descriptor = open_regular(path)
    try:
        os.fdatasync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        return _cached_ratio(descriptor)
    finally:
        os.close(descriptor)


def _cached_ratio(descriptor: int) -> float:
    size_bytes = os.fstat(descriptor).st_size
    memory = mmap.mmap(descriptor, size_bytes, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    pages = -(-size_bytes // mmap.PAGESIZE)
    there = (ctypes.c_ubyte * pages)()
    first = ctypes.c_char.from_buffer(memory)
    failed = ctypes.CDLL(None, use_errno=True).mincore(
        ctypes.c_void_p(ctypes.addressof(first)), ctypes.c_size_t(size_bytes), there
    )
    if failed:
        raise OSError(ctypes.get_errno(), "mincore")
    return sum(page & 1 for page in bytes(there)) / pages


def timed(way: Way, path: Path) -> float:
    began = time.perf_counter()
    way(path)
    return time.perf_counter() - began


def measure(path: Path, cuda: bool, rounds: int) -> list[dict[str, object]]:
    """Bytes per second of each way, cold and warm; `note` says what went wrong with one."""
    size_bytes = path.stat().st_size
    cold: dict[str, list[float]] = {}
    warm: dict[str, list[float]] = {}
    notes: dict[str, str] = {}
    chosen = ways(cuda)
    for _ in range(rounds):
        for name, way in chosen.items():
            if name in notes:
                continue
            try:
                left = forget(path)
                cold.setdefault(name, []).append(timed(way, path))
                warm.setdefault(name, []).append(timed(way, path))
            except Exception as error:  # whatever a streamer throws is the finding
                notes[name] = f"{type(error).__name__}: {error}"[:300]
                continue
            if left > STILL_THERE:
                notes[name] = f"{left:.0%} of the file stayed in memory, a replica has it mapped: not measured cold"
    return [
        {
            "method": name,
            "cold_bytes_per_s": size_bytes / median(cold[name]) if name in cold and name not in notes else None,
            "warm_bytes_per_s": size_bytes / median(warm[name]) if name in warm else None,
            "note": notes.get(name),
        }
        for name in chosen
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m heliosd.engines.loader_measure")
    parser.add_argument("file", type=Path)
    parser.add_argument("--cuda", action="store_true", help="onto the GPU")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    for line in measure(given.file, given.cuda, given.rounds):
        sys.stdout.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
