"""The bridge to an ASGI application, with small applications."""

import asyncio
import json
from typing import Any

import pytest

from heliosd.engines import asgi
from tests.engines.answers import Answer, request


async def plain(status: int | None, chunk: bytes) -> bytes:
    return chunk


async def head(send: Any, status: int = 200) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"x-kind", b"test")]})


async def test_the_application_sees_the_request() -> None:
    seen: dict[str, Any] = {}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.update(scope, body=await receive())
        await head(send, 201)
        await send({"type": "http.response.body", "body": b"ok"})

    answer = Answer()
    await asgi.call(app, "served", request("/v1/a%20b", {"x": 1}), answer, plain)
    assert (seen["method"], seen["path"], seen["app"]) == ("POST", "/v1/a b", "served")
    assert (b"content-type", b"application/json") in seen["headers"]
    assert (b"x-request-id", b"t-1") in seen["headers"]
    assert json.loads(seen["body"]["body"]) == {"x": 1}
    assert (answer.status, answer.headers, answer.body) == (201, {"x-kind": "test"}, b"ok")


async def test_pieces_are_passed_on_as_they_come_and_the_head_with_the_first() -> None:
    answer, gate = Answer(), asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await head(send)
        await gate.wait()
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        await send({"type": "http.response.body", "body": b"b", "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async with asyncio.TaskGroup() as group:
        group.create_task(asgi.call(app, None, request("/"), answer, plain))
        await asyncio.sleep(0)
        assert answer.status == 0, "the status was sent before anything was known of the answer"
        gate.set()
    assert answer.chunks == [b"a", b"b"]


async def test_an_answer_without_a_body_is_an_answer() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await head(send, 204)
        await send({"type": "http.response.body"})

    answer = Answer()
    await asgi.call(app, None, request("/"), answer, plain)
    assert (answer.status, answer.chunks) == (204, [])


async def test_a_cancellation_that_the_application_swallows_stays_one() -> None:
    answer, running = Answer(), asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            running.set()
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await head(send, 499)
            await send({"type": "http.response.body", "body": b"gone"})

    async with asyncio.TaskGroup() as group:
        task = group.create_task(asgi.call(app, None, request("/"), answer, plain))
        await running.wait()
        task.cancel()
    assert task.cancelled()
    assert answer.status == 0


async def test_who_looks_may_replace_what_is_sent_and_refuse_it() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await head(send, 500)
        await send({"type": "http.response.body", "body": b"generic"})

    async def refuse(status: int | None, chunk: bytes) -> bytes:
        raise LookupError(f"{status} {chunk!r}")

    answer = Answer()
    with pytest.raises(LookupError, match="500 b'generic'"):
        await asgi.call(app, None, request("/"), answer, refuse)
    assert answer.status == 0
