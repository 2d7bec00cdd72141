"""A shell: a process forked from the zygote ahead of need, which waits to be told what engine it shall be.

It has done what does not depend on the model (`heliosd.engines.rehearsal`). Once told, it is an engine's process like
any other: exit code, last words and log are the engine's. Until then it sleeps in a read. It ends with the zygote, and
when the daemon closes its side.
"""

import io
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing import connection, forkserver, reduction
from typing import Protocol

from heliosd.engines import forked
from heliosd.engines.footprint import own_bytes
from heliosd.errors import EngineFailed

LONGEST_REHEARSAL_S = 60.0
"""Who is not ready by then is stuck."""


class Origin(Protocol):
    """What `heliosd.engines.zygote.Zygote` is to a shell."""

    @property
    def pid(self) -> int | None: ...
    def connect(self, fds: list[int]) -> tuple[int, int]: ...


class Shell:
    """One process. All but `become` and `alive` belong to who made it."""

    def __init__(self, zygote: Origin, rehearsal: str | None) -> None:
        """Fork it and wait until it has rehearsed: `rehearsal` names a module with a function `rehearse`. Blocks.

        Raises EngineFailed with its own words; it has ended then.
        """
        began = time.monotonic()
        self.used = False
        self.pid = 0
        zygote_pid = zygote.pid
        if zygote_pid is None:
            raise EngineFailed("cannot make a shell: the zygote is not running")
        data = io.BytesIO()
        reduction.dump({"name": "shell", "sys_path": sys.path}, data)
        reduction.dump(forked.Waiting(zygote_pid, rehearsal), data)
        self._ours, theirs = socket.socketpair()
        with theirs:
            try:
                self.sentinel, self.data_w = zygote.connect([theirs.fileno()])
            except BaseException:
                self._ours.close()
                raise
        try:
            with open(self.data_w, "wb", closefd=False) as pipe:
                pipe.write(data.getbuffer())
            self.pid = forkserver.read_signed(self.sentinel)
            self._wait_until_ready()
        except BaseException as error:
            self.kill()
            self.close()
            if isinstance(error, OSError | EOFError):
                raise EngineFailed(f"cannot make a shell: the zygote has just died ({error!r})") from error
            raise
        self.own_bytes = own_bytes(self.pid)
        """What it holds besides what it shares with the zygote: this goes when the shell goes."""
        self.made_s = time.monotonic() - began

    def _wait_until_ready(self) -> None:
        self._ours.settimeout(LONGEST_REHEARSAL_S)
        said = b""
        try:
            while more := self._ours.recv(1 << 16):
                said += more
                if said == forked.READY:
                    return
        except TimeoutError as error:
            late = f"cannot make a shell: it has rehearsed for {LONGEST_REHEARSAL_S:.0f} s and is not ready"
            raise EngineFailed(late) from error
        words = said.decode(errors="replace").strip()
        last = words.rpartition("\n")[2] or "its process ended while it rehearsed"
        raise EngineFailed(f"cannot make a shell: {last}", cause=words or None)

    @property
    def alive(self) -> bool:
        """Whether it still waits. Never again once it was told what to be: its exit code is somebody else's then."""
        return not self.used and not connection.wait([self.sentinel], 0)

    def become(self, message: bytes, fds: Sequence[int]) -> bool:
        """Tell it what to be, with the descriptors that the message counts on. False: it has ended, nothing began."""
        if not self.alive:
            return False
        try:
            self._ours.settimeout(None)
            socket.send_fds(self._ours, [len(message).to_bytes(8, "little")], fds)
            self._ours.sendall(message)
        except OSError:
            return False
        self.used = True
        self._ours.close()
        return True

    def kill(self) -> None:
        """Have it end. Harmless when it has, or when it was used."""
        if self.pid and self.alive:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """Wait for the end of one that was killed or died, and close what belongs to it. Once. Blocks."""
        self._ours.close()
        os.close(self.data_w)
        connection.wait([self.sentinel])
        os.close(self.sentinel)
