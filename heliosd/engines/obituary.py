"""What is said about an engine that died: how it ended and what it said last."""

import signal
from pathlib import Path

from heliosd.core.gist import SAID_LAST
from heliosd.engines.zygote import tail

_LINES = 12


def obituary(exit_code: int, log_file: Path, last_words: str | None = None) -> str:
    """`killed by SIGKILL` or `ended with exit code 3`, and the traceback or last log lines."""
    if exit_code < 0:
        try:
            how = f"killed by {signal.Signals(-exit_code).name}"
        except ValueError:
            how = f"killed by signal {-exit_code}"
        if exit_code == -signal.SIGKILL:
            how += " (by hand, or by the kernel for want of memory)"
    else:
        how = f"ended with exit code {exit_code}"
    said = last_words or "\n".join(tail(log_file).strip().splitlines()[-_LINES:])
    return f"{how}{SAID_LAST}{said}" if said else how
