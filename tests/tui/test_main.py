import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from heliosctl.exits import Exit
from tests.heliosctl.stand_in import StandIn, serving_from_a_thread
from tui.__main__ import main

ENV = {name: value for name, value in os.environ.items() if not name.startswith("HELIOS_")}


def test_once_prints_a_frame(socket_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    stand_in = StandIn()
    stand_in.note("start", "r1: org/small fits on gpu0")
    with serving_from_a_thread(stand_in, socket_path):
        assert main(["--socket", str(socket_path), "--once"]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "Helios node-a" in out
    assert "█ 256.0 MiB" in out and "▓▓ KV cache" in out
    assert "r1: org/small fits on gpu0" in out
    (row,) = [line for line in out.splitlines() if line.startswith("org/small")]
    assert row.split() == ["org/small", "ready", "0", "1.5", "GiB", "3.0", "s", "4m", "57s", "gpu0", "r1"]


def test_once_without_a_daemon_is_unreachable(socket_path, capsys):
    assert main(["--socket", str(socket_path), "--once"]) == Exit.UNREACHABLE
    assert "Start it with `heliosd`" in capsys.readouterr().err


@pytest.mark.slow
def test_heliosctl_top_is_the_same(socket_path):
    with serving_from_a_thread(StandIn(), socket_path):
        words = [sys.executable, "-m", "heliosctl", "top", "--once", "--socket", str(socket_path)]
        done = subprocess.run(words, check=True, capture_output=True, text=True, env=ENV)
    assert "Helios node-a" in done.stdout


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("tmux"), reason="needs tmux")
def test_in_a_real_terminal(socket_path):
    """tmux is the terminal: what it captured is what a person would see."""
    tmux = ["tmux", "-S", str(Path(socket_path).parent / "tmux"), "-f", "/dev/null"]
    words = [sys.executable, "-m", "tui", "--socket", str(socket_path)]

    def capture() -> str:
        return subprocess.run([*tmux, "capture-pane", "-p"], check=True, capture_output=True, text=True).stdout

    def see(wanted: str) -> str:
        deadline = time.monotonic() + 20
        while wanted not in (text := capture()):
            assert time.monotonic() < deadline, f"{wanted!r} never came; the screen was\n{text}"
            time.sleep(0.05)
        return text

    def press(key: str) -> None:
        subprocess.run([*tmux, "send-keys", key], check=True)

    env = ENV | {"LC_ALL": "C.UTF-8", "TERM": "xterm-256color"}
    with serving_from_a_thread(StandIn(), socket_path):
        command = shlex.join(words) + "; echo left with $?; exec cat"
        subprocess.run([*tmux, "new-session", "-d", "-x", "80", "-y", "24", command], check=True, env=env)
        try:
            text = see("org/small")
            assert "Helios node-a" in text and "█" in text and "KV cache" in text
            press("Enter")
            see("started in 1.5 s")
            press("Escape")
            see("STOPS IN")  # pressed at once, the next key would be read as Alt with it
            press("?")
            see("down and up, as the arrows do")
            press("q")
            see("STOPS IN")
            press("q")
            see("left with 0")
        finally:
            subprocess.run([*tmux, "kill-server"], check=True)
