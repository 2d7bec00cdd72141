"""How much RAM there is, is to be had, and is held, as the kernel tells under /proc and cgroup v2. Blocks."""

import os
import re
from pathlib import Path

from heliosd.core.hardware import ProcessMemory
from heliosd.errors import HeliosError

PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")


def total_bytes(proc: Path = PROC, cgroups: Path = CGROUPS) -> int:
    """The machine's RAM, or the lowest limit of the cgroups we are in."""
    return min([_meminfo(proc, "MemTotal"), *(limit for limit, _ in _limits(proc, cgroups))])


def available_bytes(proc: Path = PROC, cgroups: Path = CGROUPS) -> int:
    """What could be allocated now without swapping, and without meeting the limit of a cgroup we are in."""
    return max(0, min([_meminfo(proc, "MemAvailable"), *(limit - used for limit, used in _limits(proc, cgroups))]))


def process_bytes(proc: Path, pid: int) -> int | None:
    """What one process holds, pages shared by n processes counted as 1/n; None when it is gone, or only waited for.

    All its resident pages where the kernel does not let us see which are shared.
    """
    try:
        return _field(proc / str(pid) / "smaps_rollup", "Pss")
    except (OSError, LookupError):
        pass
    try:
        pages = int((proc / str(pid) / "statm").read_text().split()[1])
    except (OSError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE") or None


def process_memory(proc: Path, pid: int) -> ProcessMemory | None:
    """What one process holds, and what of that is no file's, swapped pages included; None when it is gone."""
    rollup = proc / str(pid) / "smaps_rollup"
    try:
        pss_bytes = _field(rollup, "Pss")
        return ProcessMemory(pss_bytes, _field(rollup, "Pss_Anon") + _field(rollup, "SwapPss"))
    except (OSError, LookupError):
        whole = process_bytes(proc, pid)
    return None if whole is None else ProcessMemory(whole, whole)


def processor_name(proc: Path) -> str:
    """The processor's name, or `CPU` where it has none (64-bit Arm)."""
    try:
        match = re.search(r"^model name\s*:\s*(.+)$", (proc / "cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        match = None
    return match[1].strip() if match else "CPU"


def _meminfo(proc: Path, field: str) -> int:
    try:
        return _field(proc / "meminfo", field)
    except (OSError, LookupError) as error:
        raise HeliosError(f"cannot read the machine's memory from {proc / 'meminfo'}: {error}") from error


def _field(file: Path, field: str) -> int:
    """A line such as `Pss:   272 kB`, in bytes. Raises LookupError when there is none."""
    match = re.search(rf"^{field}:\s+(\d+) kB$", file.read_text(), re.MULTILINE)
    if match is None:
        raise LookupError(f"there is no {field}")
    return int(match[1]) * 1024


def _limits(proc: Path, cgroups: Path) -> list[tuple[int, int]]:
    """Limit and use, in bytes, of our cgroup and those above it that have a limit. Empty without cgroup v2."""
    try:
        match = re.search(r"^0::/(.*)$", (proc / "self" / "cgroup").read_text(), re.MULTILINE)
    except OSError:
        return []
    if match is None:
        return []
    own = cgroups / match[1]
    return [limit for folder in (own, *own.parents) if folder.is_relative_to(cgroups) and (limit := _limit(folder))]


def _limit(folder: Path) -> tuple[int, int] | None:
    try:
        limit = (folder / "memory.max").read_text().strip()
        used = int((folder / "memory.current").read_text())
        statistics = (folder / "memory.stat").read_text()
    except OSError:
        return None  # the root has no such files
    if limit == "max":
        return None
    # File pages nobody used lately are given back under pressure, so they do not count as used.
    idle = re.search(r"^inactive_file (\d+)$", statistics, re.MULTILINE)
    return int(limit), used - (int(idle[1]) if idle else 0)
