"""Starts in processes made ahead, as an operator sees them; and what a reload and the daemon's end do to those."""

import json
import os
import signal
from pathlib import Path

import pytest

from heliosctl.__main__ import main
from tests.e2e.conftest import TINY
from tests.e2e.daemon import Daemon, heliosd

pytestmark = pytest.mark.slow


def waiting(daemon: Daemon) -> int:
    (engine,) = daemon.get("node")["engines"]
    return int(engine["shells"]["waiting"])


def notes(daemon: Daemon) -> list[str]:
    return [event["detail"]["what"] for event in daemon.events() if event["kind"] == "shell"]


def test_a_start_begins_in_one_and_the_next_is_made(stock: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with heliosd(stock=stock) as daemon:
        where = ["--socket", str(daemon.socket)]
        daemon.until(lambda: waiting(daemon) == 1, 90, "none was made")
        assert daemon.metric('helios_shells{state="waiting"}') == 1
        assert daemon.metric("helios_host_shell_bytes") > 0
        replica = daemon.load(TINY)["id"]
        daemon.until(lambda: waiting(daemon) == 1, 20, "the next was not made")
        assert notes(daemon) == ["made", "used", "made"]
        assert daemon.metric(f'helios_shell_starts_total{{model="{TINY}"}}') == 1
        assert main([*where, "timeline", replica, "-o", "json"]) == 0
        phases = [span["phase"] for span in json.loads(capsys.readouterr().out)["spans"]]
        assert "shell" in phases
        assert "fork" not in phases
        assert main([*where, "explain", replica]) == 0
        told = capsys.readouterr().out
        assert "shell " in told
        assert f"{replica} begins in a process that was made ahead" in told
        assert main([*where, "doctor"]) == 0
        assert "1 of 1 shells ready" in capsys.readouterr().out

        daemon.configure("[pool]\nshells = 2\n")
        os.kill(daemon.pid, signal.SIGHUP)
        daemon.until(lambda: waiting(daemon) == 2, 20, "the reload made none")
        daemon.configure("[pool]\nshells = 0\n")
        os.kill(daemon.pid, signal.SIGHUP)
        daemon.until(lambda: waiting(daemon) == 0, 20, "the reload gave none up")
        assert notes(daemon)[-1] == "given_up"
        daemon.unload(TINY)
        phases = list(daemon.load(TINY)["phases"])
        assert "fork" in phases
        assert "shell" not in phases


def test_a_killed_daemon_leaves_none(stock: Path) -> None:
    with heliosd(stock=stock) as daemon:
        daemon.until(lambda: waiting(daemon) == 1, 90, "none was made")
        daemon.kill()
        daemon.until(lambda: daemon.processes() == [], 5, "processes are left")
