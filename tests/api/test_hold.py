"""A client that waits for its stream is told what it waits for, in comments that clients skip."""

import asyncio
import json
from collections.abc import AsyncIterator

import aiohttp
import pytest

from heliosd.api.hold import Telling, comment_of, telling
from heliosd.core.messages import Hold
from heliosd.core.names import PeerName, Ticket
from heliosd.engines.engine import Reply, Request
from heliosd.errors import CannotFit, EngineFailed, Unavailable
from tests.api.world import World, world

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "stream": True}
PATH = "/v1/chat/completions"
T = Ticket("t")
STARTING = b': helios state=queued position=3 eta=12 reason="r3 is starting"\n\n'
FIRST = b': helios state=starting reason="the node is getting ready"\n\n'


@pytest.fixture
async def it() -> AsyncIterator[World]:
    """Nobody gets a lease before the test says so, and who waits is told at once."""
    async with world(tell_after_s=0.0) as made:
        made.node.held = asyncio.Queue()
        yield made


async def held(it: World, response: aiohttp.ClientResponse, hold: Hold) -> bytes:
    """What a client reads when the node says that."""
    assert it.node.held is not None
    it.node.held.put_nowait(hold)
    return await response.content.readuntil(b"\n\n")


def grant(it: World) -> None:
    assert it.node.held is not None
    it.node.held.put_nowait(None)


def test_a_comment_is_one_line_and_counts_down() -> None:
    assert comment_of(Hold(T, "r3 is starting", 3, 12.4)) == STARTING[2:-2].decode()
    assert "eta=2 " in comment_of(Hold(T, "", 0, 12.0), passed_s=10.0)
    assert "eta=0 " in comment_of(Hold(T, "", 0, 12.0), passed_s=99.0)
    assert "eta" not in comment_of(Hold(T, "nobody knows", 0, None))
    assert comment_of(Hold(T, 'two\nlines "quoted"', 0)).endswith(r'reason="two\nlines \"quoted\""')


async def test_every_change_is_told_and_then_the_engines_own_stream_follows(it: World) -> None:
    async with it.http.post(PATH, json=CHAT) as response:
        assert (response.status, response.content_type) == (200, "text/event-stream")
        assert response.headers["X-Accel-Buffering"] == "no"
        assert response.headers["X-Request-Id"] == it.node.leases[0][0]
        assert await response.content.readuntil(b"\n\n") == FIRST
        assert await held(it, response, Hold(T, "r3 is starting", 3, 12.0)) == STARTING
        assert b'position=0 reason="r1 is busy"' in await held(it, response, Hold(T, "r1 is busy"))
        grant(it)
        rest = await response.content.read()
    assert rest.startswith(b'data: {"id"') and rest.endswith(b"data: [DONE]\n\n")
    assert b": helios" not in rest
    assert it.node.released == [it.node.leases[0][0]]


async def test_who_is_served_soon_sees_no_comment() -> None:
    async with world(tell_after_s=60.0) as it, it.http.post(PATH, json=CHAT) as response:
        assert b": helios" not in await response.content.read()


async def test_who_wants_a_whole_answer_is_simply_held(it: World) -> None:
    async with asyncio.TaskGroup() as tasks:
        asking = tasks.create_task(it.http.post(PATH, json=CHAT | {"stream": False}))
        await it.node.asked.wait()
        assert it.node.held is not None
        it.node.held.put_nowait(Hold(T, "r3 is starting"))
        grant(it)
    async with asking.result() as response:
        assert response.content_type == "application/json"
        assert (await response.json())["choices"][0]["message"]["content"] == "hello there"


async def test_the_openai_client_skips_the_comments(it: World) -> None:
    import openai

    async with openai.AsyncOpenAI(base_url=f"{it.url}/v1", api_key="none", max_retries=0) as client:
        stream = await client.chat.completions.create(**CHAT)  # type: ignore[call-overload]
        grant(it)
        assert [part.choices[0].delta.content async for part in stream] == ["hello", " there"]


async def test_a_refusal_after_the_stream_began_is_an_event_that_the_openai_client_raises(it: World) -> None:
    import openai

    it.node.refusal = Unavailable("cannot serve tiny in time", code="queue_timeout", retry_after_s=None)
    async with openai.AsyncOpenAI(base_url=f"{it.url}/v1", api_key="none", max_retries=0) as client:
        stream = await client.chat.completions.create(**CHAT)  # type: ignore[call-overload]
        grant(it)
        with pytest.raises(openai.APIError, match="cannot serve tiny in time") as caught:
            [part async for part in stream]
    assert caught.value.code == "queue_timeout"
    async with it.local.get("/metrics") as response:
        assert 'code="queue_timeout",route="/v1/chat/completions",status="200"' in await response.text()


async def test_the_anthropic_client_raises_it_too(it: World) -> None:
    import anthropic

    it.node.refusal = CannotFit("cannot fit: needs 90 GiB")
    async with anthropic.AsyncAnthropic(base_url=it.url, api_key="none", max_retries=0) as client:
        ask = [{"role": "user", "content": "hi"}]
        stream = await client.messages.create(model="tiny", max_tokens=5, messages=ask, stream=True)  # type: ignore[call-overload]
        grant(it)
        with pytest.raises(anthropic.APIStatusError, match="needs 90 GiB"):
            [part async for part in stream]


async def test_a_refusal_before_the_stream_began_has_its_status() -> None:
    async with world(tell_after_s=60.0) as it:
        it.node.refusal = Unavailable("cannot serve tiny in time", code="queue_timeout", retry_after_s=None)
        async with it.http.post(PATH, json=CHAT) as response:
            assert (response.status, (await response.json())["error"]["code"]) == (503, "queue_timeout")
            assert "Retry-After" not in response.headers


async def answered_after_waiting(it: World, path: str = PATH) -> bytes:
    """What comes after the first comment, from the engine as the test has set it."""
    async with it.http.post(path, json=CHAT) as response:
        assert response.status == 200
        assert await response.content.readuntil(b"\n\n") == FIRST
        grant(it)
        return await response.content.read()


@pytest.mark.parametrize(("path", "before"), [(PATH, b""), ("/v1/messages", b"event: error\n")])
async def test_an_engine_that_refuses_a_held_stream_is_told_with_its_stable_code(
    it: World, path: str, before: bytes
) -> None:
    async def refuse(request: Request, reply: Reply) -> None:
        error = {"message": "temperature must be non-negative", "type": "BadRequestError", "code": 400}
        await reply.start(400, [("content-type", "application/json"), ("content-length", "7")])
        await reply.write(json.dumps({"error": error}, indent=1).encode())

    it.engine.answer = refuse
    told = await answered_after_waiting(it, path)
    assert told.startswith(before + b"data: ") and told.endswith(b"\n\n")
    error = json.loads(told.removeprefix(before).removeprefix(b"data: "))["error"]
    assert (error["code"], error["message"]) == ("invalid_request", "temperature must be non-negative")


async def test_an_answer_that_is_no_stream_comes_as_one_event(it: World) -> None:
    async def whole(request: Request, reply: Reply) -> None:
        await reply.start(200, [("content-type", "application/json")])
        await reply.write(b'{"a":\n')
        await reply.write(b" 1}")

    it.engine.answer = whole
    assert await answered_after_waiting(it) == b'data: {"a":\ndata:  1}\n\n'


async def test_an_engine_that_says_nothing_is_an_event(it: World) -> None:
    async def silent(request: Request, reply: Reply) -> None:
        pass

    it.engine.answer = silent
    assert b"ended without a word" in await answered_after_waiting(it)


async def test_an_engine_that_dies_in_a_held_stream_is_an_event(it: World) -> None:
    async def die(request: Request, reply: Reply) -> None:
        raise EngineFailed("cannot answer: the engine died", cause="SIGKILL")

    it.engine.answer = die
    error = json.loads((await answered_after_waiting(it)).removeprefix(b"data: "))["error"]
    assert (error["code"], error["cause"]) == ("engine_failed", "SIGKILL")


async def test_a_peers_stream_follows_the_comments(it: World) -> None:
    it.node.at_peers["tiny"] = PeerName("east")
    assert (await answered_after_waiting(it)).endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_while_held_frees_its_ticket(it: World, stream: bool) -> None:
    async with asyncio.TaskGroup() as tasks:
        asking = tasks.create_task(it.http.post(PATH, json=CHAT | {"stream": stream}))
        await it.node.asked.wait()
        if stream:
            response = await asking
            await response.content.readuntil(b"\n\n")
            response.close()
        else:
            asking.cancel()
    await asyncio.wait_for(it.node.release.wait(), 5)
    assert it.node.released == [it.node.leases[0][0]]
    assert it.engine.seen == []


class Listener:
    """Hears comments; goes away after so many."""

    def __init__(self, leaves_after: int = 1000) -> None:
        self.left = leaves_after
        self.heard: asyncio.Queue[str] = asyncio.Queue()

    async def hold(self, comment: str) -> None:
        if not self.left:
            raise ConnectionResetError
        self.left -= 1
        self.heard.put_nowait(comment)


async def test_a_wait_without_news_has_a_heartbeat() -> None:
    listener = Listener()
    async with telling(listener, 0.0, heartbeat_s=0.001) as told:
        told(Hold(T, "r3 is starting"))
        for _ in range(5):
            assert "r3 is starting" in await asyncio.wait_for(listener.heard.get(), 5)


async def test_a_client_that_has_gone_ends_the_wait() -> None:
    with pytest.raises(ConnectionResetError):
        async with telling(Listener(leaves_after=0), 0.0):
            await asyncio.Event().wait()


async def test_the_blocks_own_error_comes_out_as_it_is() -> None:
    cause = ValueError("why")
    with pytest.raises(EngineFailed, match="no") as caught:
        async with telling(Listener(), 0.0) as told:
            assert isinstance(told, Telling)
            raise EngineFailed("no") from cause
    assert caught.value.__cause__ is cause
