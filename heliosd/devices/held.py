"""What the daemon and its engines hold of the machine's RAM, and how full the disks are. Blocks."""

import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from heliosd.core.hardware import ProcessMemory, Space
from heliosd.core.names import ReplicaId
from heliosd.devices.ram import PROC, process_memory


def held_memory(
    pids: Mapping[ReplicaId, tuple[int, ...]], proc: Path = PROC
) -> tuple[tuple[tuple[ReplicaId, ProcessMemory], ...], ProcessMemory | None]:
    """Of each replica that has a process, all of its processes together; and of this process."""
    found = []
    for replica, of_replica in pids.items():
        if (held := _sum(process_memory(proc, pid) for pid in of_replica)) is not None:
            found.append((replica, held))
    return tuple(found), process_memory(proc, os.getpid())


def spaces(places: Mapping[str, Path]) -> tuple[Space, ...]:
    """How full the file systems of these directories are; one that cannot be read is left out."""
    found = []
    for name, directory in places.items():
        try:
            usage = shutil.disk_usage(directory)
        except OSError:
            continue
        found.append(Space(name, usage.used, usage.free))
    return tuple(found)


def _sum(each: Iterable[ProcessMemory | None]) -> ProcessMemory | None:
    there = [one for one in each if one is not None]
    if not there:
        return None
    return ProcessMemory(sum(one.pss_bytes for one in there), sum(one.own_bytes for one in there))
