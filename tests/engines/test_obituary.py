"""What is said about an engine that died."""

import signal
from pathlib import Path

from heliosd.engines.obituary import obituary


def test_a_kill_names_its_signal_and_the_last_lines_of_the_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("".join(f"line {number}\n" for number in range(100)))
    said = obituary(-signal.SIGKILL, log)
    assert said.startswith("killed by SIGKILL (by hand, or by the kernel for want of memory)")
    assert said.endswith("line 99")
    assert "line 3\n" not in said


def test_a_traceback_is_better_than_the_log(tmp_path: Path) -> None:
    assert obituary(1, tmp_path / "none", "Traceback: x") == "ended with exit code 1; it said last:\nTraceback: x"


def test_it_may_have_said_nothing(tmp_path: Path) -> None:
    assert obituary(3, tmp_path / "none") == "ended with exit code 3"
    assert obituary(-63, tmp_path / "none") == "killed by signal 63"
