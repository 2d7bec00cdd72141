import asyncio
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from heliosd.cluster.alone import Alone
from heliosd.cluster.member import MemberState, Meta, self_of
from heliosd.cluster.peers import Peers
from heliosd.core.names import PeerName
from heliosd.errors import ConfigError, SourceFailed, Unavailable
from tests.cluster.nodes import WITHIN_S, Watched, address, gossip, joined, peer, request, serving
from tests.cluster.one_node import one_node

SECRET = "a secret of the tests"


async def holds(node, wanted):
    async with asyncio.timeout(WITHIN_S):
        while await node.holds.get() != wanted:
            pass


async def test_two_nodes_know_what_the_other_holds_and_answer_for_each_other():
    async with one_node("a", SECRET, ["org/m1"]) as a, one_node("b", SECRET, ["m2", "m3@v1"], a.address) as b:
        await holds(a, {"b": ["m2", "m3@v1"]})
        await holds(b, {"a": ["org/m1"]})
        reply = Watched()
        await a.peers.forward(PeerName("b"), request(query="x=%2F"), reply)
        assert (reply.status, reply.rest()) == (200, b"b answers a ")  # so b verified a's token
        assert (await b.requests.get()).headers["x-helios-forwarded"] == "a"

        await b.peers.set_draining()
        await holds(a, {})
        assert [(member.name, member.draining) for member in a.peers.members()] == [("a", False), ("b", True)]
        # What was already decided when the news came is still passed on: a draining node finishes what it is given.
        await a.peers.forward(PeerName("b"), request(), reply)
        assert reply.status == 200


class Told:
    """A membership whose news come from the test."""

    def __init__(self, *broken):
        self.news = asyncio.Queue()
        self.seen = {}
        self.joins = list(broken)

    async def join(self, meta):
        if self.joins:
            raise self.joins.pop()

    def tell(self, member):
        self.seen[member.name] = member
        self.news.put_nowait(member)

    def members(self):
        return (self_of(PeerName("a"), "", 1, Meta(None, "1")), *self.seen.values())

    async def events(self):
        while (member := await self.news.get()) is not None:
            if isinstance(member, Exception):
                raise member
            yield member

    async def set_meta(self, meta):
        pass

    async def leave(self):
        self.news.put_nowait(None)


@asynccontextmanager
async def peers_told():
    membership = Told()
    peers = Peers(PeerName("a"), membership, Meta(None, "1"), lambda holds: None, key=b"k" * 32)
    async with asyncio.TaskGroup() as tasks:
        peers.start(tasks)
        yield peers, membership
        await peers.close()


@pytest.mark.parametrize(("path", "kind"), [("/silent", Unavailable), ("/begun", SourceFailed)])
@pytest.mark.parametrize("news", [{"state": MemberState.DEAD}, {"epoch": 2}], ids=["dead", "restarted"])
async def test_a_request_does_not_wait_for_a_peer_that_died_without_closing_its_connection(path, kind, news):
    arrived = asyncio.Event()

    async def answer(got):
        if got.path == "/begun":
            response = web.StreamResponse()
            await response.prepare(got)
            await response.write(b"first")
        elif got.path == "/helios/v1/models":
            return web.json_response({"models": []})
        arrived.set()
        return await asyncio.Event().wait()

    async with serving(answer) as url, peers_told() as (peers, membership):
        membership.tell(peer("b", api_url=url))
        reply = Watched()

        async def pass_on():
            with pytest.raises(kind, match="node b died meanwhile"):
                await peers.forward(PeerName("b"), request(path), reply)

        async with asyncio.timeout(WITHIN_S), asyncio.TaskGroup() as tasks:
            tasks.create_task(pass_on())
            await arrived.wait()
            if path == "/begun":
                await reply.next()
            membership.tell(peer("b", api_url=url, state=MemberState.SUSPECT))  # suspicion alone cuts nothing
            membership.tell(peer("b", api_url=url, **news))
            membership.tell(peer("b", api_url=url, **news))


async def test_a_cluster_that_cannot_be_found_or_breaks_is_joined_again_and_what_was_known_is_forgotten():
    async def answer(got):
        return web.json_response({"models": [{"ref": "m"}]})

    told = asyncio.Queue()
    membership = Told(Unavailable("no seed resolves"), Unavailable("nor now"))
    peers = Peers(PeerName("a"), membership, Meta(None, "1"), told.put_nowait, key=b"k" * 32, rejoin_s=0)
    async with serving(answer) as url, asyncio.timeout(WITHIN_S), asyncio.TaskGroup() as tasks:
        peers.start(tasks)
        await peers.joined.wait()
        assert membership.joins == []
        for _ in range(2):
            membership.tell(peer("b", api_url=url))
            assert await told.get() == {"b": {"m"}}
            membership.news.put_nowait(Unavailable("cannot gossip any more"))
            assert await told.get() == {}
        await peers.close()


@pytest.mark.parametrize("state", [None, MemberState.DEAD, MemberState.LEFT])
async def test_a_peer_that_has_gone_is_not_asked(state):
    async with peers_told() as (peers, membership):
        if state is not None:
            membership.tell(peer("b", api_url="http://127.0.0.1:1", state=state))
        with pytest.raises(Unavailable, match="node b: it has gone"):
            await peers.forward(PeerName("b"), request(), Watched())


async def test_a_node_without_a_cluster_lists_itself_and_trusts_nobody():
    peers = Peers(PeerName("a"), Alone(PeerName("a")), Meta("http://127.0.0.1:1", "1"), lambda holds: None, key=None)
    async with asyncio.TaskGroup() as tasks:
        peers.start(tasks)
        await peers.set_catalogue(["m"])
        assert [member.state for member in peers.members()] == [MemberState.SELF]
        assert peers.verify("h1.Yg.1.Yg", "GET", "/") is None
        await peers.close()


async def test_a_wrong_configuration_ends_the_daemons_group_with_the_reason():
    async with joined("a") as a:
        peers = Peers(PeerName("b"), gossip("b", bind=address(a)), Meta(None, "1"), lambda holds: None, key=b"k" * 32)
        with pytest.raises(ExceptionGroup) as failure:
            async with asyncio.TaskGroup() as tasks:
                peers.start(tasks)
        await peers.close()
    assert failure.group_contains(ConfigError, match="cannot gossip on")
