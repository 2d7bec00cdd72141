"""What the engines of a daemon really hold, looked at from outside, and their violent ends.

An engine's processes are told by where their output goes (its replica's log), so those that still start count as well:
the daemon's own word on which processes it has is not taken.
"""

import os
import random
import re
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from heliosd.engines.footprint import proportional_bytes

_REPLICA_LOG = re.compile(r"/(r\d+)\.log$")
_ZYGOTE_LOG = re.compile(r"/zygote\.log$")


@dataclass(frozen=True, slots=True)
class Sample:
    """Proportional set sizes in bytes at one moment: a page that n processes share counts 1/n in each."""

    at: float
    engines: dict[str, int]
    """By replica."""
    pids: dict[str, frozenset[int]]
    zygote_bytes: int
    """What it forks engines from, and what waits to be one."""

    @property
    def engine_bytes(self) -> int:
        return sum(self.engines.values())


def look(daemon_pid: int) -> Sample:
    """Measure all engine processes of a daemon now. Blocks for some milliseconds an engine."""
    at, zygote_bytes = time.monotonic(), 0
    engines: dict[str, int] = {}
    pids: dict[str, set[int]] = {}
    for pid in _below(daemon_pid):
        output = _output(pid)
        if found := _REPLICA_LOG.search(output):
            engines[found[1]] = engines.get(found[1], 0) + proportional_bytes(pid)
            pids.setdefault(found[1], set()).add(pid)
        elif _ZYGOTE_LOG.search(output):
            zygote_bytes += proportional_bytes(pid)
    return Sample(at, engines, {replica: frozenset(each) for replica, each in pids.items()}, zygote_bytes)


def kill_one(daemon_pid: int, dice: random.Random) -> str | None:
    """End one engine at random with SIGKILL, ready or not. Returns its replica; None when none was there."""
    running = sorted((replica, pid) for replica, pids in look(daemon_pid).pids.items() for pid in pids)
    if not running:
        return None
    replica, pid = dice.choice(running)
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return None
    return replica


def _below(pid: int) -> list[int]:
    with suppress(psutil.NoSuchProcess):
        return [child.pid for child in psutil.Process(pid).children(recursive=True)]
    return []


def _output(pid: int) -> str:
    try:
        return str(Path(f"/proc/{pid}/fd/1").readlink())
    except OSError:
        return ""  # it is gone, or on its way


@dataclass(slots=True)
class Watch:
    """What was seen while the crowd asked."""

    budget_bytes: int
    samples: int = 0
    exceeded: int = 0
    peak: Sample | None = None
    peak_with_zygote_bytes: int = 0
    most_engines: int = 0
    largest_drift: float = 0.0
    drift_samples: int = 0

    def saw(self, sample: Sample) -> None:
        self.samples += 1
        self.exceeded += sample.engine_bytes > self.budget_bytes
        self.most_engines = max(self.most_engines, len(sample.engines))
        if self.peak is None or sample.engine_bytes > self.peak.engine_bytes:
            self.peak = sample
        self.peak_with_zygote_bytes = max(self.peak_with_zygote_bytes, sample.engine_bytes + sample.zygote_bytes)

    def compared(self, ledger_bytes: int, held_bytes: int) -> None:
        """The ledger's word on replicas that are ready beside what they hold."""
        self.drift_samples += 1
        self.largest_drift = max(self.largest_drift, drift(ledger_bytes, held_bytes))


def drift(ledger_bytes: int, held_bytes: int) -> float:
    """How far the ledger is off, as a share of what is really held; 0 where both hold nothing."""
    return abs(ledger_bytes - held_bytes) / held_bytes if held_bytes else float(bool(ledger_bytes))
