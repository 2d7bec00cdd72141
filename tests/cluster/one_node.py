"""A node in a process of its own: gossip, an API as far as peers need it, and a line of JSON for each thing it hears.

`python -m tests.cluster.one_node NAME SECRET MODEL,MODEL [SEED…]` prints {"address": …} first, then {"holds": {…}}
whenever that changes. It leaves the cluster at the end of its standard input.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web

from heliosd.cluster.catalogue import Holds
from heliosd.cluster.gossip import Gossip, GossipSettings
from heliosd.cluster.identity import PEER_HEADER, derive_key
from heliosd.cluster.member import Meta
from heliosd.cluster.peers import Peers
from heliosd.core.names import PeerName
from tests.cluster.nodes import serving


@dataclass
class OneNode:
    peers: Peers
    holds: "asyncio.Queue[dict[str, list[str]]]"
    requests: "asyncio.Queue[web.Request]"

    @property
    def address(self) -> str:
        return self.peers.members()[0].address


@asynccontextmanager
async def one_node(name: str, secret: str, models: list[str], *seeds: str) -> AsyncIterator[OneNode]:
    """A node that answers for its models, and never answers `/hang`."""
    key = derive_key(secret)
    heard: asyncio.Queue[dict[str, list[str]]] = asyncio.Queue()
    requests: asyncio.Queue[web.Request] = asyncio.Queue()

    def changed(holds: Holds) -> None:
        heard.put_nowait({peer: sorted(names) for peer, names in holds.items()})

    async def answer(request: web.Request) -> web.StreamResponse:
        peer = node.peers.verify(request.headers.get(PEER_HEADER, ""), request.method, request.raw_path)
        if peer is None:
            return web.json_response({"error": "who are you?"}, status=401)
        if request.path == "/helios/v1/models":
            return web.json_response({"models": [{"ref": model} for model in models]})
        requests.put_nowait(request)
        if request.path == "/hang":
            await asyncio.Event().wait()
        response = web.StreamResponse()
        await response.prepare(request)
        for word in (name, "answers", peer):
            await response.write(f"{word} ".encode())
        return response

    async with serving(answer) as url:
        membership = Gossip(PeerName(name), GossipSettings(key, "127.0.0.1:0", seeds, pace="local"))
        node = OneNode(Peers(PeerName(name), membership, Meta(url, "1"), changed, key=key), heard, requests)
        async with asyncio.TaskGroup() as tasks:
            node.peers.start(tasks)
            await node.peers.set_catalogue(models)
            try:
                await node.peers.joined.wait()
                yield node
            finally:
                await node.peers.close()


async def main(name: str, secret: str, models: str, *seeds: str) -> None:
    async with one_node(name, secret, models.split(","), *seeds) as node, asyncio.TaskGroup() as tasks:
        print(json.dumps({"address": node.address}), flush=True)

        async def tell() -> None:
            while True:
                print(json.dumps({"holds": await node.holds.get()}), flush=True)

        telling = tasks.create_task(tell())
        await asyncio.to_thread(sys.stdin.read)
        telling.cancel()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
