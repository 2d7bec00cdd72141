"""What every membership does, asked of each of them."""

import asyncio

import pytest

from heliosd.cluster.alone import Alone
from heliosd.cluster.member import MemberState, Meta
from heliosd.core.names import PeerName
from tests.cluster.nodes import gossip

META = Meta("http://127.0.0.1:8484", "0.1.0", "abc")


@pytest.fixture(params=["alone", "gossip"])
async def membership(request):
    made = Alone(PeerName("a")) if request.param == "alone" else gossip("a")
    yield made
    await made.leave()


async def test_a_node_is_its_own_first_member_before_and_after_joining(membership):
    assert [(member.name, member.state) for member in membership.members()] == [("a", MemberState.SELF)]
    await membership.join(META)
    (me,) = membership.members()
    assert (me.name, me.state, me.api_url, me.version, me.catalogue) == ("a", "self", META.api_url, "0.1.0", "abc")


async def test_what_a_node_tells_of_itself_is_seen_at_once_in_its_own_line(membership):
    await membership.join(META)
    await membership.set_meta(Meta(META.api_url, "0.1.0", "def", draining=True))
    (me,) = membership.members()
    assert me.catalogue == "def"
    assert me.draining


async def test_its_events_never_speak_of_itself_and_end_when_it_leaves(membership):
    await membership.join(META)

    async def read():
        return [member async for member in membership.events()]

    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(read())
        await asyncio.sleep(0)  # let it subscribe
        await membership.leave()
    assert reading.result() == []


async def test_leaving_without_having_joined_and_leaving_twice_are_harmless(membership):
    await membership.leave()
    await membership.leave()
