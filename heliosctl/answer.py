"""Asks a model and hands its words on as they come. Speaks the OpenAI API; prints nothing."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from heliosctl.client import Client, Stream, failure_from
from heliosctl.exits import Exit, Failure
from heliosctl.queue import held_words

Message = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Wishes:
    """How the answer should be made; None leaves it to the model."""

    system: str | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    seed: int | None = None
    schema: Mapping[str, Any] | None = None
    """A JSON schema the answer must obey."""


@dataclass(frozen=True, slots=True)
class Answer:
    text: str
    tokens: int
    """As the engine counted them; 0 when it did not say."""
    first_token_s: float
    """From asking to the first word, with all waiting and starting in between."""
    total_s: float
    finish_reason: str | None
    ticket: str | None
    chat: bool
    """False: the model only completes text."""

    @property
    def tokens_per_s(self) -> float | None:
        """Speed after the first token; None when one token or none came."""
        span_s = self.total_s - self.first_token_s
        return (self.tokens - 1) / span_s if self.tokens > 1 and span_s > 0 else None


@dataclass(frozen=True, slots=True)
class Listener:
    """Where an answer's parts go as they come."""

    words: Callable[[str], None]
    thoughts: Callable[[str], None]
    """What a reasoning model says to itself."""
    waiting: Callable[[str], None] = lambda words: None
    """What the request waits for, before there is an answer."""


def ask(
    client: Client, model: str, talk: Sequence[Message], wishes: Wishes, listener: Listener, *, chat: bool
) -> Answer:
    """Stream the answer to the last message of `talk`; without `chat` only that message's text is completed.

    A model without a chat template, or that cannot chat, is asked to complete instead: `chat` of the answer
    says so. Raises Failure.
    """
    asked_at = time.monotonic()  # a model may have to be started only to find out that it cannot chat
    if chat:
        try:
            with client.stream("POST", "/v1/chat/completions", _chat_body(model, talk, wishes)) as stream:
                return _read(stream, asked_at, listener, chat=True)
        except Failure as failure:
            if not cannot_chat(failure):
                raise
    prompt = "\n\n".join(filter(None, [wishes.system, talk[-1]["content"]]))
    body = {"model": model, "prompt": prompt, **_common(wishes)}
    with client.stream("POST", "/v1/completions", body) as stream:
        return _read(stream, asked_at, listener, chat=False)


def cannot_chat(failure: Failure) -> bool:
    """Whether the model, not the request, is why chat is refused. Engines have no code for it, only words."""
    words = f"{failure.message} {failure.cause or ''}".lower()
    return failure.exit_code is not Exit.UNREACHABLE and (
        "chat template" in words or "chat_template" in words or "not support chat" in words
    )


def _chat_body(model: str, talk: Sequence[Message], wishes: Wishes) -> dict[str, Any]:
    system = [{"role": "system", "content": wishes.system}] if wishes.system else []
    return {"model": model, "messages": [*system, *talk], **_common(wishes)}


def _common(wishes: Wishes) -> dict[str, Any]:
    wanted = {"temperature": wishes.temperature, "max_tokens": wishes.max_tokens, "seed": wishes.seed}
    body: dict[str, Any] = {name: value for name, value in wanted.items() if value is not None}
    if wishes.schema is not None:
        named = {"name": "answer", "schema": wishes.schema, "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": named}
    return body | {"stream": True, "stream_options": {"include_usage": True}}


def _read(stream: Stream, asked_at: float, listener: Listener, *, chat: bool) -> Answer:
    text: list[str] = []
    first_s: float | None = None
    tokens, finish_reason, whole = 0, None, False

    def held(comment: str) -> None:
        if words := held_words(comment):
            listener.waiting(words)

    stream.comment = held
    for event in stream:
        if event.data == "[DONE]":
            whole = True
            break
        chunk = json.loads(event.data)
        if chunk.get("error"):
            raise failure_from(event.data, None)
        tokens = (chunk.get("usage") or {}).get("completion_tokens", tokens)
        for choice in chunk.get("choices", ()):
            finish_reason = choice.get("finish_reason") or finish_reason
            delta = choice.get("delta") or {}
            words = delta.get("content") or choice.get("text") or ""
            thoughts = delta.get("reasoning") or delta.get("reasoning_content") or ""
            if first_s is None and (words or thoughts):
                first_s = time.monotonic() - asked_at
            if thoughts:
                listener.thoughts(thoughts)
            if words:
                text.append(words)
                listener.words(words)
    if not whole:
        raise Failure("cannot give the whole answer: heliosd ended it early; `heliosctl explain` may say why")
    total_s = time.monotonic() - asked_at
    return Answer(
        "".join(text), tokens, total_s if first_s is None else first_s, total_s, finish_reason, stream.ticket, chat
    )
