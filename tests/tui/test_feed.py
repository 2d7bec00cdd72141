import asyncio
import time

import pytest
from aiohttp import web

from heliosctl.exits import Exit, Failure
from heliosctl.place import TcpPlace
from heliosd.wire import EventView
from tests.heliosctl.stand_in import StandIn, serving
from tests.heliosctl.stand_in_replies import Refusal
from tui.feed import Connected, Feed, Lost
from tui.now import Now


async def take(news, wanted: type, count: int = 1) -> list:
    """The next `count` items of that kind; others are passed over."""
    taken = []
    async with asyncio.timeout(10):
        while len(taken) < count:
            item = await anext(news)
            if isinstance(item, wanted):
                taken.append(item)
    return taken


async def test_a_snapshot_comes_at_once_and_after_each_change(daemon, feed):
    news = feed.news()
    (first,) = await take(news, Now)
    assert [row["id"] for row in first.replicas] == ["r1"]
    daemon.replicas = []
    daemon.changed()
    (second,) = await take(news, Now)
    assert second.replicas == []
    await news.aclose()


async def test_events_of_before_and_of_now(daemon, feed):
    daemon.note("start", "one")
    news = feed.news()
    assert [event.message for event in await take(news, EventView)] == ["one"]
    await take(news, Now)
    daemon.note("grant", "two")
    assert [event.message for event in await take(news, EventView)] == ["two"]
    await news.aclose()


async def test_a_restart_is_survived_and_no_event_lost_or_doubled(socket_path, feed):
    stand_in = StandIn()
    stand_in.note("start", "one")
    news = feed.news()
    async with serving(stand_in, socket_path):
        assert await take(news, Connected) == [Connected(None)]
        await take(news, Now)
    (lost, *_) = await take(news, Lost, 2)
    assert lost.reason and lost.since <= time.time()
    stand_in.note("stop", "two, while nobody listened")
    async with serving(stand_in, socket_path):
        (back,) = await take(news, Connected)
        assert back.away_s > 0
        (event,) = await take(news, EventView)
        assert event.message == "two, while nobody listened"
        await news.aclose()


async def test_it_asks_less_and_less_often(feed):
    news = feed.news()
    waits = [lost.retry_s for lost in await take(news, Lost, 4)]
    assert waits == [0.01, 0.02, 0.04, 0.08]
    await news.aclose()


async def test_who_may_not_ask_is_told_and_does_not_try_again(daemon, feed):
    daemon.refusals["GET /helios/v1/events"] = Refusal(403, "not_allowed", "cannot show events: an admin key is needed")
    with pytest.raises(Failure, match="admin key") as told:
        await take(feed.news(), Now)
    assert told.value.exit_code is Exit.NOT_ALLOWED


async def test_once_gives_the_past_and_one_snapshot(daemon, feed):
    daemon.note("start", "one")
    connected, event, snapshot = [news async for news in feed.once()]
    assert connected == Connected(None)
    assert event.message == "one"
    assert snapshot.node.name == "node-a"


async def test_once_without_a_daemon_fails(feed):
    with pytest.raises(Failure) as told:
        await anext(feed.once())
    assert told.value.exit_code is Exit.UNREACHABLE
    assert "systemctl start heliosd" in told.value.message


async def test_what_is_no_snapshot_is_a_lost_connection_not_a_crash(socket_path, feed):
    class Odd(StandIn):
        def snapshot(self):
            return self.node

    async with serving(Odd(), socket_path):
        news = feed.news()
        (lost,) = await take(news, Lost)
        assert "cannot read the snapshot" in lost.reason
        await news.aclose()


async def test_over_tcp_the_key_goes_along():
    stand_in = StandIn()
    app = stand_in.application()
    keys = []

    async def note_key(request: web.Request, response: web.StreamResponse) -> None:
        keys.append(request.headers.get("authorization"))

    app.on_response_prepare.append(note_key)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.01)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    *_, snapshot = [news async for news in Feed(TcpPlace(f"http://127.0.0.1:{port}", "sesame")).once()]
    await runner.cleanup()
    assert snapshot.node.name == "node-a"
    assert keys == ["Bearer sesame"] * 2
