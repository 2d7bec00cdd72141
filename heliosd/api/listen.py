"""Gives the application its sockets: TCP, a Unix socket, or those that systemd opened already."""

import asyncio
import errno
import ipaddress
import logging
import os
import socket
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from heliosd.api.app import AUTH
from heliosd.api.auth import gid_of
from heliosd.errors import ConfigError, HeliosError

log = logging.getLogger("heliosd.api")

_BACKLOG = 1024


@dataclass(frozen=True, slots=True)
class Listening:
    """The API, while it can be reached."""

    runner: web.AppRunner
    host: str | None
    port: int | None
    """The TCP port that was got; None when there is none."""
    socket_path: Path | None
    _made: Path | None = None

    async def close(self) -> None:
        """Take no more connections and end the streams; requests still running are cut after a moment. Drain first."""
        await self.runner.cleanup()
        if self._made is not None:
            await asyncio.to_thread(self._made.unlink, missing_ok=True)


async def listen(
    app: web.Application,
    *,
    host: str | None,
    port: int,
    socket_path: Path | None,
    socket_group: str = "helios",
    inherited: Mapping[str, socket.socket] | None = None,
    grace_s: float = 1.0,
) -> Listening:
    """Answer requests from now on.

    A socket in `inherited` (from systemd) takes the place of the TCP or Unix address of its own family; `host` or
    `socket_path` None leaves that kind out. Raises ConfigError with what to do when an address cannot be had.
    """
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=grace_s)
    await runner.setup()
    given = tuple((inherited or {}).values())
    unix = [sock for sock in given if sock.family == socket.AF_UNIX]
    tcp = [sock for sock in given if sock.family in (socket.AF_INET, socket.AF_INET6)]
    made: Path | None = None
    try:
        if not tcp and host is not None:
            tcp = await _tcp_sockets(host, port)
        if not unix and socket_path is not None:
            unix = [await asyncio.to_thread(_unix_socket, socket_path, socket_group)]
            made = socket_path
        app[AUTH].exposed = any(not _loopback(sock) for sock in tcp)
        for sock in (*tcp, *unix):
            sock.setblocking(False)
            await web.SockSite(runner, sock, backlog=_BACKLOG).start()
    except BaseException:
        await runner.cleanup()
        raise
    name = tcp[0].getsockname() if tcp else (None, None)
    where = Path(unix[0].getsockname()) if unix else None
    log.info("listening", extra={"host": name[0], "port": name[1], "socket": str(where) if where else None})
    return Listening(runner, name[0], name[1], where, made)


async def _tcp_sockets(host: str, port: int) -> list[socket.socket]:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except socket.gaierror as error:
        raise ConfigError(f"cannot listen on {host}: {error}; set api.host to an address of this machine") from error
    bound: list[socket.socket] = []
    for family, kind, protocol, _, address in dict.fromkeys(found):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind((address[0], bound[0].getsockname()[1] if bound else port, *address[2:]))
        except OSError as error:
            sock.close()
            if error.errno == errno.EADDRNOTAVAIL and len(found) > 1:
                continue  # `localhost` has an IPv6 address also where IPv6 is switched off
            _close(bound)
            advice = "stop what listens there or set api.port" if error.errno == errno.EADDRINUSE else "set api.host"
            raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror}; {advice}") from error
        bound.append(sock)
    if not bound:
        raise ConfigError(f"cannot listen on {host}:{port}: it is no address of this machine; set api.host")
    return bound


def _unix_socket(path: Path, group: str) -> socket.socket:
    path.parent.mkdir(parents=True, exist_ok=True)
    _clear(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(str(path))
        path.chmod(0o660)  # nobody can connect before listen(), so there is no moment with other rights
        gid = gid_of(group)
        if gid is not None and os.geteuid() == 0:
            os.chown(path, -1, gid)
    except OSError as error:
        sock.close()
        raise ConfigError(
            f"cannot make the socket {path}: {error.strerror}; set api.socket to a place that can be written"
        ) from error
    return sock


def _clear(path: Path) -> None:
    """Remove what a daemon that was killed left behind; never another one's socket, and no other file."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ConfigError(f"cannot make the socket {path}: a file is there that is no socket; set api.socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            path.unlink(missing_ok=True)
            return
    raise HeliosError(
        f"cannot listen on {path}: another heliosd answers there; stop it, or set api.socket and api.port",
        code="already_running",
    )


def _loopback(sock: socket.socket) -> bool:
    return ipaddress.ip_address(sock.getsockname()[0].partition("%")[0]).is_loopback


def _close(sockets: Iterable[socket.socket]) -> None:
    for sock in sockets:
        sock.close()
