"""What simulated engines are asked and how they answer: chat and completions, whole or as a stream, in OpenAI's shape.

The same question always gets the same answer.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from heliosd.engines.engine import Reply

_CREATED = 1_700_000_000
_WORDS = tuple("the engine hears you and says in its own even voice that all is well here".split())  # noqa: SIM905


class Watched:
    """The reply, and whether anything was written to it."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self.wrote = False

    async def start(self, status: int, headers: list[tuple[str, str]]) -> None:
        await self._reply.start(status, headers)

    async def write(self, chunk: bytes) -> None:
        self.wrote = True
        await self._reply.write(chunk)

    async def refuse(self, status: int, message: str, code: str) -> None:
        await self.start(status, [("content-type", "application/json")])
        await self.write(json.dumps({"error": error(message, code)}).encode())


@dataclass(frozen=True, slots=True)
class Question:
    """What a request asks for, as far as a simulated engine cares."""

    adapter: str
    """The model it names; empty for the one that the engine was started with."""
    words: list[str]
    max_tokens: int
    stream: bool
    usage: bool


@dataclass(frozen=True, slots=True)
class Shape:
    """OpenAI's shapes for one answer."""

    chat: bool
    id: str
    model: str

    def _base(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": _CREATED, "model": self.model}

    def whole(self, words: list[str], asked: int) -> dict[str, Any]:
        text = "".join(words)
        said = {"message": {"role": "assistant", "content": text}} if self.chat else {"text": text}
        choice = {"index": 0, **said, "logprobs": None, "finish_reason": "length"}
        kind = "chat.completion" if self.chat else "text_completion"
        return {**self._base(kind), "choices": [choice], "usage": _usage(asked, len(words))}

    def piece(self, word: str | None) -> dict[str, Any]:
        """One event of a stream; None for the last."""
        said: dict[str, Any] = {"text": word or ""}
        if self.chat:
            said = {"delta": {} if word is None else {"role": "assistant", "content": word}}
        choice = {"index": 0, **said, "finish_reason": "length" if word is None else None}
        kind = "chat.completion.chunk" if self.chat else "text_completion"
        return {**self._base(kind), "choices": [choice]}

    def counted(self, said: int, asked: int) -> dict[str, Any]:
        kind = "chat.completion.chunk" if self.chat else "text_completion"
        return {**self._base(kind), "choices": [], "usage": _usage(asked, said)}


def read_question(body: bytes, chat: bool) -> Question:
    """Read a request body. Raises ValueError with what is wrong."""
    asked = json.loads(body)
    if not isinstance(asked, dict):
        raise ValueError("the body must be a JSON object")
    texts: list[str] = []
    if chat:
        messages = asked.get("messages")
        if not isinstance(messages, list) or not messages:
            raise ValueError("messages: a list with at least one message is needed")
        texts = [str(message.get("content", "")) for message in messages if isinstance(message, dict)]
    else:
        texts = [str(asked.get("prompt", ""))]
    options = asked.get("stream_options") or {}
    return Question(
        adapter=str(asked.get("model", "")),
        words=" ".join(texts).split(),
        max_tokens=int(asked.get("max_completion_tokens") or asked.get("max_tokens") or 16),
        stream=bool(asked.get("stream", False)),
        usage=bool(options.get("include_usage", False)),
    )


def _usage(asked: int, said: int) -> dict[str, int]:
    return {"prompt_tokens": asked, "completion_tokens": said, "total_tokens": asked + said}


def error(message: str, code: str) -> dict[str, Any]:
    """OpenAI's shape of an error."""
    return {"message": message, "type": code, "param": None, "code": code}


def event(payload: dict[str, Any]) -> bytes:
    """One event of a stream."""
    return b"data: " + json.dumps(payload).encode() + b"\n\n"


def words(question: Question, n_tokens: int) -> Iterator[str]:
    """The answer, a word at a time."""
    heard = [*question.words, question.adapter] if question.adapter else question.words
    seed = int.from_bytes(hashlib.sha256(" ".join(heard).encode()).digest()[:4])
    for number in range(n_tokens):
        yield _WORDS[(seed + number) % len(_WORDS)] + " "
