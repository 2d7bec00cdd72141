import pytest

from heliosd.cluster.member import Load, MemberState, Meta
from heliosd.core.units import GiB
from heliosd.errors import ConfigError, Unavailable
from tests.cluster.nodes import address, gossip, heard, heard_of, joined


async def test_two_nodes_find_each_other_and_see_each_others_tags():
    of_a = Meta("http://127.0.0.1:1", "1.0", "aaaa", load=Load.of(["m"], 3 * GiB, 2))
    of_b = Meta("http://127.0.0.1:2", "2.0", "bbbb", draining=True)
    async with joined("a", meta=of_a) as a, joined("b", address(a), meta=of_b) as b:
        at_a = await heard(a.events(), lambda member: member.name == "b")
        at_b = await heard(b.events(), lambda member: member.name == "a")
    assert (at_a.api_url, at_a.version, at_a.catalogue, at_a.draining) == ("http://127.0.0.1:2", "2.0", "bbbb", True)
    assert (at_b.api_url, at_b.version, at_b.catalogue, at_b.draining) == ("http://127.0.0.1:1", "1.0", "aaaa", False)
    assert (at_a.load, at_b.load) == (of_b.load, of_a.load)
    assert at_a.state is MemberState.ALIVE
    assert at_a.epoch > 0


@pytest.mark.slow
async def test_a_third_node_is_heard_of_by_one_that_it_did_not_ask():
    async with joined("a") as a, joined("b", address(a)) as b:
        from_a = a.events()
        async with joined("c", address(b)):
            await heard_of(from_a, "b", "c")
            assert [member.name for member in a.members()] == ["a", "b", "c"]


async def test_changed_tags_are_heard():
    async with joined("a") as a, joined("b", address(a)) as b:
        from_a = a.events()
        await heard_of(from_a, "b")
        await b.set_meta(Meta("http://127.0.0.1:2", "1", "new", draining=True))
        changed = await heard(from_a, lambda member: member.catalogue == "new")
        assert changed.draining
        assert next(member for member in a.members() if member.name == "b").draining


async def test_a_node_that_leaves_is_heard_to_leave_and_stays_listed():
    async with joined("a") as a:
        from_a = a.events()
        async with joined("b", address(a)):
            await heard_of(from_a, "b")
        gone = await heard(from_a, lambda member: member.state is MemberState.LEFT)
        assert gone.name == "b"
        assert [(member.name, member.state) for member in a.members()][1:] == [("b", MemberState.LEFT)]


@pytest.mark.slow
async def test_a_node_that_comes_back_at_another_address_is_its_next_run_at_once():
    async with joined("a") as a:
        from_a = a.events()
        async with joined("b", address(a)):
            first = await heard(from_a, lambda member: member.name == "b")
        async with joined("b", address(a)):
            again = await heard(from_a, lambda member: member.state is MemberState.ALIVE)
            assert [(member.name, member.epoch) for member in a.members()][1:] == [("b", again.epoch)]
        assert again.epoch > first.epoch
        assert again.address != first.address


@pytest.mark.slow
async def test_a_node_with_another_key_or_cluster_name_is_never_seen():
    async with joined("a") as a:
        from_a = a.events()
        other_cluster = gossip("y", address(a), cluster="other")
        await other_cluster.join(Meta(None, "1"))
        async with joined("x", address(a), key=b"x" * 32) as stranger, joined("b", address(a)):
            # b came after the others had tried for as long as they try: had they been let in, they would be here.
            await heard_of(from_a, "b")
            assert [member.name for member in a.members()] == ["a", "b"]
            assert [member.name for member in stranger.members()] == ["x"]
            assert [member.name for member in other_cluster.members()] == ["y"]
        await other_cluster.leave()


async def test_a_seed_that_does_not_resolve_can_be_tried_again():
    node = gossip("a", "no-such-host.invalid:7946")
    with pytest.raises(Unavailable, match="none of no-such-host"):
        await node.join(Meta(None, "1"))


async def test_an_address_in_use_is_the_operators_to_change():
    async with joined("a") as a:
        taken = gossip("b", bind=address(a))
        with pytest.raises(ConfigError, match="cannot gossip on"):
            await taken.join(Meta(None, "1"))
