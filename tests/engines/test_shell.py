"""Processes made ahead, with a zygote that preloads next to nothing: what they become, and that none is left."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from heliosd.engines.shell import Shell
from heliosd.engines.zygote import ForkContext, ForkedProcess, Zygote
from heliosd.errors import EngineFailed
from tests.engines.answers import alive
from tests.engines.test_zygote import HERE, fail, open_files, show


@pytest.fixture
def zygote(tmp_path: Path) -> Iterator[Zygote]:
    made = Zygote("decimal", {**os.environ, "PYTHONPATH": HERE}, tmp_path / "zygote.log")
    made.ensure()
    yield made
    made.close()


def begin(zygote: Zygote, shell: Shell, log: Path, target: object, *args: object, **environment: str) -> ForkedProcess:
    context = ForkContext(zygote, log, environment)
    context.shell = shell
    process = context.Process(target=target, args=args)
    process.start()
    return process


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_it_becomes_what_it_is_told_with_the_environment_and_a_log_of_its_own(zygote: Zygote, tmp_path: Path) -> None:
    shell = Shell(zygote, None)
    assert alive(shell.pid)
    process = begin(zygote, shell, tmp_path / "child.log", show, "OWN", OWN="child")
    process.join(10)
    assert (process.pid, process.exitcode) == (shell.pid, 0)
    assert (tmp_path / "child.log").read_text().split("\n")[:2] == ["preloaded True", "OWN child"]
    assert shell.used
    assert not shell.alive


def test_what_fails_in_it_sends_its_traceback_home(zygote: Zygote, tmp_path: Path) -> None:
    process = begin(zygote, Shell(zygote, None), tmp_path / "child.log", fail, "broken on purpose")
    process.join(10)
    assert process.exitcode == 1
    assert "ValueError: broken on purpose" in (process.last_words or "")


def test_it_is_used_once_and_who_comes_second_is_forked(zygote: Zygote, tmp_path: Path) -> None:
    shell = Shell(zygote, None)
    first = begin(zygote, shell, tmp_path / "1.log", time.sleep, 60)
    second = begin(zygote, shell, tmp_path / "2.log", time.sleep, 60)
    assert first.pid == shell.pid
    assert second.pid not in (None, shell.pid)
    for process in (first, second):
        process.kill()
        process.join(10)
        assert process.exitcode == -signal.SIGKILL


def test_one_that_has_died_is_replaced_by_a_fork(zygote: Zygote, tmp_path: Path) -> None:
    shell = Shell(zygote, None)
    os.kill(shell.pid, signal.SIGKILL)
    until(lambda: not shell.alive)
    process = begin(zygote, shell, tmp_path / "child.log", show)
    process.join(10)
    assert process.exitcode == 0
    assert process.pid != shell.pid
    assert not shell.used
    shell.close()


def test_a_start_that_was_called_off_ends_it(zygote: Zygote, tmp_path: Path) -> None:
    context = ForkContext(zygote, tmp_path / "child.log", {})
    context.shell = Shell(zygote, None)
    process = context.Process(target=time.sleep, args=(60,))
    context.call_off()
    process.start()
    process.join(10)
    assert process.exitcode == -signal.SIGKILL


def test_nothing_is_left_of_one_that_is_given_up(zygote: Zygote) -> None:
    before = open_files()
    shell = Shell(zygote, None)
    shell.kill()
    shell.close()
    assert not alive(shell.pid)
    assert open_files() == before


def test_a_rehearsal_that_fails_is_an_error_with_its_words_and_leaves_nothing(zygote: Zygote, tmp_path: Path) -> None:
    before = open_files()
    with pytest.raises(EngineFailed, match="cannot make a shell: ModuleNotFoundError: No module named 'no_such'"):
        Shell(zygote, "no_such")
    assert open_files() == before
    until(lambda: len(children(zygote)) == 1)


def test_one_that_ends_in_its_rehearsal_is_told(zygote: Zygote, tmp_path: Path) -> None:
    (tmp_path / "ends.py").write_text("import os\ndef rehearse(): os._exit(3)\n")
    sys.path.insert(0, str(tmp_path))
    try:
        with pytest.raises(EngineFailed, match="its process ended while it rehearsed"):
            Shell(zygote, "ends")
    finally:
        sys.path.remove(str(tmp_path))


def test_without_a_zygote_there_is_none(tmp_path: Path) -> None:
    zygote = Zygote("decimal", {}, tmp_path / "zygote.log")
    with pytest.raises(EngineFailed, match="the zygote is not running"):
        Shell(zygote, None)


def test_it_ends_with_the_zygote(zygote: Zygote) -> None:
    shell = Shell(zygote, None)
    assert zygote.pid is not None
    os.kill(zygote.pid, signal.SIGKILL)
    until(lambda: not alive(shell.pid))
    assert not shell.alive
    shell.close()


def test_a_killed_daemon_leaves_none(tmp_path: Path) -> None:
    program = f"""
import os, time
from pathlib import Path
from heliosd.engines.shell import Shell
from heliosd.engines.zygote import Zygote

zygote = Zygote("decimal", dict(os.environ), Path({str(tmp_path)!r}, "zygote.log"))
zygote.ensure()
print(Shell(zygote, None).pid, zygote.pid, flush=True)
time.sleep(60)
"""
    daemon = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": HERE},
    )
    assert daemon.stdout is not None
    pids = [int(pid) for pid in daemon.stdout.readline().split()]
    daemon.kill()
    daemon.wait()
    daemon.stdout.close()
    until(lambda: not any(alive(pid) for pid in pids))


def test_several_are_made_and_used_at_a_time(zygote: Zygote, tmp_path: Path) -> None:
    processes: list[ForkedProcess] = []

    def live(number: int) -> None:
        processes.append(begin(zygote, Shell(zygote, None), tmp_path / f"{number}.log", show))

    threads = [threading.Thread(target=live, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for process in processes:
        process.join(10)
    assert [process.exitcode for process in processes] == [0] * 8
    assert len({process.pid for process in processes}) == 8


def children(zygote: Zygote) -> list[int]:
    """Its processes; one of them is the tracker of shared memory."""
    assert zygote.pid is not None
    return [int(pid) for pid in Path(f"/proc/{zygote.pid}/task/{zygote.pid}/children").read_text().split()]


def test_a_zygote_that_is_ready_has_started_all_that_belongs_to_it(tmp_path: Path) -> None:
    """Its tracker came a moment later once, and a cancelled start was said to have left it."""
    zygote = Zygote("tests.engines.slow_tracker", {**os.environ, "PYTHONPATH": HERE}, tmp_path / "zygote.log")
    zygote.ensure()
    try:
        assert len(children(zygote)) == 1
    finally:
        zygote.close()
