"""What an engine really holds, from what its workers report and the kernel knows.

On every device: *weights* are the bytes of the model's parameters and buffers as they lie in memory, with the room
kept for adapters (packed copies that a kernel library makes for itself are overhead), and the *KV cache* is the bytes
of the cache's tensors, which is the block count times the page size. *Overhead* is the rest: on the host the
proportional set size of the engine's processes (memory shared with the zygote counts by share, so it shrinks as more
engines start) minus the two; on a GPU what the driver says the worker's process holds, or, where it does not tell,
what the worker has taken since it first touched the device (at least what PyTorch has reserved), minus the two. With
several devices, the largest of each. Of an engine that sleeps, all that is left is overhead.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from heliosd.core.messages import Footprint


def footprint(reports: Sequence[Mapping[str, Any]], pids: Iterable[int]) -> Footprint:
    """From the reports of `helios_measure`, one per worker, and the engine's processes."""
    weights = max(report["weights_bytes"] for report in reports)
    kv_cache = max(report["kv_cache_bytes"] for report in reports)
    held = max(report["device_bytes"] for report in reports) or sum(map(proportional_bytes, pids))
    return Footprint(weights, kv_cache, max(0, held - weights - kv_cache))


def residue(reports: Sequence[Mapping[str, Any]]) -> Footprint:
    """What a sleeping engine keeps, from the same reports."""
    return Footprint(0, 0, max(report["device_bytes"] for report in reports))


def host_bytes(reports: Sequence[Mapping[str, Any]], before_bytes: int, after_bytes: int) -> int:
    """Host memory that falling asleep took, from what its processes held before and after.

    What a driver pins for a process may not be counted as that process's: the workers know of it.
    """
    known_bytes: int = sum(report["host_bytes"] for report in reports)
    return max(0, after_bytes - before_bytes, known_bytes)


def proportional_bytes(pid: int) -> int:
    """A process's proportional set size; 0 when it is gone."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss:"))
