"""Nodes as processes, because only a process can be killed."""

import asyncio
import json
import signal
import sys
from contextlib import asynccontextmanager

import pytest

from heliosd.cluster.member import MemberState
from heliosd.core.names import PeerName
from heliosd.errors import Unavailable
from tests.cluster.nodes import Watched, request
from tests.cluster.one_node import one_node

pytestmark = pytest.mark.slow
SECRET = "a secret of the tests"
WITHIN_S = 30.0


class Process:
    def __init__(self, process):
        self.process = process

    async def line(self):
        async with asyncio.timeout(WITHIN_S):
            text = await self.process.stdout.readline()
        assert text, "the node's process ended"
        return json.loads(text)

    async def holds(self, wanted):
        while (await self.line()).get("holds") != wanted:
            pass

    async def leave(self):
        self.process.stdin.close()
        async with asyncio.timeout(WITHIN_S):
            return await self.process.wait()


@asynccontextmanager
async def process(name, secret, models, *seeds):
    pipes = {"stdin": asyncio.subprocess.PIPE, "stdout": asyncio.subprocess.PIPE}
    command = [sys.executable, "-m", "tests.cluster.one_node", name, secret, models, *seeds]
    started = Process(await asyncio.create_subprocess_exec(*command, **pipes))
    try:
        started.address = (await started.line())["address"]
        yield started
    finally:
        if started.process.returncode is None:
            started.process.kill()
            await started.process.wait()


async def holds(node, wanted):
    async with asyncio.timeout(WITHIN_S):
        while (now := await node.holds.get()) != wanted:
            pass
        return now


def state_of(node, name):
    return {member.name: member.state for member in node.peers.members()}.get(name)


async def test_three_processes_know_of_each_other_and_notice_one_that_is_killed():
    async with (
        process("a", SECRET, "ma") as a,
        process("b", SECRET, "mb", a.address) as b,
        one_node("c", SECRET, ["mc"], a.address) as c,
    ):
        await a.holds({"b": ["mb"], "c": ["mc"]})
        await b.holds({"a": ["ma"], "c": ["mc"]})
        await holds(c, {"a": ["ma"], "b": ["mb"]})
        b.process.kill()
        await holds(c, {"a": ["ma"]})
        await a.holds({"c": ["mc"]})
        assert state_of(c, "b") in (MemberState.SUSPECT, MemberState.DEAD)
        assert await a.leave() == 0
        await holds(c, {})
        assert state_of(c, "a") is MemberState.LEFT


async def test_a_killed_process_that_is_started_again_is_used_again():
    async with one_node("c", SECRET, ["mc"]) as c:
        async with process("b", SECRET, "mb", c.address) as b:
            await holds(c, {"b": ["mb"]})
            b.process.kill()
            await holds(c, {})
        async with process("b", SECRET, "mb,new", c.address) as b:
            await holds(c, {"b": ["mb", "new"]})
            await b.holds({"c": ["mc"]})


async def test_a_process_with_another_secret_is_not_seen():
    async with (
        one_node("c", SECRET, ["mc"]) as c,
        process("x", "another secret", "mx", c.address),
        process("b", SECRET, "mb", c.address),
    ):
        await holds(c, {"b": ["mb"]})
        assert state_of(c, "x") is None


async def test_a_request_to_a_process_that_stands_still_ends_when_it_is_declared_dead():
    async with one_node("c", SECRET, ["mc"]) as c, process("b", SECRET, "mb", c.address) as b:
        await holds(c, {"b": ["mb"]})
        reply = Watched()
        await c.peers.forward(PeerName("b"), request("/v1/x"), reply)
        assert reply.rest() == b"b answers c "
        b.process.send_signal(signal.SIGSTOP)
        async with asyncio.timeout(WITHIN_S):
            with pytest.raises(Unavailable, match="node b died meanwhile"):
                await c.peers.forward(PeerName("b"), request("/hang"), reply)
        assert state_of(c, "b") is MemberState.DEAD
        b.process.send_signal(signal.SIGCONT)
        await holds(c, {"b": ["mb"]})  # it comes back by itself


async def test_a_process_that_leaves_many_times_never_ends_badly():
    """The interpreter used to crash at exit, in one of a dozen runs, while gossip's own thread was still in Python."""
    async with one_node("c", SECRET, ["mc"]) as c:
        for _ in range(10):
            async with process("b", SECRET, "mb", c.address) as b:
                await holds(c, {"b": ["mb"]})
                assert await b.leave() == 0
            await holds(c, {})
