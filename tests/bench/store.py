"""The store against the storage: ingest, loading into memory from the disk and from the page cache, and shared bytes.

    python -m tests.bench.store [--json FILE] [--size MiB] [--rounds N] [--folder DIR]

Ways of loading take turns; each run from the disk begins with the file put out of the page cache, and that is checked.
`runai-model-streamer` takes part where it is installed. Up to 4 GiB of disk are used at a time.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from heliosd.core.units import GiB, MiB, format_bytes
from heliosd.engines.loader_measure import STILL_THERE, direct, forget, mapped, read, runai_streamer, timed
from heliosd.engines.surroundings import installed
from heliosd.engines.tensor_files import open_tensor_file
from heliosd.engines.tensor_files_mapped import MappedFile
from tests.bench.report import write_json
from tests.bench.store_dedup import FAMILY, ONE_BYTES, PAIR, PAIR_APART, taken
from tests.bench.store_ingest import ingest_vs_limit
from tests.bench.table import print_table, span
from tests.bench.tensors import write_tensors

TENSOR_BYTES = 16 * MiB
MAPPED_BYTES = 3 * GiB
SMALL_BYTES = 256 * MiB
MAPPED_TENSORS = 256
"""In each file that is mapped, whatever its size."""
DEDUP = {
    "two fine-tunes of one base": PAIR,
    "two fine-tunes, each of other layers": PAIR_APART,
    "the base and two fine-tunes": FAMILY,
}


@dataclass(slots=True)
class Loads:
    size_bytes: int
    cold_s: dict[str, list[float]] = field(default_factory=dict)
    warm_s: dict[str, list[float]] = field(default_factory=dict)


def random_tensors(size_bytes: int) -> Iterator[tuple[str, int, bytes]]:
    for number in range(size_bytes // TENSOR_BYTES):
        yield f"t{number}", TENSOR_BYTES, os.urandom(TENSOR_BYTES)


def load_with_safetensors(path: Path) -> None:
    """`safetensors.torch.load_file` maps; what it gives is looked at once, page by page."""
    import torch
    from safetensors.torch import load_file

    for tensor in load_file(path).values():
        tensor.view(torch.uint8).view(-1)[::4096].max()


def measure_loads(path: Path, rounds: int) -> Loads:
    """For the limit: one stream of large reads into the same buffer, as `dd of=/dev/null`, and past the page cache."""
    ways = {"read": read, "direct": direct, "helios": mapped, "safetensors": load_with_safetensors}
    if "runai_model_streamer" in installed({"runai": "runai_model_streamer"}):
        ways["runai"] = runai_streamer
    for way in ways.values():
        way(path)  # imports
    found = Loads(path.stat().st_size)
    for number in range(rounds):
        order = list(ways) if number % 2 else list(reversed(ways))
        for name in order:
            if forget(path) > STILL_THERE:
                raise RuntimeError(f"cannot measure {path} cold: it stays in the page cache")
            found.cold_s.setdefault(name, []).append(timed(ways[name], path))
            found.warm_s.setdefault(name, []).append(timed(ways[name], path))
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
    return found


def views(path: Path) -> None:
    """Open, check, map, and a view of each tensor: what stands between a warm file and its use."""
    mapped_file = MappedFile(open_tensor_file(path))
    for tensor in mapped_file.file.header.tensors:
        mapped_file.view(tensor.begin, tensor.end)


def measure_maps(folder: Path, rounds: int) -> dict[int, tuple[float, float]]:
    """By size: seconds until a warm file's tensors can be used, and with all of its pages put into the page table."""
    found = {}
    for size_bytes in (SMALL_BYTES, MAPPED_BYTES):
        path = folder / f"map{size_bytes}.safetensors"
        block = os.urandom(TENSOR_BYTES)
        write_tensors(path, [(f"t{number}", size_bytes // MAPPED_TENSORS, block) for number in range(MAPPED_TENSORS)])
        read(path)
        runs = [(timed(views, path), timed(mapped, path)) for _ in range(rounds)]
        found[size_bytes] = median(run[0] for run in runs), median(run[1] for run in runs)
        path.unlink()
    return found


def limit_s(loads: Loads) -> float:
    """The faster of the two ways to read and do nothing else."""
    return min(median(loads.cold_s["read"]), median(loads.cold_s["direct"]))


def show(loads: Loads, maps: dict[int, tuple[float, float]]) -> None:
    def speed(seconds: list[float]) -> str:
        return f"{format_bytes(int(loads.size_bytes / median(seconds)))}/s"

    limit = limit_s(loads)
    rows = [
        (
            {"read": "plain read", "direct": "past the page cache"}.get(name, name),
            speed(cold),
            f"{limit / median(cold):.2f}",
            f"{span(min(cold))} - {span(max(cold))}",
            speed(loads.warm_s[name]),
            str(len(cold)),
        )
        for name, cold in loads.cold_s.items()
    ]
    print_table(
        f"loading {format_bytes(loads.size_bytes)} of safetensors into host memory",
        ("", "cold", "of the limit", "cold, min - max", "warm", "runs"),
        rows,
    )
    print_table(
        "mapping a file that is in the page cache",
        ("", "tensors usable after", "all pages present after"),
        [(format_bytes(size), span(usable), span(present)) for size, (usable, present) in maps.items()],
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.store", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the result as one JSON object")
    parser.add_argument("--size", metavar="MiB", type=int, default=768, help="of the file that is loaded cold")
    parser.add_argument("--rounds", metavar="N", type=int, default=7)
    parser.add_argument("--folder", metavar="DIR", type=Path, help="on the storage to measure (default: temporary)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="helios-bench-", dir=given.folder) as temporary:
        folder = Path(temporary)
        path = folder / "model.safetensors"
        write_tensors(path, random_tensors(given.size * MiB))
        loads = measure_loads(path, given.rounds)
        path.unlink()
        maps = measure_maps(folder, given.rounds)
        show(loads, maps)
        (folder / "ingest").mkdir()
        ingest = ingest_vs_limit(folder / "ingest")
        shared = {
            name: asyncio.run(taken(folder / f"dedup{number}", models))
            for number, (name, models) in enumerate(DEDUP.items())
        }
    print_table(
        f"models of {format_bytes(ONE_BYTES)} that share tensors, 2 of 30 layers changed, on the disk in sizes of one",
        ("", "taken", "every distinct tensor once"),
        [(name, f"{each.ratio:.3f}", f"{each.bound:.3f}") for name, each in shared.items()],
    )
    found = {
        "ingest_vs_limit": round(ingest, 3),
        "cold_load_vs_limit": round(limit_s(loads) / median(loads.cold_s["helios"]), 3),
        "warm_map_ms": round(maps[MAPPED_BYTES][0] * 1000, 2),
        "dedup_ratio": round(shared["the base and two fine-tunes"].ratio, 3),
        "dedup_pair_ratio": round(shared["two fine-tunes of one base"].ratio, 3),
    }
    print(json.dumps(found))
    write_json(found, given.json)


if __name__ == "__main__":
    main()
