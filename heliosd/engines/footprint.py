"""What an engine really holds, from what its workers report and the kernel knows.

On every device: *weights* are the bytes of the model's parameters and buffers as they lie in memory, with the room
kept for adapters (packed copies that a kernel library makes for itself are overhead; those that lie in the page cache,
mapped and shared with other replicas, count in full for each), and the *KV cache* is the bytes
of the cache's tensors, which is the block count times the page size. *Overhead* is the rest: on the host what the
engine's processes hold of their own and half of what they share with the zygote (what it would be were no other engine
there: their proportional set size shrinks as more engines start, and grows again as they end) minus the two; on a GPU
what the driver says the worker's process holds, or, where it does not tell, what the worker has taken since it first
touched the device (at least what PyTorch has reserved), minus the two. With several devices, the largest of each. Of an
engine that sleeps, all that is left is overhead.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from heliosd.core.messages import Footprint


def footprint(reports: Sequence[Mapping[str, Any]], pids: Iterable[int]) -> Footprint:
    """From the reports of `helios_measure`, one per worker, and the engine's processes."""
    weights = max(report["weights_bytes"] for report in reports)
    kv_cache = max(report["kv_cache_bytes"] for report in reports)
    if held := max(report["device_bytes"] for report in reports):
        return Footprint(weights, kv_cache, max(0, held - weights - kv_cache))
    held = sum(map(alone_bytes, pids)) - sum(map(_mapped_alone_bytes, reports))
    own_weights = weights - max(report.get("mapped_bytes", 0) for report in reports)
    return Footprint(weights, kv_cache, max(0, held - own_weights - kv_cache))


def _mapped_alone_bytes(report: Mapping[str, Any]) -> int:
    """What `alone_bytes` counted of the mappings that weights lie in. They are left out of both sides: how much of them
    is a process's own depends on how many replicas of the model run."""
    own = int(report.get("mapped_own_bytes", 0))
    return own + (int(report.get("mapped_resident_bytes", 0)) - own) // 2


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
    return _rollup(pid).get("Pss", 0)


def own_bytes(pid: int) -> int:
    """What a process shares with no other, and what is free when it ends; 0 when it is gone."""
    held = _rollup(pid)
    return held.get("Private_Clean", 0) + held.get("Private_Dirty", 0)


def alone_bytes(pid: int) -> int:
    """What a process would hold, pages shared by n counting 1/n, were it the only one forked; 0 when it is gone.

    The proportional set sizes of any number of processes forked from one are together no more than the sum of these.
    """
    held = _rollup(pid)
    own = held.get("Private_Clean", 0) + held.get("Private_Dirty", 0)
    return own + (held.get("Rss", 0) - own) // 2


def _rollup(pid: int) -> Mapping[str, int]:
    """What the kernel adds up over a process's mappings, in bytes by kind; empty when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    except (FileNotFoundError, ProcessLookupError):
        return {}
    return {name.rstrip(":"): int(size) * 1024 for name, size, _ in map(str.split, lines)}
