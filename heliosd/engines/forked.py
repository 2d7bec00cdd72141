"""What runs on the far side of a fork: in the zygote itself, and first thing in each engine forked from it.

Kept free of heavy imports, because the zygote reads this file before it preloads anything.
"""

import ctypes
import importlib
import io
import os
import pickle
import select
import shutil
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing import forkserver, resource_tracker, spawn
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, cast

from heliosd.engines.old_logs import hold

READY = b"ready"

_tracker_fds: list[int] = []
"""Where engines report shared memory to, so that it is freed after a kill. The zygote's own: it keeps quiet."""

_PR_SET_PDEATHSIG = 1
_LAST_WORDS_BYTES = 32 * 1024
_MOST_FDS = 256

born_at = 0.0
"""When this process began to be an engine, on the system's monotonic clock. Set in every engine process."""
born_as = "fork"
"""The phase of the start that ended then: `fork`, or `shell` in a process that was made ahead."""


def serve(listener_fd: int, alive_fd: int, ready_fd: int, preload: str, socket_path: str) -> None:
    """Be the zygote: import `preload`, tell `ready_fd`, then fork on request until `alive_fd` closes."""
    code = 1
    try:
        with _dies_with(alive_fd, Path(socket_path).parent):
            importlib.import_module(preload)
        resource_tracker.ensure_running()  # it is a process, too: who hears READY finds all that belongs to a zygote
        _tracker_fds.append(cast(Any, resource_tracker).getfd())
        os.write(ready_fd, READY)
        os.close(ready_fd)
        forkserver.main(listener_fd, alive_fd, [])
    except SystemExit:
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        # The daemon may be gone by SIGKILL: nobody else would clean up. And with all that is imported here,
        # an orderly end of the interpreter takes longer than it is worth.
        shutil.rmtree(Path(socket_path).parent, ignore_errors=True)
        sys.stderr.flush()
        os._exit(code)


class _dies_with:  # noqa: N801 - reads as a statement
    """While the block runs, end this process, and remove `folder`, when the other side of `alive_fd` is closed.

    The preload takes seconds, in which nobody reads the pipe. The thread is gone before the first fork.
    """

    def __init__(self, alive_fd: int, folder: Path) -> None:
        self._alive = alive_fd
        self._folder = folder
        self._done_r, self._done_w = os.pipe()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        readable, _, _ = select.select([self._alive, self._done_r], [], [])
        if self._alive in readable:
            shutil.rmtree(self._folder, ignore_errors=True)
            os._exit(0)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        os.close(self._done_w)
        self._thread.join()
        os.close(self._done_r)


@dataclass(frozen=True, slots=True)
class Arrival:
    """All that a forked engine process is given; the fork server calls `_bootstrap` on it."""

    zygote_pid: int
    log_file: str
    environment: Mapping[str, str]
    last_words: Connection
    process: bytes
    """The pickled process: opened only when its output goes to the log and its failure would be heard."""

    def _bootstrap(self, parent_sentinel: int) -> int:
        global born_at  # noqa: PLW0603 - there is one process
        born_at = time.monotonic()
        die_with_parent(self.zygote_pid)
        with Path(self.log_file).open("ab", buffering=0) as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        hold(2)
        os.environ.update(self.environment)
        cast(Any, resource_tracker)._resource_tracker._fd = _tracker_fds[0]
        try:
            process = cast(Any, pickle.loads(self.process))
        except Exception:
            return self._report(1)
        process._target = _Heard(process._target, self)
        return cast(int, cast(BaseProcess, process)._bootstrap(parent_sentinel=parent_sentinel))  # type: ignore[attr-defined]

    def _report(self, code: int) -> int:
        traceback.print_exc()
        text = traceback.format_exc().encode(errors="replace")[-_LAST_WORDS_BYTES:]
        try:
            self.last_words.send_bytes(text)
        except OSError:
            return code  # the daemon no longer listens; the log has it
        return code


@dataclass(frozen=True, slots=True)
class _Heard:
    """Calls the engine's main function and sends the traceback home when it fails."""

    target: Callable[..., None]
    arrival: Arrival

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        try:
            self.target(*args, **kwargs)
        except Exception:
            raise SystemExit(self.arrival._report(1)) from None


@dataclass(frozen=True, slots=True)
class Waiting:
    """What a shell is given instead: it rehearses, says READY, and is told by the socket what it shall be."""

    zygote_pid: int
    rehearsal: str | None

    def _bootstrap(self, parent_sentinel: int) -> int:
        global born_as  # noqa: PLW0603 - there is one process
        die_with_parent(self.zygote_pid)
        cast(Any, resource_tracker)._resource_tracker._fd = _tracker_fds[0]
        (fd,) = cast(list[int], forkserver.get_inherited_fds())
        with socket.socket(fileno=fd) as daemon:
            try:
                if self.rehearsal is not None:
                    importlib.import_module(self.rehearsal).rehearse()
            except Exception:
                traceback.print_exc()
                daemon.sendall(traceback.format_exc().encode(errors="replace")[-_LAST_WORDS_BYTES:])
                return 1
            daemon.sendall(READY)
            told = _hear(daemon)
        if told is None:
            return 0  # it is not needed
        born_as = "shell"
        spawn.prepare(pickle.load(told))
        return cast(int, pickle.load(told)._bootstrap(parent_sentinel))


def _hear(daemon: socket.socket) -> io.BytesIO | None:
    """What the daemon says, the descriptors that come with it put where multiprocessing looks; None: it has left."""
    length, fds, _, _ = socket.recv_fds(daemon, 8, _MOST_FDS, socket.MSG_WAITALL)
    if len(length) < 8:
        return None
    with daemon.makefile("rb") as stream:
        told = stream.read(int.from_bytes(length, "little"))
    cast(Any, forkserver)._forkserver._inherited_fds = list(fds)
    return io.BytesIO(told)


def answer_call(function: bytes, answer: Connection) -> None:
    """Call a pickled function and send back what it returns, pickled."""
    with answer:
        answer.send_bytes(pickle.dumps(pickle.loads(function)()))


def die_with_parent(parent_pid: int) -> None:
    """Have the kernel kill this process when its parent ends, however it ends."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:  # it ended before we asked
        os._exit(1)
