"""The zygote by itself, with a preload of a few milliseconds instead of vLLM."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from heliosd.engines.zygote import ForkContext, ForkedProcess, Zygote, call_in_fork
from heliosd.errors import EngineFailed
from tests.engines.answers import alive

HERE = str(Path(__file__).parents[2])


@pytest.fixture
def zygote(tmp_path: Path) -> Iterator[Zygote]:
    made = Zygote("decimal", {**os.environ, "HELIOS_TEST_MARK": "zygote", "PYTHONPATH": HERE}, tmp_path / "zygote.log")
    yield made
    made.close()


def fork(zygote: Zygote, log: Path, target: object, *args: object, **environment: str) -> ForkedProcess:
    zygote.ensure()
    process = ForkContext(zygote, log, environment).Process(target=target, args=args)
    process.start()
    return process


def show(*names: str) -> None:
    print("preloaded", "decimal" in sys.modules)
    for name in names:
        print(name, os.environ.get(name))


def fail(words: str) -> None:
    raise ValueError(words)


def test_children_have_the_preload_the_environment_and_their_own_log(zygote: Zygote, tmp_path: Path) -> None:
    log = tmp_path / "child.log"
    process = fork(zygote, log, show, "HELIOS_TEST_MARK", "OWN", OWN="child")
    process.join(10)
    assert process.exitcode == 0
    assert log.read_text().split("\n")[:3] == ["preloaded True", "HELIOS_TEST_MARK zygote", "OWN child"]
    assert "HELIOS_TEST_MARK" not in os.environ, "the daemon's environment was changed"


def test_a_child_that_fails_sends_its_traceback_home(zygote: Zygote, tmp_path: Path) -> None:
    process = fork(zygote, tmp_path / "child.log", fail, "broken on purpose")
    process.join(10)
    assert process.exitcode == 1
    assert process.last_words is not None
    assert "ValueError: broken on purpose" in process.last_words
    assert "broken on purpose" in (tmp_path / "child.log").read_text()


def test_a_child_that_cannot_be_unpickled_says_so(zygote: Zygote, tmp_path: Path) -> None:
    module = tmp_path / "only_here.py"
    module.write_text("def run(): pass\n")
    sys.path.insert(0, str(tmp_path))
    try:
        import only_here  # type: ignore[import-not-found]

        zygote.ensure()
        module.unlink()
        process = fork(zygote, tmp_path / "child.log", only_here.run)
        process.join(10)
    finally:
        sys.path.remove(str(tmp_path))
    assert process.exitcode == 1
    assert "only_here" in (process.last_words or "")


def test_a_kill_is_seen_in_the_exit_code_by_everyone_who_asks(zygote: Zygote, tmp_path: Path) -> None:
    process = fork(zygote, tmp_path / "child.log", time.sleep, 60)
    process.kill()
    process.join(10)
    assert [process.exitcode, process.exitcode] == [-signal.SIGKILL] * 2


def test_a_start_that_is_under_way_when_it_is_called_off_leaves_no_process(zygote: Zygote, tmp_path: Path) -> None:
    zygote.ensure()
    context = ForkContext(zygote, tmp_path / "child.log", {})
    process = context.Process(target=time.sleep, args=(60,))
    context.call_off()  # nothing has a process id yet
    process.start()
    process.join(10)
    assert process.exitcode == -signal.SIGKILL


def test_what_a_dead_zygote_had_open_is_closed_once(zygote: Zygote, tmp_path: Path) -> None:
    """A second close would hit whoever was given the same number since."""
    zygote.ensure()
    assert zygote.pid is not None
    os.kill(zygote.pid, signal.SIGKILL)
    while zygote.pid is not None:
        time.sleep(0.005)
    before = open_files()
    (tmp_path / "zygote.log").unlink()
    (tmp_path / "zygote.log").mkdir()
    for _ in range(3):
        with pytest.raises(IsADirectoryError):
            zygote.ensure()
    assert len(open_files()) == len(before) - 1, "the pipe of the dead one, and nothing else"
    with (tmp_path / "other").open("wb") as others:  # takes the lowest number that is free
        zygote.close()
        others.write(b"still open")


def test_a_zygote_that_cannot_be_started_leaves_nothing_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
    zygote = Zygote("decimal", {}, tmp_path / "zygote.log")
    before = open_files()
    with pytest.raises(FileNotFoundError):
        zygote.ensure()
    zygote.close()
    assert open_files() == before
    assert not list(tmp_path.glob("helios-*"))


def test_an_overlong_log_is_begun_anew(zygote: Zygote, tmp_path: Path) -> None:
    log = tmp_path / "zygote.log"
    log.write_bytes(b"old\n" * (4 * 1024 * 1024))
    zygote.ensure()
    assert log.stat().st_size < 1024


def open_files() -> set[str]:
    """The numbers of this process's open files."""
    return {entry.name for entry in Path("/proc/self/fd").iterdir() if entry.exists()}


def test_a_function_can_be_called_in_a_fork(zygote: Zygote, tmp_path: Path) -> None:
    zygote.ensure()
    there = call_in_fork(zygote, tmp_path / "log", lambda: (os.getpid(), "decimal" in sys.modules))
    assert there[0] != os.getpid()
    assert there[1]
    with pytest.raises(RuntimeError, match="broken on purpose"):
        call_in_fork(zygote, tmp_path / "log", lambda: fail("broken on purpose"))


def test_a_preload_that_fails_is_an_error_with_the_traceback(tmp_path: Path) -> None:
    zygote = Zygote("no_such_module_at_all", {"PYTHONPATH": HERE}, tmp_path / "zygote.log")
    with pytest.raises(EngineFailed) as failed:
        zygote.ensure()
    assert "No module named 'no_such_module_at_all'" in failed.value.message
    assert "Traceback" in (failed.value.cause or "")
    zygote.close()


def test_it_is_started_again_after_it_died_and_its_children_die_with_it(zygote: Zygote, tmp_path: Path) -> None:
    process = fork(zygote, tmp_path / "child.log", time.sleep, 60)
    first, folder = zygote.pid, zygote.folder
    assert first is not None
    os.kill(first, signal.SIGKILL)
    process.join(5)
    assert process.exitcode == -signal.SIGKILL
    deadline = time.monotonic() + 5
    while zygote.pid is not None and time.monotonic() < deadline:
        time.sleep(0.005)
    fork(zygote, tmp_path / "child.log", show).join(10)
    assert zygote.pid not in (None, first)
    assert not folder.exists()


def test_close_ends_it_and_its_children_and_clears_up(zygote: Zygote, tmp_path: Path) -> None:
    process = fork(zygote, tmp_path / "child.log", time.sleep, 60)
    folder = zygote.folder
    zygote.close()
    process.join(5)
    assert not process.is_alive()
    assert not folder.exists()
    with pytest.raises(EngineFailed, match="shutting down"):
        zygote.ensure()


@pytest.mark.parametrize("preload", ["decimal", "tests.engines.slow_preload"])
def test_nothing_outlives_a_killed_owner(tmp_path: Path, preload: str) -> None:
    """Also when it is killed while the zygote still preloads."""
    program = f"""
import os, sys, threading, time
from pathlib import Path
from heliosd.engines.zygote import ForkContext, Zygote

zygote = Zygote({preload!r}, dict(os.environ), Path({str(tmp_path)!r}, "zygote.log"))
threading.Thread(target=zygote.ensure, daemon=True).start()
while zygote.pid is None:
    time.sleep(0.01)
pids = [zygote.pid]
if {preload!r} == "decimal":
    zygote.ensure()
    child = ForkContext(zygote, Path({str(tmp_path)!r}, "child.log"), {{}}).Process(target=time.sleep, args=(60,))
    child.start()
    pids.append(child.pid)
print(*pids, flush=True)
time.sleep(60)
"""
    owner = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": HERE},
    )
    assert owner.stdout is not None
    pids = [int(pid) for pid in owner.stdout.readline().split()]
    owner.kill()
    owner.wait()
    owner.stdout.close()
    deadline = time.monotonic() + 3
    while any(alive(pid) for pid in pids):
        assert time.monotonic() < deadline, f"of {pids} something lives on"
        time.sleep(0.01)
