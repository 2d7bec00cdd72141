"""Who may do what: keys over TCP, the kernel's word on the Unix socket, signatures between peers."""

import grp
import ipaddress
import os
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from aiohttp import web

from heliosd.api.parts import ThePeers
from heliosd.api.routes import Scope
from heliosd.cluster.identity import PEER_HEADER
from heliosd.core.names import PeerName
from heliosd.errors import NeedsKey, NotAllowed
from heliosd.state.keys import Key, Keys

_SO_PEERGROUPS = 59  # Linux; Python's socket module has no name for it
_MAX_GROUPS = 256  # as much as Python's getsockopt returns; who is in more groups needs a key


@dataclass(frozen=True, slots=True)
class Credentials:
    """The process at the other end of a Unix socket, as the kernel vouches for it."""

    uid: int
    gids: frozenset[int]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, as far as that matters for what he gets."""

    peer: PeerName | None = None
    """The node that asks on behalf of its own client."""
    key: Key | None = None


class Auth:
    """Decides over each request, from memory only."""

    def __init__(
        self,
        keys: Keys,
        peers: ThePeers,
        *,
        admin_group: str,
        hosts: frozenset[str] = frozenset(),
        exposed: bool = False,
    ) -> None:
        self._keys = keys
        self._peers = peers
        self._admin_group = admin_group
        self._admin_gid = gid_of(admin_group)
        self._hosts = frozenset(host.lower() for host in hosts if host) | {"localhost"}
        self.exposed = exposed
        """Set by who listens: the TCP port can be reached from other machines."""

    def admit(self, request: web.Request, scope: Scope) -> Caller:
        """Let the request pass, or raise NeedsKey (401) or NotAllowed (403)."""
        credentials = _credentials(request)
        if scope is Scope.OPEN:
            self._know_host(request, credentials)
            return Caller()
        secret = _secret(request.headers)
        if credentials is not None and self._is_admin(credentials):
            return Caller(key=self._keys.find(secret) if secret else None)
        if token := request.headers.get(PEER_HEADER):
            return Caller(self._peer(token, request, scope))
        self._know_host(request, credentials)
        return Caller(key=self._need_key(secret, scope, credentials))

    def who(self, request: web.Request) -> str:
        """Who asks, for the audit; says nothing of whether he may."""
        if (secret := _secret(request.headers)) and (key := self._keys.find(secret)) is not None:
            return f"key {key.name}"
        if (credentials := _credentials(request)) is not None:
            return f"uid {credentials.uid}"
        if token := request.headers.get(PEER_HEADER):
            peer = self._peers.verify(token, request.method, request.raw_path)
            return f"node {peer}" if peer is not None else "nobody"
        return "nobody"

    def _peer(self, token: str, request: web.Request, scope: Scope) -> PeerName:
        peer = self._peers.verify(token, request.method, request.raw_path)
        if peer is None:
            raise NeedsKey(
                "cannot trust the peer that sent this: compare the cluster keys and the clocks of both nodes",
                code="invalid_peer_token",
            )
        if scope is Scope.ADMIN:
            raise NotAllowed(
                f"cannot let node {peer} do this: peers may use models, list them and fetch their files, no more"
            )
        return peer

    def _know_host(self, request: web.Request, credentials: Credentials | None) -> None:
        """Who needs no key is at this machine; so must be the name he asks for.

        A web page elsewhere can give its own name this machine's address and then ask in the user's browser, as if it
        came from here (DNS rebinding). The browser still says the page's name in `Host`, and knows no key.
        """
        host = request.headers.get("Host")
        if credentials is not None or self.exposed or host is None or self._is_own(host):
            return
        secret = _secret(request.headers)
        if secret is None or self._keys.find(secret) is None:
            raise NotAllowed(
                f"cannot answer for the host {host!r}: without an API key this node answers to localhost, 127.0.0.1, "
                "[::1], api.host and the host of cluster.advertise_url. Ask for one of these, or send a key "
                "(`heliosctl keys add NAME` makes one)",
                code="host_not_allowed",
            )

    def _is_own(self, host: str) -> bool:
        name = _without_port(host.lower())
        if name in self._hosts:
            return True
        try:
            return ipaddress.ip_address(name).is_loopback
        except ValueError:
            return False

    def _need_key(self, secret: str | None, scope: Scope, credentials: Credentials | None) -> Key | None:
        if scope is Scope.USE and not self.exposed and not self._keys.all():
            return None
        key = self._keys.find(secret) if secret else None
        if key is not None and (key.admin or scope is Scope.USE):
            return key
        if key is not None:
            raise NotAllowed(
                f"cannot do this with the key {key.name!r}: it is not an admin key. "
                "Make one with `heliosctl keys add NAME --admin` on the daemon's machine",
                code="admin_key_needed",
            )
        if secret:
            raise NeedsKey("cannot accept the API key: it is not known here", code="invalid_api_key")
        if credentials is not None:
            raise NotAllowed(
                f"cannot let user {credentials.uid} do this over the Unix socket: "
                f"be root, the daemon's user or a member of the group {self._admin_group}, or send an API key"
            )
        raise NeedsKey(
            "cannot do this without an API key: send `Authorization: Bearer KEY` or `x-api-key: KEY`. "
            "Make one with `heliosctl keys add NAME` on the daemon's machine"
        )

    def _is_admin(self, credentials: Credentials) -> bool:
        return credentials.uid in (0, os.geteuid()) or self._admin_gid in credentials.gids


def _secret(headers: Mapping[str, str]) -> str | None:
    scheme, _, token = headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    return headers.get("x-api-key") or None


def _without_port(host: str) -> str:
    """The name or address in a Host header: `[::1]:8484` is `::1`."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].removesuffix(".")


def _credentials(request: web.Request) -> Credentials | None:
    sock = request.get_extra_info("socket")
    if sock is None or sock.family != socket.AF_UNIX:
        return None
    _, uid, gid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return Credentials(uid, frozenset({gid, *_groups(sock)}))


def _groups(sock: socket.socket) -> tuple[int, ...]:
    """The supplementary groups of the process when it connected; none where the kernel does not tell."""
    size = struct.calcsize("I")
    try:
        raw = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, size * _MAX_GROUPS)
    except OSError:
        return ()
    return struct.unpack(f"{len(raw) // size}I", raw)


def gid_of(group: str) -> int | None:
    """The number of a group; None when this machine does not have it."""
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        return None
