"""Inference as clients see it: answers pass through, errors have a shape and a code, leaving frees the engine."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import aiohttp
import pytest

from heliosd.core.lifecycle import State
from heliosd.core.names import PeerName
from heliosd.engines.engine import Reply, Request
from heliosd.errors import CannotFit, EngineFailed, Unavailable
from tests.api.world import MemoryEngine, World, chunk, say_hello

if TYPE_CHECKING:
    import openai

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}


def client_of(it: World, key: str = "none") -> "openai.AsyncOpenAI":
    import openai

    return openai.AsyncOpenAI(base_url=f"{it.url}/v1", api_key=key, max_retries=0)


async def test_the_openai_client_gets_a_whole_answer(it: World) -> None:
    async with client_of(it) as client:
        answer = await client.chat.completions.create(**CHAT)  # type: ignore[call-overload]
    assert answer.choices[0].message.content == "hello there"
    assert [str(ref) for _, ref, _ in it.node.leases] == ["tiny"]
    assert it.node.released == [it.node.leases[0][0]]


async def test_the_openai_client_gets_a_stream(it: World) -> None:
    async with client_of(it) as client:
        stream = await client.chat.completions.create(**CHAT, stream=True)  # type: ignore[call-overload]
        words = [part.choices[0].delta.content async for part in stream]
    assert words == ["hello", " there"]


async def test_each_chunk_reaches_the_client_before_the_next_is_made(it: World) -> None:
    seen = asyncio.Event()

    async def answer(request: Request, reply: Reply) -> None:
        await reply.start(200, [("content-type", "text/event-stream")])
        await reply.write(chunk("tiny", "one"))
        await asyncio.wait_for(seen.wait(), 5)
        await reply.write(chunk("tiny", "two"))

    it.engine.answer = answer
    async with it.http.post("/v1/chat/completions", json=CHAT) as response:
        assert response.headers["Cache-Control"] == "no-cache"
        assert response.headers["X-Accel-Buffering"] == "no"
        assert "Content-Encoding" not in response.headers
        first = await response.content.readuntil(b"\n\n")
        assert b"one" in first
        seen.set()
        assert b"two" in await response.content.readuntil(b"\n\n")


async def test_the_engine_gets_the_request_as_it_was_without_credentials(it: World) -> None:
    headers = {
        "Authorization": "Bearer s",
        "x-api-key": "s",
        "X-Request-Id": "mine",
        "X-Custom": "Grüße",
        "Cookie": "a=b",
    }
    async with it.http.post("/v1/chat/completions?a=%20b", json=CHAT, headers=headers) as response:
        ticket = response.headers["X-Request-Id"]
        assert response.headers["Server"].startswith("heliosd/")
    request = it.engine.seen[0]
    assert (request.method, request.path, request.query) == ("POST", "/v1/chat/completions", "a=%20b")
    assert json.loads(request.body) == CHAT
    assert request.ticket == ticket
    names = {name.lower() for name, _ in request.headers}
    assert names.isdisjoint({"authorization", "x-api-key", "x-request-id", "cookie", "content-length"})
    assert dict(request.headers)["X-Custom"].encode("latin-1").decode() == "Grüße"


@pytest.mark.parametrize(
    ("asked", "engine_path"),
    [
        ("/v1/tokenize", "/tokenize"),
        ("/tokenize", "/tokenize"),
        ("/v1/classify", "/classify"),
        ("/v1/score", "/v1/score"),
        ("/rerank", "/rerank"),
        ("/v1/messages/count_tokens", "/v1/messages/count_tokens"),
    ],
)
async def test_paths_reach_the_engine_as_vllm_knows_them(it: World, asked: str, engine_path: str) -> None:
    async with it.http.post(asked, json=CHAT) as response:
        assert response.status == 200
    assert it.engine.seen[0].path == engine_path


@pytest.mark.parametrize(("asked", "named"), [("tiny@main", "tiny"), ("tiny", "tiny"), ("tiny@v2", "tiny@v2")])
async def test_the_engine_is_asked_under_the_name_it_serves(it: World, asked: str, named: str) -> None:
    it.node.engines["tiny@v2"] = it.engine
    async with it.http.post("/v1/chat/completions", json=CHAT | {"model": asked}) as response:
        assert response.status == 200
    assert json.loads(it.engine.seen[0].body) == CHAT | {"model": named}


async def test_an_alias_reaches_engines_and_peers_as_the_name_of_its_model(it: World) -> None:
    it.node.aliases["smol"] = "tiny"
    async with it.http.post("/v1/chat/completions", json=CHAT | {"model": "smol"}) as response:
        assert (await response.json())["model"] == "tiny"
    form = aiohttp.FormData()
    form.add_field("model", "smol")
    form.add_field("file", b"RIFF", filename="a.wav", content_type="audio/wav")
    it.engine.answer = answer_form
    async with it.http.post("/v1/audio/transcriptions", data=form) as response:
        assert response.status == 200
    seen = it.engine.seen[1]
    assert b'name="model"\r\n\r\ntiny\r\n--' in seen.body
    assert b"smol" not in seen.body
    it.node.at_peers["tiny"] = PeerName("east")
    async with it.http.post("/v1/chat/completions", json=CHAT | {"model": "smol"}) as response:
        assert (await response.json())["model"] == "tiny"


async def answer_form(request: Request, reply: Reply) -> None:
    await reply.start(200, [("content-type", "application/json")])
    await reply.write(b'{"text": "hm"}')


async def test_a_model_in_a_form_is_found(it: World) -> None:
    form = aiohttp.FormData()
    form.add_field("file", b"RIFF\r\n--no boundary\r\n" * 100, filename="model", content_type="audio/wav")
    form.add_field("model", "tiny")
    it.engine.answer = answer_form
    async with it.http.post("/v1/audio/transcriptions", data=form) as response:
        assert await response.json() == {"text": "hm"}
    assert b"RIFF" in it.engine.seen[0].body


async def error_of(
    it: World, body: bytes | None = None, path: str = "/v1/chat/completions"
) -> tuple[int, dict[str, str]]:
    data = json.dumps(CHAT).encode() if body is None else body
    async with it.http.post(path, data=data, headers={"Content-Type": "application/json"}) as response:
        assert response.headers["X-Request-Id"]
        return response.status, (await response.json())["error"]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "malformed_json"),
        (b"", 400, "malformed_json"),
        (b"[1]", 400, "malformed_json"),
        (b'"tiny"', 400, "malformed_json"),
        (b'{"messages": []}', 400, "missing_model"),
        (b'{"model": null}', 400, "missing_model"),
        (b'{"model": ""}', 400, "missing_model"),
        (b'{"model": 7}', 400, "missing_model"),
        (b'{"model": "../etc"}', 404, "model_not_found"),
        (b'{"model": "nobody/knows"}', 404, "model_not_found"),
    ],
)
async def test_bodies_without_a_usable_model(it: World, body: bytes, status: int, code: str) -> None:
    found, error = await error_of(it, body)
    assert (found, error["code"], error["type"]) == (status, code, "invalid_request_error")
    assert error["message"].startswith("cannot ")


async def test_refusals_keep_status_cause_and_retry_after(it: World) -> None:
    it.node.refusal = CannotFit("cannot fit: needs 90 GiB, the largest device has 80 GiB")
    assert (await error_of(it))[0] == 422
    it.node.refusal = EngineFailed("cannot start tiny", cause="ValueError: no such layer")
    status, error = await error_of(it)
    assert (status, error["code"], error["cause"]) == (502, "engine_failed", "ValueError: no such layer")
    it.node.refusal = Unavailable("cannot take requests: draining", code="draining", retry_after_s=2.4)
    async with it.http.post("/v1/completions", json=CHAT) as response:
        assert (response.status, response.headers["Retry-After"]) == (503, "3")
        assert (await response.json())["error"]["code"] == "draining"


async def test_the_openai_client_understands_the_errors(it: World) -> None:
    import openai

    async with client_of(it) as client:
        with pytest.raises(openai.NotFoundError) as caught:
            await client.chat.completions.create(**CHAT | {"model": "nobody"})  # type: ignore[call-overload]
    assert caught.value.code == "model_not_found"
    assert caught.value.request_id == it.node.leases[0][0]


async def test_the_anthropic_client_understands_the_errors(it: World) -> None:
    import anthropic

    async with anthropic.AsyncAnthropic(base_url=it.url, api_key="none", max_retries=0) as client:
        with pytest.raises(anthropic.NotFoundError) as caught:
            await client.messages.create(model="nobody", max_tokens=5, messages=[{"role": "user", "content": "hi"}])
    assert caught.value.body == {
        "type": "error",
        "error": {
            "type": "not_found_error",
            "message": "cannot serve nobody: no such model here",
            "code": "model_not_found",
        },
    }


async def test_a_body_that_is_too_large(it: World) -> None:
    status, error = await error_of(it, b'{"model": "tiny", "x": "' + b"y" * 200_000 + b'"}')
    assert (status, error["code"]) == (413, "body_too_large")

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(200):
            yield b" " * 1000

    json_ = {"Content-Type": "application/json"}
    async with it.http.post("/v1/chat/completions", data=pieces(), headers=json_) as response:  # of unknown length
        assert (response.status, (await response.json())["error"]["code"]) == (413, "body_too_large")
    assert it.engine.seen == []


@pytest.mark.parametrize(
    ("status", "message", "code"),
    [
        (400, "This model's maximum context length is 8192 tokens. However, your prompt …", "context_length_exceeded"),
        (
            400,
            "The engine prompt length 9 exceeds the max_model_len 8. Please reduce prompt.",
            "context_length_exceeded",
        ),
        (400, "temperature must be non-negative", "invalid_request"),
        (404, "The model `x` does not exist.", "model_not_found"),
        (404, "Not Found", "not_supported"),
        (500, "boom", "engine_error"),
    ],
)
async def test_the_engines_errors_get_a_stable_code(it: World, status: int, message: str, code: str) -> None:
    async def answer(request: Request, reply: Reply) -> None:
        body = json.dumps({"error": {"message": message, "type": "BadRequestError", "param": None, "code": status}})
        await reply.start(status, [("content-type", "application/json"), ("content-length", str(len(body.encode())))])
        await reply.write(body.encode())

    it.engine.answer = answer
    found, error = await error_of(it)
    assert (found, error["code"]) == (status, code)
    assert error["message"] == message or code == "not_supported"


async def test_an_error_of_the_engine_is_told_whole_when_it_is_no_json(it: World) -> None:
    async def answer(request: Request, reply: Reply) -> None:
        await reply.start(500, [("content-type", "text/plain")])
        await reply.write(b"oh ")
        await reply.write(b"no")

    it.engine.answer = answer
    async with it.http.post("/v1/chat/completions", json=CHAT) as response:
        assert (response.status, await response.text()) == (500, "oh no")


async def test_an_engine_that_dies_before_a_word_is_a_502(it: World) -> None:
    async def answer(request: Request, reply: Reply) -> None:
        it.engine.state = State.FAILED
        raise EngineFailed("cannot answer: the engine died", cause="SIGKILL")

    it.engine.answer = answer
    status, error = await error_of(it)
    assert (status, error["code"], error["cause"]) == (502, "engine_failed", "SIGKILL")


async def test_an_engine_that_dies_in_mid_stream_is_an_event(it: World) -> None:
    import openai

    async def answer(request: Request, reply: Reply) -> None:
        await reply.start(200, [("content-type", "text/event-stream")])
        await reply.write(chunk("tiny", "hel"))
        raise EngineFailed("cannot go on: the engine died", cause="SIGKILL")

    it.engine.answer = answer
    async with client_of(it) as client:
        stream = await client.chat.completions.create(**CHAT, stream=True)  # type: ignore[call-overload]
        with pytest.raises(openai.APIError, match="the engine died") as caught:
            [part async for part in stream]
    assert caught.value.code == "engine_failed"


async def test_an_answer_that_breaks_off_outside_a_stream_cuts_the_connection(it: World) -> None:
    async def answer(request: Request, reply: Reply) -> None:
        await reply.start(200, [("content-type", "application/json")])
        await reply.write(b'{"half":')
        raise EngineFailed("cannot go on")

    it.engine.answer = answer
    with pytest.raises(aiohttp.ClientError):
        async with it.http.post("/v1/chat/completions", json=CHAT) as response:
            await response.read()


async def test_a_fault_of_our_own_is_told_with_its_ticket_and_no_more(
    it: World, caplog: pytest.LogCaptureFixture
) -> None:
    async def answer(request: Request, reply: Reply) -> None:
        raise ZeroDivisionError("secret detail")

    it.engine.answer = answer
    status, error = await error_of(it)
    assert (status, error["code"], error["type"]) == (500, "internal_error", "server_error")
    assert "secret detail" not in error["message"]
    assert it.node.leases[0][0] in error["message"]
    assert "secret detail" in caplog.text


async def test_a_client_that_leaves_frees_the_engine_at_once(it: World) -> None:
    cancelled = asyncio.Event()

    async def answer(request: Request, reply: Reply) -> None:
        await reply.start(200, [("content-type", "text/event-stream")])
        await reply.write(chunk("tiny", "one"))
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    it.engine.answer = answer
    response = await it.http.post("/v1/chat/completions", json=CHAT)
    await response.content.readuntil(b"\n\n")
    response.close()
    await asyncio.wait_for(cancelled.wait(), 5)
    await asyncio.wait_for(it.node.release.wait(), 5)
    assert it.node.released == [it.node.leases[0][0]]


async def test_a_client_that_leaves_while_waiting_gives_its_place_up(it: World) -> None:
    arrived = asyncio.Event()

    async def answer(request: Request, reply: Reply) -> None:
        arrived.set()
        await asyncio.Event().wait()

    it.engine.answer = answer
    async with asyncio.TaskGroup() as tasks:
        asking = tasks.create_task(it.http.post("/v1/chat/completions", json=CHAT))
        await asyncio.wait_for(arrived.wait(), 5)
        asking.cancel()
    await asyncio.wait_for(it.node.release.wait(), 5)


async def test_a_model_at_a_peer_is_forwarded(it: World) -> None:
    it.node.at_peers["far"] = PeerName("east")
    async with it.http.post("/v1/chat/completions", json=CHAT | {"model": "far"}) as response:
        assert (await response.json())["model"] == "far"
    [(peer, request)] = it.peers.passed
    assert (peer, request.path) == ("east", "/v1/chat/completions")


async def test_a_peers_request_is_marked_as_forwarded(it: World) -> None:
    async with it.http.post("/v1/chat/completions?x=1", json=CHAT, headers={"x-helios-peer": "good"}) as response:
        assert response.status == 200
    assert [forwarded for _, _, forwarded in it.node.leases] == [True]
    assert it.peers.verified == [("POST", "/v1/chat/completions?x=1")]
    async with it.http.post("/v1/chat/completions", json=CHAT, headers={"x-helios-peer": "bad"}) as response:
        assert (response.status, (await response.json())["error"]["code"]) == (401, "invalid_peer_token")


async def test_an_earlier_response_is_found_at_the_engine_that_made_it(it: World) -> None:
    async def missing(request: Request, reply: Reply) -> None:
        await reply.start(404, [("content-type", "application/json")])
        await reply.write(b'{"error": {"message": "Response not found", "code": 404}}')

    async def found(request: Request, reply: Reply) -> None:
        await reply.start(200, [("content-type", "application/json")])
        await reply.write(json.dumps({"id": request.path.rsplit("/", 1)[1]}).encode())

    it.engine.answer = missing
    it.node.engines["second"] = MemoryEngine(found)
    async with it.http.get("/v1/responses/resp_1") as response:
        assert await response.json() == {"id": "resp_1"}
    it.node.engines["second"].answer = missing
    async with it.http.get("/v1/responses/resp_2") as response:
        assert (response.status, (await response.json())["error"]["code"]) == (404, "response_not_found")
    assert it.node.leases == [], "a lease would start a replica that has just been stopped"


async def test_an_engine_that_dies_when_asked_for_a_response_has_none(it: World) -> None:
    async def die(request: Request, reply: Reply) -> None:
        raise EngineFailed("cannot answer: the engine died")

    it.engine.answer = die
    async with it.http.post("/v1/responses/resp_1/cancel") as response:
        assert (response.status, (await response.json())["error"]["code"]) == (404, "response_not_found")


@pytest.mark.parametrize("declared", ["application/x-www-form-urlencoded", "text/plain", None, "application/jsonx"])
async def test_json_under_another_name_is_refused_before_anything_starts(it: World, declared: str | None) -> None:
    async with it.http.post(
        "/v1/chat/completions",
        data=json.dumps(CHAT).encode(),
        headers={"Content-Type": declared} if declared else {},
        skip_auto_headers=["Content-Type"],
    ) as response:
        error = (await response.json())["error"]
    assert (response.status, error["code"]) == (415, "unsupported_content_type")
    assert "-H 'Content-Type: application/json'" in error["message"]
    assert it.node.leases == []


@pytest.mark.parametrize(
    "declared", ["application/json; charset=utf-8", "Application/JSON", "application/problem+json"]
)
async def test_json_is_json_however_it_is_spelt(it: World, declared: str) -> None:
    data = json.dumps(CHAT).encode()
    async with it.http.post("/v1/chat/completions", data=data, headers={"Content-Type": declared}) as response:
        assert response.status == 200


async def test_connections_send_at_once(it: World) -> None:
    async with it.http.get("/healthz") as response:
        assert response.status == 200
        assert it.listening.runner.server is not None
        [handler] = it.listening.runner.server.connections
        assert handler.transport is not None
        sock = handler.transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


async def test_a_request_whose_engine_died_before_a_word_is_asked_once_more(it: World) -> None:
    calls: list[Request] = []

    async def answer(request: Request, reply: Reply) -> None:
        calls.append(request)
        if len(calls) == 1:
            it.engine.state = State.FAILED
            raise EngineFailed("cannot answer: the engine died", cause="SIGKILL")
        await say_hello(request, reply)

    it.engine.answer = answer
    async with it.http.post("/v1/chat/completions", json=CHAT) as response:
        assert response.status == 200
    assert len(calls) == 2
    await it.journal.flushed()
    assert [entry.kind for entry in await it.journal.read(subject="tiny")] == ["retry"]


async def test_a_request_whose_engine_ended_as_it_was_granted_is_asked_once_more(it: World) -> None:
    """The lease itself fails then: the replica is known only from the error."""
    it.node.ending, it.engine.state = 1, State.FAILED
    async with it.http.post("/v1/chat/completions", json=CHAT) as response:
        assert response.status == 200
    assert len(it.node.leases) == 2
    await it.journal.flushed()
    ((kind, message),) = [(each.kind, each.message) for each in await it.journal.read(subject="tiny")]
    assert (kind, message.partition(" died")[0]) == ("retry", "r-tiny")


async def test_a_stream_is_asked_once_more_too_as_long_as_nothing_of_it_was_sent(it: World) -> None:
    calls: list[Request] = []

    async def answer(request: Request, reply: Reply) -> None:
        calls.append(request)
        if len(calls) == 1:
            await reply.start(200, [("content-type", "text/event-stream")])
            it.engine.state = State.FAILED
            raise EngineFailed("cannot answer: the engine died", cause="SIGKILL")
        await say_hello(request, reply)

    it.engine.answer = answer
    async with client_of(it) as client:
        stream = await client.chat.completions.create(**CHAT, stream=True)  # type: ignore[call-overload]
        assert [part.choices[0].delta.content async for part in stream] == ["hello", " there"]
    assert len(calls) == 2


async def test_retries_have_a_budget(it: World) -> None:
    async def answer(request: Request, reply: Reply) -> None:
        it.engine.state = State.FAILED
        raise EngineFailed("cannot answer: the engine died", cause="SIGKILL")

    it.engine.answer = answer
    for _ in range(20):
        await error_of(it)
    assert 20 < len(it.node.leases) <= 26
