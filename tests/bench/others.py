"""How much of the machine others took while something was measured: figures from a busy machine tell little."""

import os
import time

import psutil


class Others:
    """Counts from its making."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._all_s, self._ours_s = _all_s(), _ours_s()

    def cores(self) -> float:
        """Cores that were kept busy, on average, by processes that are not ours, or that the hypervisor withheld."""
        spent_s = time.monotonic() - self._began
        return max(0.0, (_all_s() - self._all_s) - (_ours_s() - self._ours_s)) / spent_s


def _all_s() -> float:
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - times.iowait - times.guest - times.guest_nice)


def _ours_s() -> float:
    """CPU seconds of this process and of all it started that still runs."""
    total_s = 0.0
    for process in (psutil.Process(os.getpid()), *psutil.Process(os.getpid()).children(recursive=True)):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total_s += times.user + times.system
    return total_s
