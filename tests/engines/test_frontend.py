"""What clients are told when an engine dies under their request; the rest of the frontend is vLLM's."""

from typing import Any

import pytest

from heliosd.engines.frontend import VllmFrontend
from heliosd.errors import EngineFailed
from tests.engines.answers import Answer, request


def frontend(app: Any, dead: bool, asleep: bool = False) -> VllmFrontend:
    async def cause() -> str:
        return "killed by SIGKILL"

    return VllmFrontend(app, None, "smol", lambda: dead, cause, lambda: asleep)


def answering(status: int, *chunks: bytes) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": status, "headers": []})
        for chunk in chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    return app


async def test_an_engine_that_sleeps_is_not_asked() -> None:
    with pytest.raises(EngineFailed, match="cannot answer: smol sleeps"):
        await frontend(answering(200), dead=False, asleep=True).handle(request("/"), Answer())


async def test_an_error_of_a_living_engine_is_vllms_own() -> None:
    answer = Answer()
    await frontend(answering(500, b'{"error": {}}'), dead=False).handle(request("/"), answer)
    assert (answer.status, answer.body) == (500, b'{"error": {}}')


async def test_a_dead_engine_is_told_with_its_cause_before_anything_is_sent() -> None:
    answer = Answer()
    for app in (answering(500, b"Internal"), answering(200, b'data: {"error": {"message": "dead"}}\n\n')):
        with pytest.raises(EngineFailed, match="the engine of smol died: killed by SIGKILL"):
            await frontend(app, dead=True).handle(request("/"), answer)
    assert answer.status == 0


@pytest.mark.parametrize(
    ("chunk", "told"),
    [
        (b'data: {"error": {"message": "dead"}}\n\n', b'data: {"error": {"message": "cannot answer'),
        (b'event: error\ndata: {"type": "error"}\n\n', b'event: error\ndata: {"type": "error", "error": {"message'),
    ],
    ids=["openai", "anthropic"],
)
async def test_in_the_middle_of_a_stream_the_error_event_names_the_cause(chunk: bytes, told: bytes) -> None:
    answer = Answer()
    await frontend(answering(200, b"data: {}\n\n", chunk), dead=True).handle(request("/"), answer)
    assert answer.chunks[0] == b"data: {}\n\n"
    assert answer.chunks[1].startswith(told)
    assert b"SIGKILL" in answer.chunks[1]


async def test_a_fault_after_the_answer_is_logged_and_not_raised(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answering(500, b"Internal")(scope, receive, send)
        raise ValueError("what vLLM did wrong")

    answer = Answer()
    await frontend(app, dead=False).handle(request("/"), answer)
    assert answer.status == 500
    assert "what vLLM did wrong" in caplog.text


async def test_a_client_that_left_is_no_fault_of_the_engine(caplog: pytest.LogCaptureFixture) -> None:
    class Gone(Answer):
        async def write(self, chunk: bytes) -> None:
            raise ConnectionResetError("the client has left")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await answering(200, b"data: {}\n\n")(scope, receive, send)
        except OSError:
            raise RuntimeError("what Starlette makes of it") from None

    with pytest.raises(ConnectionResetError, match="has left"):
        await frontend(app, dead=False).handle(request("/"), Gone())
    assert caplog.text == ""
