"""A body's model is found without holding up the event loop, and with it how much work it means."""

import asyncio
import json
from typing import Any

import pytest

from heliosd.api.model_field import Question, question_of, read_question

CHAT = "/v1/chat/completions"


def asked(path: str = CHAT, **fields: Any) -> Question:
    return question_of(json.dumps({"model": "org/tiny@v1", **fields}).encode(), "application/json", path)


@pytest.mark.parametrize(("size", "at_once"), [(1_000, True), (2_000_000, False)])
async def test_a_large_body_is_read_beside_the_event_loop(size: int, at_once: bool) -> None:
    body = json.dumps({"messages": ["x" * size], "model": "org/tiny@v1"}).encode()
    async with asyncio.TaskGroup() as tasks:
        finding = tasks.create_task(read_question(body, "application/json", CHAT))
        await asyncio.sleep(0)
        assert finding.done() is at_once
    assert str(finding.result().ref) == "org/tiny@v1"
    assert finding.result().work.tokens == size // 4 + 256


@pytest.mark.parametrize(
    ("path", "stream", "streams"),
    [
        (CHAT, True, True),
        ("/v1/messages", True, True),
        (CHAT, False, False),
        (CHAT, "true", False),
        (CHAT, None, False),
        ("/v1/embeddings", True, False),
    ],
)
def test_only_what_is_written_bit_by_bit_streams(path: str, stream: object, streams: bool) -> None:
    assert asked(path, stream=stream).streams is streams


def test_a_form_means_a_little_work_and_no_stream() -> None:
    body = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\ntiny\r\n--b--'
    question = question_of(body, "multipart/form-data; boundary=b", "/v1/audio/transcriptions")
    assert (question.name, question.streams, question.work.tokens) == ("tiny", False, 1)
