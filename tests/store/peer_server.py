"""Another node on this machine that has files, and misbehaves on request; and the store's view of several."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web
from yarl import URL

from heliosd.core.names import Digest, ModelRef
from heliosd.store.sources.nearby import Holder, Offer
from heliosd.store.sources.source import SourceFile
from tests.loopback import on_loopback

PROOF = {"x-helios-peer": "good"}


@dataclass
class PeerServer:
    name: str = "east"
    models: dict[str, dict[str, bytes]] = field(default_factory=dict)
    lies: bool = False
    """All bytes are others, of the right number."""
    short_by: int = 0
    """Each answer ends so many bytes early."""
    dies_after: int | None = None
    """Once so many bytes went out, every connection is cut."""
    trickles: bool = False
    redirects: bool = False
    sent_bytes: int = 0
    asked: list[str | None] = field(default_factory=list)
    """The ranges that were asked for."""
    url: str = ""

    def content(self, digest: str) -> bytes | None:
        files = (content for files in self.models.values() for content in files.values())
        return next((content for content in files if sha256(content) == digest), None)


def sha256(content: bytes) -> Digest:
    return Digest(hashlib.sha256(content).hexdigest())


@asynccontextmanager
async def running_peer(peer: PeerServer) -> AsyncIterator[PeerServer]:
    """Serve on a free port for the length of the block."""

    async def blob(request: web.Request) -> web.StreamResponse:
        return await _blob(peer, request)

    app = web.Application()
    app.router.add_get("/helios/v1/blobs/{digest}", blob, allow_head=False)
    async with on_loopback(app, access_log=None, shutdown_timeout=0.1) as peer.url:
        yield peer


async def _blob(peer: PeerServer, request: web.Request) -> web.StreamResponse:
    peer.asked.append(request.headers.get("Range"))
    if request.headers.get("x-helios-peer") != PROOF["x-helios-peer"]:
        raise web.HTTPUnauthorized
    if peer.redirects:
        raise web.HTTPFound("http://127.0.0.1:1/elsewhere")
    content = peer.content(request.match_info["digest"])
    if content is None:
        raise web.HTTPNotFound
    asked = request.http_range
    begin, end = asked.start or 0, asked.stop or len(content)
    body = content[begin:end]
    if peer.lies:
        body = bytes(byte ^ 1 for byte in body)
    headers = {"Content-Range": f"bytes {begin}-{begin + len(body) - 1}/{len(content)}"}
    response = web.StreamResponse(status=206 if "Range" in request.headers else 200, headers=headers)
    response.content_length = len(body)
    await response.prepare(request)
    body = body[: len(body) - peer.short_by]
    step = 16 if peer.trickles else 1 << 14
    for at in range(0, len(body), step):
        if peer.dies_after is not None and peer.sent_bytes >= peer.dies_after:
            break
        if peer.trickles:
            await asyncio.sleep(0.005)
        try:
            await response.write(body[at : at + step])
        except ConnectionResetError:
            return response
        peer.sent_bytes += len(body[at : at + step])
    else:
        if not peer.short_by:
            return response
    assert request.transport is not None
    request.transport.abort()
    return response


@dataclass
class Neighbours:
    """Implements `Nearby` over these nodes, in this order."""

    peers: Sequence[PeerServer]
    failures: list[tuple[str, bool]] = field(default_factory=list)
    """`(node, lied)`"""

    async def holders(self, digest: Digest, size_bytes: int) -> Sequence[Holder]:
        failed = {node for node, _ in self.failures}
        return [
            Holder(peer.name, URL(f"{peer.url}/helios/v1/blobs/{digest}"), lambda: PROOF)
            for peer in self.peers
            if peer.name not in failed and peer.content(digest) is not None
        ]

    async def offers(self, ref: ModelRef) -> Sequence[Offer]:
        return [
            Offer(
                peer.name,
                tuple(SourceFile(path, len(content), sha256(content)) for path, content in files.items()),
                {"kind": "hub", "location": str(ref), "commit": "c" * 40, "allow_pickle": True, "surprise": 1},
            )
            for peer in self.peers
            if (files := peer.models.get(str(ref)))
        ]

    def failed(self, node: str, file: str, why: str, *, lied: bool) -> None:
        self.failures.append((node, lied))
