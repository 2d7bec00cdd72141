"""What the service manager is told and tells: readiness, signs of life, status, inherited sockets.

Speaks systemd's datagram protocol itself; without a service manager everything here does nothing.
"""

import asyncio
import logging
import os
import socket
import time
from collections.abc import Mapping, MutableMapping

log = logging.getLogger("heliosd.notify")

_FIRST_FD = 3
"""systemd passes sockets from this file descriptor on."""


class Notifier:
    """Tells the service manager how the daemon is. Never waits and never raises: a lost message is logged."""

    def __init__(self, address: str | None, beat_s: float | None = None) -> None:
        """`address` is NOTIFY_SOCKET: a path, `@name` for an abstract socket, None when nobody listens.

        `beat_s` is the time between two signs of life, None when nobody asked for them.
        """
        self._beat_s = beat_s
        self._address = ""
        self._socket: socket.socket | None = None
        if address and address[0] in "/@":
            self._address = f"\0{address[1:]}" if address[0] == "@" else address
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        elif address:
            log.warning("notify socket ignored", extra={"address": address, "reason": "neither a path nor @name"})

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] = os.environ) -> "Notifier":
        """As the service manager asked in NOTIFY_SOCKET and WATCHDOG_USEC."""
        return cls(environ.get("NOTIFY_SOCKET"), watchdog_interval_s(environ))

    def ready(self, status: str = "") -> None:
        """The API answers. Also ends `reloading`."""
        self._send("READY=1", *_status(status))

    def reloading(self) -> None:
        """The configuration is being read again; `ready` must follow, whether it was good or not."""
        now_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send("RELOADING=1", f"MONOTONIC_USEC={now_us}")

    def stopping(self, deadline_s: float, status: str = "") -> None:
        """The daemon goes down and may take `deadline_s` seconds, also when the unit's own timeout is shorter."""
        self._send("STOPPING=1", f"EXTEND_TIMEOUT_USEC={round(deadline_s * 1e6)}", *_status(status))

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._send(*_status(text))

    def watchdog(self) -> None:
        """A sign of life."""
        self._send("WATCHDOG=1")

    async def beat(self) -> None:
        """Give signs of life from the event loop, so that a stuck loop is noticed. Runs until cancelled.

        Returns at once when nobody asked for any.
        """
        while self._beat_s and self._socket:
            self.watchdog()
            await asyncio.sleep(self._beat_s)

    def close(self) -> None:
        if self._socket:
            self._socket.close()
            self._socket = None

    def _send(self, *assignments: str) -> None:
        if not self._socket:
            return
        try:
            self._socket.sendto("\n".join(assignments).encode(), self._address)
        except OSError as error:
            log.warning("notify lost", extra={"told": assignments[0], "reason": str(error)})


def _status(text: str) -> tuple[str, ...]:
    line = " ".join(text.split())
    return (f"STATUS={line}",) if line else ()


def watchdog_interval_s(environ: Mapping[str, str] = os.environ) -> float | None:
    """Seconds between two signs of life: half of what the service manager waits for. None: it does not wait."""
    span = environ.get("WATCHDOG_USEC", "")
    meant_for = environ.get("WATCHDOG_PID", "")
    if not span.isdecimal() or int(span) == 0 or (meant_for and meant_for != str(os.getpid())):
        return None
    return int(span) / 2 / 1e6


def listen_sockets(
    environ: MutableMapping[str, str] = os.environ, first_fd: int = _FIRST_FD
) -> dict[str, socket.socket]:
    """Take over the listening sockets of LISTEN_FDS, named by what they are: `unix`, `tcp`, then `tcp2` and so on.

    Call once: the variables are removed, so that no engine thinks the sockets are its own. What is neither a
    listening Unix nor TCP socket is left out, with a warning.
    """
    count, meant_for = environ.pop("LISTEN_FDS", ""), environ.pop("LISTEN_PID", "")
    environ.pop("LISTEN_FDNAMES", None)
    inherited: dict[str, socket.socket] = {}
    if not count.isdecimal() or meant_for != str(os.getpid()):
        return inherited
    for fd in range(first_fd, first_fd + int(count)):
        try:
            found = socket.socket(fileno=fd)
            listens = found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        except OSError as error:
            log.warning("inherited descriptor ignored", extra={"fd": fd, "reason": str(error)})
            continue
        if found.type != socket.SOCK_STREAM or not listens:
            log.warning("inherited descriptor ignored", extra={"fd": fd, "reason": "no listening stream socket"})
            found.close()
            continue
        found.set_inheritable(False)
        found.setblocking(False)
        kind = "unix" if found.family == socket.AF_UNIX else "tcp"
        n = 1 + sum(name.startswith(kind) for name in inherited)
        inherited[kind if n == 1 else f"{kind}{n}"] = found
    return inherited
