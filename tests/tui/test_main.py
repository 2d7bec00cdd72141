"""The program as it is started: one frame, and a real terminal against a real daemon with a simulated fleet."""

import shutil
import subprocess
import sys

import pytest

from heliosctl.exits import Exit
from tests.e2e.daemon import Daemon, prepared
from tests.heliosctl.stand_in import StandIn, serving_from_a_thread
from tests.store.models import model_files, write_folder
from tests.tui.terminal import ENV, terminal
from tui.__main__ import main
from tui.commands import SCREENS

FLEET = '[[device]]\nname = "g"\ncount = 4\ncapacity = "8GiB"\nkind = "NVIDIA H100 80GB HBM3"\n'
MODELS = [f"test/m{number:02d}" for number in range(20)]
SETTINGS = '[engines]\nkv_cache = "1GiB"\n[pool]\nresidence_s = 0\n' + "".join(
    f'[models."{ref}"]\nengine_args = {{load_s = 0.05, tokens_per_s = 2000.0}}\n' for ref in MODELS
)


def test_once_prints_a_frame(socket_path, capsys):
    stand_in = StandIn()
    stand_in.note("start", "r1: org/small fits on gpu0")
    with serving_from_a_thread(stand_in, socket_path):
        assert main(["--socket", str(socket_path), "--once", "--size", "100x30"]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert len(out.splitlines()) <= 30 and max(map(len, out.splitlines())) <= 100
    assert "Helios node-a" in out and "r1: org/small fits on gpu0" in out
    (row,) = [line for line in out.splitlines() if line.startswith("org/small")]
    assert row.split()[:6] == ["org/small", "●", "ready", "0", "0%", "1.5"]
    assert "? help" in out.splitlines()[-1]


@pytest.mark.parametrize("screen", SCREENS)
def test_once_has_every_screen(socket_path, capsys, screen):
    with serving_from_a_thread(StandIn(), socket_path):
        assert main(["--socket", str(socket_path), "--once", "--size", "80x24", "--screen", screen]) == 0
    assert f"{SCREENS.index(screen) + 1} {screen}" in capsys.readouterr().out


def test_once_without_a_daemon_is_unreachable(socket_path, capsys):
    assert main(["--socket", str(socket_path), "--once"]) == Exit.UNREACHABLE
    assert "Start it with `heliosd`" in capsys.readouterr().err


@pytest.mark.parametrize("size", ["80", "x", "5x5", "80x24x3", "99999x10"])
def test_a_size_that_is_none_is_refused(socket_path, capsys, size):
    with pytest.raises(SystemExit) as told:
        main(["--socket", str(socket_path), "--once", "--size", size])
    assert told.value.code == Exit.USAGE
    assert f"cannot draw '{size}'" in capsys.readouterr().err


def test_a_live_screen_has_the_terminals_size(socket_path, capsys):
    assert main(["--socket", str(socket_path), "--size", "80x24"]) == Exit.USAGE
    assert "cannot use --size without --once" in capsys.readouterr().err


@pytest.mark.slow
def test_heliosctl_top_is_the_same(socket_path):
    with serving_from_a_thread(StandIn(), socket_path):
        words = [sys.executable, "-m", "heliosctl", "top", "--once", "--screen", "replicas", "--size", "80x24"]
        words += ["--read-only", "--socket", str(socket_path)]
        done = subprocess.run(words, check=True, capture_output=True, text=True, env=ENV)
    assert "Helios node-a" in done.stdout and "org/small" in done.stdout
    assert "x stop" not in done.stdout and "q quit" in done.stdout


@pytest.fixture
def daemon(tmp_path) -> "Daemon":
    with prepared(fleet=FLEET, config=SETTINGS, name="gpu-box") as daemon:
        daemon.start()
        for number, ref in enumerate(MODELS):
            daemon.bring(write_folder(tmp_path / str(number), model_files(seed=number)), ref)
        yield daemon


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("tmux"), reason="needs tmux")
@pytest.mark.parametrize("size", [(80, 24), (160, 48)], ids=["80x24", "160x48"])
def test_in_a_real_terminal(daemon, size):
    """Twenty models; a person loads one, looks at it, lets it sleep, wakes and stops it, and the daemon goes down."""
    words = [sys.executable, "-m", "heliosctl", "top", "--socket", str(daemon.socket)]
    with terminal(daemon.folder, words, size) as it:
        it.see("Helios gpu-box", "g3", "KV used/reserved", "no replicas")
        it.press("4")
        it.see("test/m00", "stored")
        it.press("/")
        it.write("m07")
        it.see("test/m07", "1 of 20", gone="test/m06")
        it.press("l")
        it.see("load test/m07?", "fits:")
        it.press("y")
        it.see("test/m07 is ready", "● ready")
        replica = daemon.replicas()[0]["id"]

        it.press("3")
        it.see(replica, "● ready")
        it.press("Enter")
        it.see("predicted", "started in")
        it.press("Escape")
        it.see("z sleep", gone="predicted")
        it.press("z")
        it.see(f"sleep {replica} of test/m07?", "frees")
        it.press("y")
        it.see("z asleep")
        it.write(":wake test/m07")
        it.see("wake test/m07?", "takes")
        it.press("y")
        it.see("● ready", "test/m07 is awake")

        it.press("6")
        it.see("WHAT AND WHY", "start", "sleeps at level")
        daemon.stop()
        it.see("DISCONNECTED since")
        daemon.start()
        it.see("connected again after", "Helios gpu-box", gone="DISCONNECTED")

        it.press("?")
        it.see("only rows with these words")
        it.press("q")
        it.see("q quit", gone="only rows with these words")
        it.press("q")
        it.see("left with 0")
