"""What the tests of the cluster share: members on loopback, small HTTP servers for peers, a reply that is watched."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from aiohttp import web

from heliosd.cluster.gossip import Gossip, GossipSettings
from heliosd.cluster.member import Member, MemberState, Meta
from heliosd.core.names import PeerName
from heliosd.engines.engine import Request, Ticket
from tests.loopback import on_loopback

KEY = b"k" * 32
WITHIN_S = 10.0


def gossip(name: str, *seeds: str, key: bytes = KEY, cluster: str = "helios", bind: str = "127.0.0.1:0") -> Gossip:
    settings = GossipSettings(key, bind, seeds, cluster, resolve_timeout_s=0.1, pace="local")
    return Gossip(PeerName(name), settings)


@asynccontextmanager
async def joined(name: str, *seeds: str, meta: Meta | None = None, key: bytes = KEY) -> AsyncIterator[Gossip]:
    node = gossip(name, *seeds, key=key)
    await node.join(meta or Meta("http://127.0.0.1:1", "1"))
    try:
        yield node
    finally:
        await node.leave()


def address(node: Gossip) -> str:
    return node.members()[0].address


async def heard(events: AsyncIterator[Member], wanted: Callable[[Member], bool]) -> Member:
    """The first member heard of that is `wanted`."""
    async with asyncio.timeout(WITHIN_S):
        async for member in events:
            if wanted(member):
                return member
    raise AssertionError("the events ended")


async def heard_of(events: AsyncIterator[Member], *names: str) -> None:
    """Return when all these were heard of as alive."""
    missing = set(names)
    async with asyncio.timeout(WITHIN_S):
        while missing:
            missing.discard((await heard(events, lambda member: member.state is MemberState.ALIVE)).name)


def peer(
    name: str = "b", *, api_url: str | None = None, state: MemberState = MemberState.ALIVE, **more: object
) -> Member:
    facts = {"address": "127.0.0.1:7946", "version": "1", "epoch": 1} | more
    return Member(PeerName(name), state, api_url=api_url, **facts)  # type: ignore[arg-type]


def request(
    path: str = "/v1/chat/completions", query: str = "", body: bytes = b"{}", method: str = "POST", **headers: str
) -> Request:
    pairs = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return Request(Ticket("t1"), method, path, query, pairs, body)


@dataclass
class Watched:
    """A reply that keeps what it got, and lets a test wait for it."""

    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    chunks: asyncio.Queue[bytes] = field(default_factory=asyncio.Queue)

    async def start(self, status: int, headers: list[tuple[str, str]]) -> None:
        self.status, self.headers = status, {name.lower(): value for name, value in headers}

    async def write(self, chunk: bytes) -> None:
        self.chunks.put_nowait(chunk)

    async def next(self) -> bytes:
        async with asyncio.timeout(WITHIN_S):
            return await self.chunks.get()

    def rest(self) -> bytes:
        text = b""
        with suppress(asyncio.QueueEmpty):
            while True:
                text += self.chunks.get_nowait()
        return text


@asynccontextmanager
async def serving(handler: Callable[[web.Request], object]) -> AsyncIterator[str]:
    """An HTTP server on loopback that answers everything with `handler`; yields its URL."""
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", handler)  # type: ignore[arg-type]
    async with on_loopback(app, handler_cancellation=True, shutdown_timeout=0.1) as url:
        yield url
