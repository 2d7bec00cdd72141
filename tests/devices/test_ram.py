import os
import subprocess
import sys
from pathlib import Path

import pytest

from heliosd.core.units import GiB, KiB, MiB
from heliosd.devices.ram import PROC, available_bytes, process_bytes, processor_name, total_bytes
from heliosd.errors import HeliosError


class Machine:
    """Just enough of /proc and /sys/fs/cgroup."""

    def __init__(self, folder: Path) -> None:
        self.proc, self.cgroups = folder / "proc", folder / "cgroup"
        self.write("proc/meminfo", f"MemTotal:  {64 * MiB} kB\nMemFree: 1 kB\nMemAvailable:  {40 * MiB} kB\n")

    def write(self, name: str, text: str) -> None:
        file = self.proc.parent / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def limit(self, cgroup: str, limit: str, used_bytes: int, idle_bytes: int = 0) -> None:
        self.write(f"cgroup/{cgroup}/memory.max", f"{limit}\n")
        self.write(f"cgroup/{cgroup}/memory.current", f"{used_bytes}\n")
        self.write(f"cgroup/{cgroup}/memory.stat", f"anon 1\ninactive_file {idle_bytes}\nactive_file 5\n")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_without_a_cgroup_limit_the_machine_counts(machine: Machine) -> None:
    assert total_bytes(machine.proc, machine.cgroups) == 64 * GiB
    assert available_bytes(machine.proc, machine.cgroups) == 40 * GiB


def test_the_lowest_limit_on_the_way_up_counts(machine: Machine) -> None:
    machine.write("proc/self/cgroup", "0::/pods/helios\n")
    machine.limit("pods", str(8 * GiB), used_bytes=5 * GiB)
    machine.limit("pods/helios", str(16 * GiB), used_bytes=2 * GiB)
    assert total_bytes(machine.proc, machine.cgroups) == 8 * GiB
    assert available_bytes(machine.proc, machine.cgroups) == 3 * GiB


def test_idle_file_pages_do_not_count_as_used(machine: Machine) -> None:
    machine.write("proc/self/cgroup", "0::/\n")
    machine.limit("", str(8 * GiB), used_bytes=7 * GiB, idle_bytes=4 * GiB)
    assert available_bytes(machine.proc, machine.cgroups) == 5 * GiB


def test_a_cgroup_without_a_limit_changes_nothing(machine: Machine) -> None:
    machine.write("proc/self/cgroup", "1:cpu:/\n0::/pods\n")
    machine.limit("pods", "max", used_bytes=GiB)
    assert total_bytes(machine.proc, machine.cgroups) == 64 * GiB


def test_a_process_holds_its_share_of_shared_pages(machine: Machine) -> None:
    machine.write("proc/7/smaps_rollup", "0-f [rollup]\nRss:  900 kB\nPss:  300 kB\nPss_Anon: 1 kB\n")
    assert process_bytes(machine.proc, 7) == 300 * KiB


def test_where_the_shares_are_hidden_all_resident_pages_count(machine: Machine) -> None:
    machine.write("proc/7/statm", "900 10 3 1 0 5 0\n")
    assert process_bytes(machine.proc, 7) == 10 * os.sysconf("SC_PAGE_SIZE")


def test_a_process_that_is_gone_holds_nothing(machine: Machine) -> None:
    assert process_bytes(machine.proc, 7) is None


def test_a_process_that_was_killed_and_is_waited_for_is_gone() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
        assert process_bytes(PROC, ended.pid) is None, "not nothing: its replica would seem to have shrunk"


def test_a_machine_that_does_not_tell_is_an_error(machine: Machine) -> None:
    machine.write("proc/meminfo", "")
    with pytest.raises(HeliosError, match=r"cannot read the machine's memory from .*there is no MemTotal"):
        total_bytes(machine.proc, machine.cgroups)


def test_a_processor_without_a_name_is_a_cpu(machine: Machine) -> None:
    assert processor_name(machine.proc) == "CPU"
    machine.write("proc/cpuinfo", "processor: 0\nmodel name\t: Epyc 9004\n")
    assert processor_name(machine.proc) == "Epyc 9004"
