"""Membership by gossip: SWIM with Lifeguard over UDP, encrypted with the cluster's key, through `kinship`.

Only kinship's blocking calls are used, from threads of ours that end before the interpreter does. Its asyncio calls
complete futures from kinship's own thread, and 3.11 crashed at exit in one run of a dozen when that thread was still
on its way out of Python. The protocol itself runs in Rust: a busy event loop does not make this node look dead.

In the gossip every run of a node has a name of its own, `name~run`: kinship keeps a name to its address for long after
its node has gone (measured: more than 15 s), and a pod that is made anew comes back at another address at once. Of the
runs of one name only the latest that is present is shown.
"""

import asyncio
import contextlib
import logging
import secrets
import threading
from collections.abc import AsyncIterator, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal

import kinship
from kinship import blocking

from heliosd.cluster.member import Member, MemberState, Meta, meta_of, parse_name, self_of
from heliosd.core.names import PeerName
from heliosd.errors import ConfigError, Unavailable

log = logging.getLogger("heliosd.cluster")

Pace = Literal["lan", "wan", "local"]

_STATES = {
    kinship.State.ALIVE: MemberState.ALIVE,
    kinship.State.SUSPECT: MemberState.SUSPECT,
    kinship.State.DEAD: MemberState.DEAD,
    kinship.State.LEFT: MemberState.LEFT,
}


@dataclass(frozen=True, slots=True)
class GossipSettings:
    key: bytes = field(repr=False)
    """32 bytes that every node of the cluster has; see `identity.derive_key`."""
    bind: str = "127.0.0.1:7946"
    """Address and port, for UDP and TCP, at which the others reach this node; port 0 takes any."""
    seeds: tuple[str, ...] = ()
    """`host:port` of some nodes, itself allowed; a DNS name stands for all its addresses and is looked up again."""
    cluster: str = "helios"
    """Clusters of another name ignore this node."""
    resolve_timeout_s: float = 5.0
    """Joining is given up for now when no seed's name resolves within this time."""
    pace: Pace = "lan"
    """How fast silence becomes suspicion: a killed node is dead after 6 s in `lan`, 1 s in `local` (loopback only)."""


class Gossip:
    """Implements `Membership`."""

    def __init__(self, name: PeerName, settings: GossipSettings) -> None:
        self._name = name
        self._settings = settings
        self._meta = Meta(None, "")
        self._cluster: blocking.Cluster | None = None
        self._reader: threading.Thread | None = None
        self._gone: set[str] = set()
        # One thread: a start that was given up is over before the leave that undoes it.
        self._calls = ThreadPoolExecutor(max_workers=1, thread_name_prefix="gossip")

    async def join(self, meta: Meta) -> None:
        self._meta = meta
        await asyncio.get_running_loop().run_in_executor(self._calls, self._start)
        members = self.members()
        log.info("gossip started", extra={"address": members[0].address, "peers": len(members) - 1})

    def members(self) -> tuple[Member, ...]:
        if self._cluster is None:
            return (self_of(self._name, self._settings.bind, 0, self._meta),)
        local = self._cluster.local
        me = self_of(self._name, local.addr, local.epoch, self._meta)
        return (me, *(latest for _, latest in sorted(_latest(self._peers()).items())))

    async def events(self) -> AsyncIterator[Member]:
        if self._cluster is None:
            return
        news: asyncio.Queue[kinship.Event | Exception | None] = asyncio.Queue()
        self._reader = threading.Thread(
            target=_read,
            args=(self._cluster.events(), asyncio.get_running_loop(), news),
            name="gossip-events",
            daemon=True,
        )
        self._reader.start()
        for member in self.members()[1:]:
            yield member
        while (event := await news.get()) is not None:
            for member in self._heard(event):
                yield member

    async def set_meta(self, meta: Meta) -> None:
        self._meta = meta
        await asyncio.get_running_loop().run_in_executor(self._calls, self._tell)

    async def leave(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._calls, self._stop)

    def _heard(self, event: kinship.Event | Exception) -> tuple[Member, ...]:
        match event:
            case Exception():
                self._cluster = None
                raise Unavailable("cannot gossip any more: the protocol stopped", cause=str(event)) from event
            case kinship.EventsLost():
                return self.members()[1:]
            case kinship.NameConflict() | kinship.UserMessage():
                return ()
        if event.member.state in (kinship.State.DEAD, kinship.State.LEFT):
            self._gone.add(event.member.name)
        changed = _member(event.member)
        if changed is None or changed.name == self._name:
            log.warning(
                "another node has this node's name" if changed else "peer ignored: its name is not acceptable",
                extra={"peer": repr(event.member.name), "address": event.member.addr, "state": event.member.state.name},
            )
            return ()
        peers = [peer for peer in self._peers() if peer.name == changed.name]
        if sum(peer.state is MemberState.ALIVE for peer in peers) > 1:
            log.warning("two nodes have one name: the later one is used", extra={"peer": changed.name})
        log.info(f"peer is {changed.state}", extra={"peer": changed.name, "address": changed.address})
        return (_latest([changed, *peers])[changed.name],)

    def _peers(self) -> list[Member]:
        """All runs of all other nodes, with those that have gone as long as kinship remembers them."""
        if self._cluster is None:
            return []
        raw = {peer.name: peer for peer in self._cluster.members()}
        for name in self._gone - raw.keys():
            tombstone = self._cluster.member(name)
            if tombstone is None:
                self._gone.discard(name)
            else:
                raw[name] = tombstone
        return [member for peer in raw.values() if (member := _member(peer)) and member.name != self._name]

    # ---- on the thread of calls --------------------------------------------

    def _start(self) -> None:
        settings = self._settings
        try:
            config = getattr(kinship.Config, settings.pace)(
                name=f"{self._name}~{secrets.token_hex(3)}",
                bind=settings.bind,
                seeds=list(settings.seeds),
                cluster=settings.cluster,
                keys=[settings.key],
                meta=self._meta.tags(),
                resolve_timeout=settings.resolve_timeout_s,
            )
            self._cluster = blocking.Cluster(config).start()
        except kinship.JoinError as error:
            seeds = ", ".join(settings.seeds)
            raise Unavailable(f"cannot find the cluster: none of {seeds} resolves", cause=str(error)) from error
        except (OSError, kinship.KinshipError) as error:
            raise ConfigError(f"cannot gossip on {settings.bind} as {self._name}: {error}") from error

    def _tell(self) -> None:
        if self._cluster is None:
            return
        try:
            self._cluster.set_meta(self._meta.tags(), timeout=5.0)
        except kinship.KinshipClosed:
            return  # the reader of events has said so
        except (TimeoutError, kinship.KinshipError) as error:
            # Peers learn it with the next change; nothing else of the daemon may stop for it.
            log.warning("peers not told", extra={"error": str(error)})

    def _stop(self) -> None:
        if self._cluster is None:
            return
        with contextlib.suppress(kinship.KinshipClosed):
            self._cluster.close()
        if self._reader is not None:
            self._reader.join()
        self._cluster = None


def _read(
    events: blocking.EventStream,
    loop: asyncio.AbstractEventLoop,
    news: "asyncio.Queue[kinship.Event | Exception | None]",
) -> None:
    """Carry events to the loop until the cluster closes. Runs on a thread of its own."""
    last: Exception | None = None
    # RuntimeError: the loop is gone, so nobody listens any more.
    with contextlib.suppress(RuntimeError):
        try:
            for event in events:
                loop.call_soon_threadsafe(news.put_nowait, event)
        except kinship.KinshipError as error:
            last = error
        loop.call_soon_threadsafe(news.put_nowait, last)


def _latest(members: Iterable[Member]) -> dict[PeerName, Member]:
    """One run of each node: a present one if there is one, the latest of several."""
    ordered = sorted(members, key=lambda member: (member.present, member.epoch))
    return {member.name: member for member in ordered}


def _member(peer: kinship.Member) -> Member | None:
    try:
        name = parse_name(peer.name.partition("~")[0])
    except ValueError:
        return None
    meta = meta_of(peer.meta)
    return Member(
        name,
        _STATES[peer.state],
        peer.addr,
        meta.api_url,
        meta.version,
        peer.epoch,
        meta.catalogue,
        meta.draining,
        meta.load,
    )
