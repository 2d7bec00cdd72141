"""The zygote: one process that has imported everything an engine needs, and from which engines are forked.

A multiprocessing fork server with three differences. Its environment is its own and fixed (thread counts, allocator),
not the daemon's. A preload that fails is an error with the traceback; the standard one skips it without a word
and every start is then ten times slower. And it lives exactly as long as the daemon, and the engines as long as
it, also when the daemon is killed: only the daemon holds the pipe whose end it waits for.

Knows nothing of vLLM.
"""

import io
import logging
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from multiprocessing import connection, context, forkserver, popen_forkserver, process, reduction, util
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

from heliosd.core.units import MiB
from heliosd.engines import forked
from heliosd.engines.shell import Shell
from heliosd.errors import EngineFailed

log = logging.getLogger("heliosd.engines")

_TAIL_BYTES = 8 * 1024
_LONGEST_LOG_BYTES = 10 * MiB

T = TypeVar("T")


class Zygote:
    """Started on demand, again after it died. All methods block: call them from a thread."""

    def __init__(self, preload: str, environment: Mapping[str, str], log_file: Path) -> None:
        self._preload = preload
        self._environment = dict(environment)
        self._log_file = log_file
        self._starting = threading.Lock()
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._alive_w = -1
        """Ours to close as long as `_process` is set."""
        self._socket_path = ""
        self.folder = Path()
        """For sockets. Set while the zygote runs; it removes it when it ends."""
        self._closed = False

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        now = self._process
        return None if now is None or now.poll() is not None else now.pid

    def ensure(self) -> None:
        """Return when the zygote is there and has preloaded. Raises EngineFailed with its own words."""
        with self._starting:  # whoever comes second waits for the preload, too
            with self._lock:
                if self._process is not None:
                    if self._process.poll() is None:
                        return
                    log.warning("zygote died", extra={"exit": self._process.returncode})
                    self._let_go()
                    shutil.rmtree(self.folder, ignore_errors=True)
                if self._closed:
                    raise EngineFailed("cannot start an engine: the daemon is shutting down")
                ready_r = self._spawn()
            with open(ready_r, "rb") as ready:  # noqa: PTH123 - a descriptor
                answer = ready.read()
            if answer != forked.READY:
                self._fail()

    def _spawn(self) -> int:
        """Start the process; return the descriptor that says `READY`, or ends."""
        with ExitStack() as theirs, ExitStack() as ours:
            self.folder = Path(tempfile.mkdtemp(prefix="helios-"))
            ours.callback(shutil.rmtree, self.folder, ignore_errors=True)
            self._socket_path = str(self.folder / "fork")
            alive_r, alive_w = _pipe(theirs, ours)
            ready_r, ready_w = _pipe(ours, theirs)
            listener = theirs.enter_context(socket.socket(socket.AF_UNIX))
            output = theirs.enter_context(self._open_log())
            listener.bind(self._socket_path)
            listener.listen()
            passed = (listener.fileno(), alive_r, ready_w)
            call = f"serve({passed[0]}, {passed[1]}, {passed[2]}, {self._preload!r}, {self._socket_path!r})"
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", f"from heliosd.engines.forked import serve; {call}"],
                # vLLM leaves a file in TMPDIR at every start; the folder is removed when the zygote ends.
                env=self._environment | {"PYTHONPATH": _python_path(self._environment), "TMPDIR": str(self.folder)},
                pass_fds=passed,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # Ctrl-C in the daemon's terminal is for the daemon, which then stops the engines in order.
                start_new_session=True,
            )
            self._alive_w = alive_w
            ours.pop_all()
        return ready_r

    def _open_log(self) -> BinaryIO:
        self._log_file.parent.mkdir(parents=True, exist_ok=True)
        log_file = self._log_file.open("ab")
        if log_file.tell() > _LONGEST_LOG_BYTES:
            log_file.truncate(0)
        return log_file

    def _let_go(self) -> None:
        """Have it end, if it has not, and forget it: what is closed twice may be somebody else's by then."""
        self._process = None
        os.close(self._alive_w)

    def _fail(self) -> None:
        now = self._process
        if now is not None:
            now.kill()
            now.wait()
        words = tail(self._log_file)
        if self._closed:
            raise EngineFailed("cannot start the engine zygote: the daemon is shutting down")
        last = words.strip().rpartition("\n")[2]
        raise EngineFailed(
            f"cannot start the engine zygote: preloading {self._preload} failed: {last}; "
            f"its output is in {self._log_file}",
            cause=words,
        )

    def connect(self, fds: list[int]) -> tuple[int, int]:
        """Ask for a child. Returns a descriptor to read its pid and exit code from, and one to write its data to."""
        with socket.socket(socket.AF_UNIX) as client:
            try:
                client.connect(self._socket_path)
            except (ConnectionError, FileNotFoundError) as error:
                raise EngineFailed(
                    "cannot fork an engine: the zygote has just died; the next start replaces it"
                ) from error
            # In the standard server the third descriptor is the pipe that keeps the server alive, and the fourth
            # leads to the daemon's resource tracker. Engines must not do the one and have their own for the other.
            with ExitStack() as theirs, ExitStack() as ours:
                status_r, status_w = _pipe(ours, theirs)
                data_r, data_w = _pipe(theirs, ours)
                nothing = theirs.enter_context(open(os.devnull, "rb"))  # noqa: PTH123
                reduction.sendfds(client, [data_r, status_w, nothing.fileno(), nothing.fileno(), *fds])
                ours.pop_all()
            return status_r, data_w

    def close(self) -> None:
        """End the zygote and with it any engine still forked from it."""
        self._closed = True
        with self._lock:
            now = self._process
            if now is None:
                return
            self._let_go()
        try:
            now.wait(timeout=2)
        except subprocess.TimeoutExpired:
            now.kill()
            now.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


class ForkContext(ForkServerContext):
    """A multiprocessing context whose processes are forked from one zygote, with output to one log file."""

    def __init__(self, zygote: Zygote, log_file: Path, environment: Mapping[str, str]) -> None:
        super().__init__()
        self.zygote = zygote
        self.log_file = log_file
        self.environment = dict(environment)
        self.started: list[ForkedProcess] = []
        self.called_off = False
        self.begun: Callable[[ForkedProcess], object] = lambda process: None
        """Called with each process, in the thread that has started it."""
        self.shell: Shell | None = None
        """The first process begins in it, if it is there and still lives."""

    def call_off(self) -> None:
        """Kill what was started, and what is being started as soon as it has a process id."""
        self.called_off = True
        for made in self.started:
            if made.pid is not None:
                made.kill()

    def Process(self, *args: Any, **kwargs: Any) -> "ForkedProcess":  # type: ignore[override]  # noqa: N802
        made = ForkedProcess(*args, **kwargs)
        made.origin = self
        self.started.append(made)
        return made


def call_in_fork(zygote: Zygote, log_file: Path, function: Callable[[], T]) -> T:
    """Call a function (a lambda, too) in a process forked for it, and return what it returned.

    Blocks. Raises RuntimeError with the traceback when it fails there.
    """
    import cloudpickle  # comes with vLLM

    answer, told = connection.Pipe(duplex=False)
    made = ForkContext(zygote, log_file, {}).Process(
        target=forked.answer_call, args=(cloudpickle.dumps(function), told)
    )
    made.start()
    told.close()
    with answer:
        try:
            return cast(T, pickle.loads(answer.recv_bytes()))
        except EOFError:
            made.join()
            raise RuntimeError(made.last_words or f"its process ended with {made.exitcode}") from None


class ForkedProcess(process.BaseProcess):
    """A process forked from a zygote; otherwise as multiprocessing's own."""

    _start_method = "forkserver"
    origin: ForkContext | None = None

    @staticmethod
    def _Popen(process_obj: "ForkedProcess") -> "_Popen":  # noqa: N802
        return _Popen(process_obj)

    def start(self) -> None:
        super().start()
        if self.origin is not None:
            self.origin.begun(self)
            if self.origin.called_off:
                self.kill()  # who called it off found no process id yet
        # Its owner ends it; at the interpreter's exit nobody should wait for it.
        cast(Any, process)._children.discard(self)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in ("origin", "_popen")}

    @property
    def last_words(self) -> str | None:
        """The traceback it ended with, if it told one."""
        popen = cast(_Popen | None, getattr(self, "_popen", None))
        return None if popen is None else popen.last_words()


class _Popen(popen_forkserver.Popen):
    """Launches through a zygote of ours, and may be asked for the exit code by several threads."""

    def __init__(self, process_obj: ForkedProcess) -> None:
        self._lock = threading.Lock()
        self._words: str | None = None
        super().__init__(process_obj)

    def _launch(self, process_obj: ForkedProcess) -> None:
        origin = process_obj.origin
        assert origin is not None
        self._heard, told = connection.Pipe(duplex=False)
        # Only what the child needs: the standard data would have it import the daemon's main module again.
        preparation = {
            "name": process_obj.name,
            "authkey": process.current_process().authkey,
            "sys_path": sys.path,
        }
        data = io.BytesIO()
        inner = io.BytesIO()
        context.set_spawning_popen(self)
        try:
            reduction.dump(process_obj, inner)
            pid = origin.zygote.pid
            if pid is None:
                raise EngineFailed("cannot fork an engine: the zygote is not running")
            arrival = forked.Arrival(pid, str(origin.log_file), origin.environment, told, inner.getvalue())
            reduction.dump(preparation, data)
            reduction.dump(arrival, data)
        finally:
            context.set_spawning_popen(None)
        shell, origin.shell = origin.shell, None
        if shell is not None and shell.become(data.getvalue(), cast(Any, self)._fds):
            self.sentinel, parent_w, self.pid = shell.sentinel, shell.data_w, shell.pid
            told.close()
            self.finalizer = util.Finalize(self, cast(Any, util).close_fds, (parent_w, self.sentinel))
            return
        self.sentinel, data_w = origin.zygote.connect(cast(Any, self)._fds)
        told.close()
        parent_w = os.dup(data_w)
        self.finalizer = util.Finalize(self, cast(Any, util).close_fds, (parent_w, self.sentinel))
        with open(data_w, "wb", closefd=True) as pipe:  # noqa: PTH123
            pipe.write(data.getbuffer())
        self.pid = forkserver.read_signed(self.sentinel)

    def poll(self, flag: int = os.WNOHANG) -> int | None:
        if self.returncode is None:
            if not connection.wait([self.sentinel], 0 if flag == os.WNOHANG else None):
                return None
            with self._lock:  # the exit code can be read only once
                if self.returncode is None:
                    try:
                        self.returncode = forkserver.read_signed(self.sentinel)
                    except (OSError, EOFError):
                        self.returncode = -signal.SIGKILL  # the zygote is gone, and its engines with it
        return self.returncode

    def last_words(self) -> str | None:
        with self._lock:
            try:
                if self._words is None and self._heard.poll():
                    self._words = self._heard.recv_bytes().decode(errors="replace")
            except (EOFError, OSError):
                return self._words
        return self._words


def _pipe(reading: ExitStack, writing: ExitStack) -> tuple[int, int]:
    """Two descriptors, each closed by the stack it is given to."""
    read, write = os.pipe()
    reading.callback(os.close, read)
    writing.callback(os.close, write)
    return read, write


def tail(file: Path, n_bytes: int = _TAIL_BYTES) -> str:
    """The end of a log file; empty when there is none."""
    try:
        with file.open("rb") as log_file:
            log_file.seek(max(0, file.stat().st_size - n_bytes))
            return log_file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""


def _python_path(environment: Mapping[str, str]) -> str:
    """The zygote must find heliosd however it was installed, and never by its working directory."""
    here = str(Path(forked.__file__).parents[2])
    before = environment.get("PYTHONPATH")
    return f"{here}{os.pathsep}{before}" if before else here
