import asyncio
import os
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest

from heliosd.core.hardware import DeviceKind
from heliosd.core.units import GiB, KiB, MiB
from heliosd.devices.host import HOST, HostProbe
from heliosd.errors import ConfigError


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    proc = tmp_path / "proc"
    proc.mkdir()
    _available(proc, 40 * GiB)
    return proc


def _available(proc: Path, n_bytes: int) -> None:
    (proc / "meminfo").write_text(f"MemTotal: {64 * MiB} kB\nMemAvailable: {n_bytes // KiB} kB\n")


def _process(proc: Path, pid: int, n_bytes: int) -> None:
    (proc / str(pid)).mkdir()
    (proc / str(pid) / "smaps_rollup").write_text(f"Rss: 1 kB\nPss: {n_bytes // KiB} kB\n")


async def test_the_share_of_the_ram_is_the_capacity(proc: Path) -> None:
    (device,) = await HostProbe(ratio=0.25, proc=proc).devices()
    assert (device.id, device.kind, device.capacity_bytes) == ("host", DeviceKind.HOST, 16 * GiB)


async def test_bytes_asked_for_go_before_the_share(proc: Path) -> None:
    (device,) = await HostProbe(capacity_bytes=3 * GiB, ratio=0.25, proc=proc).devices()
    assert device.capacity_bytes == 3 * GiB


async def test_more_than_the_machine_has_is_refused(proc: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot set 65.0 GiB aside .* has 64.0 GiB"):
        await HostProbe(capacity_bytes=65 * GiB, proc=proc).devices()


async def test_used_is_what_our_engines_hold(proc: Path) -> None:
    _process(proc, 7, 2 * GiB)
    _process(proc, 8, 1 * GiB)
    _process(proc, 9, 5 * GiB)
    probe = HostProbe(capacity_bytes=16 * GiB, proc=proc)
    (reading,) = await probe.read({HOST: frozenset({8, 7, 1234})})
    assert [(one.pid, one.used_bytes) for one in reading.processes] == [(7, 2 * GiB), (8, GiB)]
    assert (reading.used_bytes, reading.free_bytes) == (3 * GiB, 13 * GiB)


async def test_what_others_take_of_the_share_counts_as_used(proc: Path) -> None:
    _process(proc, 7, 2 * GiB)
    _available(proc, 4 * GiB)
    (reading,) = await HostProbe(capacity_bytes=16 * GiB, proc=proc).read({HOST: frozenset({7})})
    assert reading.free_bytes == 4 * GiB, "not the 14 GiB that we have left"
    assert reading.used_bytes == 12 * GiB


async def test_engines_over_their_share_leave_nothing_free(proc: Path) -> None:
    _process(proc, 7, 20 * GiB)
    (reading,) = await HostProbe(capacity_bytes=16 * GiB, proc=proc).read({HOST: frozenset({7})})
    assert (reading.free_bytes, reading.used_bytes) == (0, 16 * GiB)


async def test_memory_that_cannot_be_read_is_a_fault(proc: Path) -> None:
    probe = HostProbe(capacity_bytes=16 * GiB, proc=proc)
    await probe.devices()
    (proc / "meminfo").write_text("MemTotal: 1 kB\n")
    (reading,) = await probe.read({})
    assert reading.fault is not None and "there is no MemAvailable" in reading.fault
    (proc / "meminfo").unlink()
    (reading,) = await probe.read({})
    assert reading.fault is not None and "No such file" in reading.fault
    _available(proc, 4 * GiB)
    (reading,) = await probe.read({})
    assert (reading.fault, reading.free_bytes) == (None, 4 * GiB)


async def test_a_real_process_is_seen_to_grow() -> None:
    """The kernel of this machine, and a child that takes 64 MiB when told."""
    program = "input(); held = bytearray(b'x') * (64 << 20); print('held', flush=True); input()"
    probe = HostProbe(ratio=0.5)
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdin=PIPE, stdout=PIPE)
    assert child.stdin and child.stdout
    ours = {HOST: frozenset({child.pid, os.getpid()})}
    (before,) = await probe.read(ours)
    child.stdin.write(b"\n")
    assert await child.stdout.readline() == b"held\n"
    (after,) = await probe.read(ours)
    await child.communicate(b"\n")
    held_before, held_after = ({one.pid: one.used_bytes or 0 for one in r.processes} for r in (before, after))
    assert held_after[child.pid] - held_before[child.pid] >= 60 * MiB
    assert after.free_bytes < before.free_bytes
