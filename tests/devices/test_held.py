"""What processes really hold, and disks."""

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

from heliosd.core.hardware import ProcessMemory
from heliosd.core.names import ReplicaId
from heliosd.core.units import KiB, MiB
from heliosd.devices.held import held_memory, spaces
from heliosd.devices.ram import process_memory

ROLLUP = "Rss: 900 kB\nPss: 300 kB\nPss_Anon: 200 kB\nPss_File: 100 kB\nSwapPss: 5 kB\n"


def test_pages_of_files_are_not_its_own_and_swapped_ones_are(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "smaps_rollup").write_text(ROLLUP)
    assert process_memory(tmp_path, 7) == ProcessMemory(300 * KiB, 205 * KiB)
    held, _ = held_memory({ReplicaId("r1"): (7, 8), ReplicaId("r2"): (), ReplicaId("r3"): (9,)}, tmp_path)
    assert held == ((ReplicaId("r1"), ProcessMemory(300 * KiB, 205 * KiB)),)


def test_a_kernel_that_does_not_tell_what_is_its_own_makes_all_of_it_its_own(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "smaps_rollup").write_text("Pss: 300 kB\n")
    assert process_memory(tmp_path, 7) == ProcessMemory(300 * KiB, 300 * KiB)


def test_a_process_that_really_allocates_is_seen_to_grow() -> None:
    code = "import sys\nkept = []\nfor line in sys.stdin: kept.append(b'x' * (8 << 20)); print(flush=True)"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        found = []
        for _ in range(4):
            child.stdin.write(b"\n")
            child.stdin.flush()
            child.stdout.readline()
            held, daemon = held_memory({ReplicaId("r1"): (child.pid,)})
            found.append(held[0][1].own_bytes)
        child.stdin.close()
    grown = [late - early for early, late in pairwise(found)]
    assert all(7 * MiB < each < 10 * MiB for each in grown), grown
    assert daemon is not None
    assert daemon.own_bytes > MiB


def test_a_disk_that_cannot_be_asked_is_left_out(tmp_path: Path) -> None:
    (found,) = spaces({"store": tmp_path, "state": tmp_path / "gone"})
    free = os.statvfs(tmp_path)
    assert found.name == "store"
    assert found.used_bytes > 0
    assert abs(found.left_bytes - free.f_bavail * free.f_frsize) < 1024 * MiB
