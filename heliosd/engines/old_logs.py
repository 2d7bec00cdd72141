"""Replicas' logs pile up, one for each start: how the oldest go. Knows files and locks, nothing of engines.

A log that is written to is locked by the processes that write to it, so it is kept however old it is.
"""

import fcntl
import re
from contextlib import suppress
from pathlib import Path

KEPT = 50

_NAME = re.compile(r"r\d+\.log")


def hold(descriptor: int) -> None:
    """Keep this open log from being removed until this process, and all it forks, have ended."""
    with suppress(OSError):  # a file system without locks: it is kept for its age alone
        fcntl.flock(descriptor, fcntl.LOCK_SH)


def remove_old(folder: Path, keep: int = KEPT) -> None:
    """Remove all logs of replicas but those in use and the `keep` that were written to last. Blocks."""
    found = [file for file in folder.iterdir() if _NAME.fullmatch(file.name)]
    for file in sorted(found, key=_last_write)[: max(0, len(found) - keep)]:
        with suppress(OSError), file.open("rb") as log:  # in use, or somebody else was faster
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.unlink()


def _last_write(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except FileNotFoundError:
        return 0.0
