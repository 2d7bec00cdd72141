import asyncio
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from heliosd.cluster.catalogue import AT_ONCE, Catalogues, fetch_models
from heliosd.cluster.member import Load, MemberState
from heliosd.core.peer_news import PeerNews
from heliosd.core.units import GiB
from heliosd.errors import SourceFailed
from tests.cluster.nodes import peer, serving


class Lists:
    """The peers' lists, each given out when the test says so."""

    def __init__(self):
        self.asked = asyncio.Queue()
        self.most_at_once = self.at_once = 0

    async def fetch(self, member):
        answer = asyncio.get_running_loop().create_future()
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            self.asked.put_nowait((member, answer))
            return await answer
        finally:
            self.at_once -= 1

    async def next(self):
        async with asyncio.timeout(5):
            return await self.asked.get()


@asynccontextmanager
async def catalogues():
    lists, told = Lists(), asyncio.Queue()
    made = Catalogues(lists.fetch, told.put_nowait, first_retry_s=0.001)
    async with asyncio.TaskGroup() as tasks:
        yield made, lists, told, tasks
        made.forget()


async def news(told):
    async with asyncio.timeout(5):
        return {name: set(models) for name, models in (await told.get()).items()}


def at(member_hash, **more):
    return peer("b", api_url="http://127.0.0.1:1", catalogue=member_hash, **more)


async def test_a_new_peers_list_is_fetched_and_told():
    async with catalogues() as (made, lists, told, tasks):
        made.note(at("h1"), tasks)
        member, answer = await lists.next()
        answer.set_result(frozenset({"m1"}))
        assert member.name == "b"
        assert await news(told) == {"b": {"m1"}}
        assert dict(made.holds) == {"b": {"m1"}}


async def test_the_same_hash_is_not_fetched_again_and_another_is():
    async with catalogues() as (made, lists, told, tasks):
        made.note(at("h1"), tasks)
        (await lists.next())[1].set_result(frozenset({"m1"}))
        await news(told)
        made.note(at("h1"), tasks)
        made.note(at("h2"), tasks)
        member, answer = await lists.next()
        assert member.catalogue == "h2"
        answer.set_result(frozenset({"m1", "m2"}))
        assert await news(told) == {"b": {"m1", "m2"}}
        assert lists.asked.empty()


async def test_a_newer_hash_takes_the_place_of_a_fetch_under_way():
    async with catalogues() as (made, lists, told, tasks):
        made.note(at("h1"), tasks)
        _, old = await lists.next()
        made.note(at("h2"), tasks)
        _, new = await lists.next()
        assert old.cancelled()
        new.set_result(frozenset({"m2"}))
        assert await news(told) == {"b": {"m2"}}


async def test_a_failed_fetch_is_tried_again():
    async with catalogues() as (made, lists, told, tasks):
        made.note(at("h1"), tasks)
        for _ in range(3):
            (await lists.next())[1].set_exception(SourceFailed("cannot"))
        (await lists.next())[1].set_result(frozenset({"m1"}))
        assert await news(told) == {"b": {"m1"}}


@pytest.mark.parametrize("change", [{"state": MemberState.SUSPECT}, {"draining": True}], ids=["suspect", "draining"])
async def test_a_peer_that_cannot_be_asked_now_is_not_told_and_comes_back_without_a_fetch(change):
    async with catalogues() as (made, lists, told, tasks):
        made.note(at("h1"), tasks)
        (await lists.next())[1].set_result(frozenset({"m1"}))
        await news(told)
        made.note(at("h1", **change), tasks)
        assert await news(told) == {}
        made.note(at("h1"), tasks)
        assert await news(told) == {"b": {"m1"}}
        assert lists.asked.empty()


@pytest.mark.parametrize("state", [MemberState.DEAD, MemberState.LEFT])
async def test_a_peer_that_has_gone_holds_nothing_and_is_asked_anew_when_it_returns(state):
    async with catalogues() as (made, lists, told, tasks):
        made.note(at("h1"), tasks)
        (await lists.next())[1].set_result(frozenset({"m1"}))
        await news(told)
        made.note(at("h1", state=state), tasks)
        assert await news(told) == {}
        made.note(at("h1", epoch=2), tasks)
        (await lists.next())[1].set_result(frozenset({"m1"}))
        assert await news(told) == {"b": {"m1"}}


async def test_what_is_fetched_for_a_peer_that_goes_meanwhile_is_dropped():
    async with catalogues() as (made, lists, told, tasks):
        made.note(at("h1"), tasks)
        _, answer = await lists.next()
        made.note(at("h1", state=MemberState.DEAD), tasks)
        await asyncio.wait([answer], timeout=5)
        assert answer.cancelled()
        assert told.empty()


async def test_a_lost_cluster_is_forgotten_with_what_is_being_fetched():
    async with catalogues() as (made, lists, told, tasks):
        made.note(at("h1"), tasks)
        (await lists.next())[1].set_result(frozenset({"m1"}))
        await news(told)
        made.note(peer("c", api_url="http://127.0.0.1:1", catalogue="h"), tasks)
        _, answer = await lists.next()
        made.forget()
        assert await news(told) == {}
        await asyncio.wait([answer], timeout=5)
        assert answer.cancelled()


async def test_many_peers_are_asked_a_few_at_a_time_and_all_are_known():
    async with catalogues() as (made, lists, told, tasks):
        for number in range(5 * AT_ONCE):
            made.note(peer(f"n{number:02}", api_url="http://127.0.0.1:1", catalogue="h"), tasks)
        for _ in range(5 * AT_ONCE):
            (await lists.next())[1].set_result(frozenset({"m"}))
        while len(await news(told)) < 5 * AT_ONCE:
            pass
        assert lists.most_at_once == AT_ONCE


async def ask(url, **limits):
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        return await fetch_models(session, peer("b", api_url=url), token="h1.token", **limits)


async def test_a_list_is_asked_for_with_the_token_and_holds_aliases_as_well():
    async def models(request):
        assert request.path_qs == "/helios/v1/models?local=1"
        assert request.headers["x-helios-peer"] == "h1.token"
        rows = [{"ref": "org/a", "aliases": ["a"], "of_a_later_version": 1}, {"ref": "b@v2"}, {"ref": "c@main"}]
        return web.json_response({"models": rows})

    async with serving(models) as url:
        assert await ask(url) == {"org/a", "a", "b@v2", "c"}


@pytest.mark.parametrize(
    "answer",
    [
        lambda: web.Response(status=401, text="no"),
        lambda: web.Response(text="<html>"),
        lambda: web.json_response({"models": [{"ref": "../../etc/passwd"}]}),
        lambda: web.json_response({"data": []}),
        lambda: web.Response(status=302, headers={"location": "http://127.0.0.1:1/"}),
    ],
    ids=["refused", "no json", "an unsafe name", "another shape", "a redirection"],
)
async def test_anything_else_is_the_peers_failure(answer):
    async def models(request):
        return answer()

    async with serving(models) as url:
        with pytest.raises(SourceFailed, match="cannot list the models of node b"):
            await ask(url)


async def test_a_list_without_end_is_not_read_to_the_end():
    async def models(request):
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" " * 10_000)

    async with serving(models) as url:
        with pytest.raises(SourceFailed) as failure:
            await ask(url, limit_bytes=100_000)
        assert "longer than 100000 bytes" in failure.value.cause


async def test_a_peer_that_is_not_there_is_named_with_its_address():
    with pytest.raises(SourceFailed, match="node b at http"):
        await ask("http://127.0.0.1:1")


async def test_what_peers_tell_of_their_load_is_reported_with_the_names_of_their_models():
    lists, told = Lists(), []
    made = Catalogues(lists.fetch, lambda holds: None, report=told.append)
    async with asyncio.TaskGroup() as tasks:
        made.note(at("h1", load=Load.of(["m1", "other"], 5 * GiB, 1)), tasks)
        assert told == [], "nothing is known of its models yet"
        (await lists.next())[1].set_result(frozenset({"m1", "m2"}))
        while not told:  # noqa: ASYNC110 - it is called back, and what calls is ready
            await asyncio.sleep(0)
        made.note(at("h1", load=Load.of(["m1"], 5 * GiB + 1, 1)), tasks)
        made.note(at("h1", load=Load.of([], 5 * GiB, 0)), tasks)
        made.note(at("h1"), tasks)
        made.forget()
    assert told == [
        (PeerNews("b", ("m1",), 5 * GiB, 1),),
        (PeerNews("b", (), 5 * GiB, 0),),
        (),
    ]
