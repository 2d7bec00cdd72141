"""The journal over HTTP: as it was, as it comes, and nothing lost in between."""

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from heliosd.wire import EventList, Snapshot
from tests.api.world import World


async def noted(it: World, *messages: str, model: str = "tiny", ticket: str = "t-9") -> None:
    for message in messages:
        it.journal.note("test", message, model=model, ticket=ticket)
    await it.journal.flushed()


async def read(it: World, query: str = "") -> list[str]:
    async with it.local.get(f"/helios/v1/events{query}") as response:
        return [event.message for event in EventList.model_validate(await response.json()).events]


async def next_event(response: aiohttp.ClientResponse) -> tuple[str, Any]:
    while True:
        block = (await asyncio.wait_for(response.content.readuntil(b"\n\n"), 5)).decode()
        fields = dict(line.split(": ", 1) for line in block.strip().split("\n") if not line.startswith(":"))
        if fields:
            return fields["event"], json.loads(fields["data"])


async def test_the_past_newest_last(it: World) -> None:
    await noted(it, "one", "two", "three")
    assert await read(it) == ["one", "two", "three"]
    assert await read(it, "?limit=2") == ["two", "three"]
    assert await read(it, "?after=2") == ["three"]
    await noted(it, "other", model="org/other", ticket="t-10")
    assert await read(it, "?subject=org/other") == ["other"]


async def test_a_query_that_is_no_number(it: World) -> None:
    async with it.local.get("/helios/v1/events?limit=many") as response:
        assert (response.status, (await response.json())["error"]["param"]) == (400, "limit")


async def test_following_gives_the_past_and_then_what_comes_each_once(it: World) -> None:
    await noted(it, "one", "two")
    async with it.local.get("/helios/v1/events?follow=1&after=1") as response:
        assert response.content_type == "text/event-stream"
        assert (await next_event(response))[1]["message"] == "two"
        for number in range(20):
            await noted(it, f"n{number}")
        assert [(await next_event(response))[1]["message"] for _ in range(20)] == [f"n{n}" for n in range(20)]


async def test_nothing_is_lost_between_the_past_and_the_present(it: World) -> None:
    """Entries are written all the time while readers join: each reader sees an unbroken row of ids."""

    async def write() -> None:
        for number in range(200):
            await noted(it, str(number))

    async def join() -> list[int]:
        async with it.local.get("/helios/v1/events?follow=1&after=0&limit=100000") as response:
            ids = []
            while not ids or ids[-1] < 200:
                ids.append((await next_event(response))[1]["id"])
            return ids

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(write())
        readers = []
        for _ in range(5):
            await asyncio.sleep(0)
            readers.append(tasks.create_task(join()))
    assert all(reader.result() == list(range(1, 201)) for reader in readers)


async def test_a_browser_goes_on_where_it_was(it: World) -> None:
    await noted(it, "one", "two", "three")
    async with it.local.get("/helios/v1/events?follow=1", headers={"Last-Event-ID": "2"}) as response:
        assert (await next_event(response))[1]["message"] == "three"


async def test_followers_of_a_subject_see_only_that(it: World) -> None:
    async with it.local.get("/helios/v1/events?follow=1&subject=tiny") as response:
        await noted(it, "not this", model="org/other", ticket="t-1")
        await noted(it, "this")
        assert (await next_event(response))[1]["message"] == "this"


async def test_snapshots_come_at_once_and_after_a_change(it: World) -> None:
    async with it.local.get("/helios/v1/events?follow=1&snapshots=1&limit=0") as response:
        name, body = await next_event(response)
        assert name == "snapshot"
        first = Snapshot.model_validate(body)
        assert ([r.id for r in first.replicas], first.node.name) == (["r-tiny"], "west")
        it.node.engines.clear()
        await it.node.move()
        assert Snapshot.model_validate((await next_event(response))[1]).replicas == []


async def test_the_stream_ends_when_the_daemon_closes(it: World) -> None:
    async with it.local.get("/helios/v1/events?follow=1&limit=0") as response, asyncio.TaskGroup() as tasks:
        tasks.create_task(it.listening.close())
        await asyncio.wait_for(response.read(), 5)  # its end was written: a cut stream raises


async def test_a_reader_that_takes_nothing_is_cut_off(it: World) -> None:
    reader, writer = await asyncio.open_unix_connection(str(it.listening.socket_path), limit=1000)
    writer.write(b"GET /helios/v1/events?follow=1 HTTP/1.1\r\nHost: x\r\n\r\n")
    await noted(it, "first")
    await asyncio.wait_for(reader.readuntil(b"first"), 5)
    # More than the sockets and the backlog hold, so that the daemon must let go or keep all of it in memory.
    text = "x" * 3000
    for _ in range(4):
        await noted(it, *[text] * 600)
    with pytest.raises(asyncio.IncompleteReadError):
        async with asyncio.timeout(5):
            while True:
                await reader.readexactly(1000)
    writer.close()


async def test_who_comes_back_after_long_misses_nothing(it: World) -> None:
    await noted(it, *map(str, range(1, 31)))
    assert await read(it, "?after=3&limit=2") == ["4", "5"]
    async with it.local.get("/helios/v1/events?follow=1&after=3&limit=5") as response:
        await noted(it, "31")
        assert [(await next_event(response))[1]["id"] for _ in range(28)] == list(range(4, 32))


async def test_explain_tells_all_about_a_subject(it: World) -> None:
    await noted(it, "waits", "granted")
    async with it.local.get("/helios/v1/explain/t-9") as response:
        assert [event["message"] for event in (await response.json())["events"]] == ["waits", "granted"]
    async with it.local.get("/helios/v1/explain/org/nothing") as response:
        assert response.status == 404
