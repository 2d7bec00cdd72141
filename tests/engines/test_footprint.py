"""What is made of the workers' reports."""

import os
import subprocess
import sys
from subprocess import PIPE

from heliosd.core.messages import Footprint
from heliosd.core.units import MiB
from heliosd.engines.footprint import alone_bytes, footprint, host_bytes, proportional_bytes, residue

REPORT = {"weights_bytes": 100, "kv_cache_bytes": 50, "device_bytes": 180, "host_bytes": 0}


def test_on_a_gpu_overhead_is_what_the_worker_took_beyond_weights_and_cache() -> None:
    assert footprint([REPORT], []) == Footprint(100, 50, 30)


def test_of_several_devices_the_largest_counts() -> None:
    other = {"weights_bytes": 90, "kv_cache_bytes": 50, "device_bytes": 200}
    assert footprint([REPORT, other], []) == Footprint(100, 50, 50)


def test_on_the_host_overhead_is_the_processes_share_of_memory() -> None:
    held = footprint([{**REPORT, "device_bytes": 0}], [os.getpid()])
    assert held.total_bytes > 5 * MiB
    assert held.weights_bytes == 100


def test_a_process_that_is_gone_holds_nothing() -> None:
    assert proportional_bytes(2**22 - 1) == alone_bytes(2**22 - 1) == 0


def test_all_that_a_sleeper_keeps_is_overhead() -> None:
    assert residue([{**REPORT, "device_bytes": 7}, {**REPORT, "device_bytes": 9}]) == Footprint(0, 0, 9)


def test_pinned_memory_counts_also_where_the_kernel_does_not_see_it() -> None:
    pinned = [{**REPORT, "host_bytes": 128}, {**REPORT, "host_bytes": 128}]
    assert host_bytes(pinned, before_bytes=1000, after_bytes=1010) == 256
    assert host_bytes(pinned, before_bytes=1000, after_bytes=1300) == 300
    assert host_bytes([REPORT], before_bytes=1000, after_bytes=900) == 0


def test_what_it_would_hold_alone_does_not_depend_on_how_many_share() -> None:
    """One that holds 96 MiB forks a child, and then two more."""
    program = """
import os, signal
held = bytearray(b"x") * (96 << 20)
children = []
def fork():
    pid = os.fork()
    if not pid:
        signal.pause()
    children.append(pid)
fork()
print(children[0], flush=True)
input()
fork(), fork()
print(*children, flush=True)
input()
for pid in children:
    os.kill(pid, signal.SIGKILL)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdin=PIPE, stdout=PIPE, text=True) as parent:
        assert parent.stdin and parent.stdout
        one = int(parent.stdout.readline())
        shared_by_two, alone = proportional_bytes(one), alone_bytes(one)
        print(file=parent.stdin, flush=True)
        three = [int(pid) for pid in parent.stdout.readline().split()]
        shared_by_four, together = proportional_bytes(one), sum(map(proportional_bytes, three))
        assert abs(alone - alone_bytes(one)) < 4 * MiB
        assert together <= sum(map(alone_bytes, three))
        print(file=parent.stdin, flush=True)
    assert abs(alone - shared_by_two) < 8 * MiB
    assert shared_by_two - shared_by_four > 20 * MiB
