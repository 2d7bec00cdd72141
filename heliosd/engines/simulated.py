"""Engines that only pretend: they take time to load, hold booked memory, answer, and die when they are told to.

For `heliosd --simulate`, and for every test that needs an engine but no model. They answer chat and completions,
whole or as a stream, in OpenAI's shape, always the same to the same question.
"""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

from heliosd.core.messages import Footprint
from heliosd.core.names import DeviceId, ReplicaId
from heliosd.core.units import MiB
from heliosd.engines.engine import LaunchSpec, Reply, Request
from heliosd.errors import EngineFailed

Sleep = Callable[[float], Awaitable[None]]

_CREATED = 1_700_000_000
_WORDS = tuple("the engine hears you and says in its own even voice that all is well here".split())  # noqa: SIM905


class SimulatedMemory(Protocol):
    """Who keeps account of the simulated devices' bytes."""

    def take(self, replica: ReplicaId, device: DeviceId, n_bytes: int) -> None:
        """Raises EngineFailed when the device has not so much left."""
        ...

    def give(self, replica: ReplicaId) -> None:
        """Take back all of a replica's bytes. Harmless when repeated."""
        ...


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How simulated engines behave. A model's `engine_args` may hold any of these by name."""

    load_s: float = 1.0
    tokens_per_s: float = 50.0
    weights_bytes: int | None = None
    """None: the size of the safetensors files in the model's directory."""
    overhead_bytes: int = 256 * MiB
    default_max_model_len: int = 4096
    refuses: str | None = None
    """Does not start, and says this."""
    never_ready: bool = False
    dies_of: str | None = None
    """A request that contains this text kills the engine."""


class SimulatedKind:
    """Starts simulated engines. `sleep` is time as they know it; tests pass their own."""

    def __init__(
        self, memory: SimulatedMemory, behaviour: Behaviour | None = None, sleep: Sleep = asyncio.sleep
    ) -> None:
        self.state = "warm"
        self.version = "simulated"
        self.detail: str | None = None
        self._memory = memory
        self._behaviour = behaviour or Behaviour()
        self._sleep = sleep

    async def warm(self) -> None:
        """Nothing to do."""

    async def start(self, spec: LaunchSpec) -> "SimulatedEngine":
        known = {one.name for one in fields(Behaviour)}
        ours = {name: value for name, value in spec.engine_args.items() if name in known}
        behaviour = replace(self._behaviour, **ours)
        footprint = Footprint(_weights_bytes(behaviour, spec), spec.kv_cache_bytes, behaviour.overhead_bytes)
        try:
            for device in spec.devices:
                self._memory.take(spec.replica, device.id, footprint.total_bytes)
            if behaviour.never_ready:
                await asyncio.get_running_loop().create_future()
            await self._sleep(behaviour.load_s)
            if behaviour.refuses is not None:
                raise EngineFailed(f"cannot start {spec.served_names[0]}: {behaviour.refuses}", cause=behaviour.refuses)
        except BaseException:
            self._memory.give(spec.replica)
            raise
        return SimulatedEngine(spec, behaviour, footprint, self._memory, self._sleep)

    async def close(self) -> None:
        """Nothing to do."""


class SimulatedEngine:
    """A running simulated engine, and its own frontend."""

    def __init__(
        self,
        spec: LaunchSpec,
        behaviour: Behaviour,
        footprint: Footprint,
        memory: SimulatedMemory,
        sleep: Sleep,
    ) -> None:
        self._spec = spec
        self._behaviour = behaviour
        self._footprint = footprint
        self._memory = memory
        self._sleep = sleep
        self._working: set[asyncio.Task[Any]] = set()
        self._cause: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._stopped = False

    @property
    def frontend(self) -> "SimulatedEngine":
        return self

    @property
    def pids(self) -> frozenset[int]:
        return frozenset()

    @property
    def footprint(self) -> Footprint:
        return self._footprint

    @property
    def phases(self) -> Mapping[str, float]:
        return {"weights": self._behaviour.load_s}

    @property
    def max_model_len(self) -> int:
        return self._spec.max_model_len or self._behaviour.default_max_model_len

    @property
    def tasks(self) -> tuple[str, ...]:
        return ("generate",)

    def unfinished(self) -> int:
        """Requests it works on."""
        return len(self._working)

    def die(self, cause: str) -> None:
        """End as a crashed engine does: at once, with every request."""
        if self._stopped or self._cause.done():
            return
        self._cause.set_result(cause)
        self._memory.give(self._spec.replica)
        for task in self._working:
            task.cancel()

    async def wait_dead(self) -> str:
        return await asyncio.shield(self._cause)

    async def stop(self) -> None:
        self._stopped = True
        self._memory.give(self._spec.replica)

    def metrics(self) -> str:
        return ""

    async def handle(self, request: Request, reply: Reply) -> None:
        task = asyncio.current_task()
        assert task is not None, "called in a task"
        watched = _Watched(reply)
        self._working.add(task)
        try:
            if self._cause.done():
                raise self._failure()
            await self._answer(request, watched)
        except asyncio.CancelledError:
            if not self._cause.done() or task.uncancel() > 0:
                raise  # the client is gone
            if not watched.started:
                raise self._failure() from None
            await watched.write(_event({"error": _error(self._failure().message, "engine_failed")}))
        finally:
            self._working.discard(task)

    def _failure(self) -> EngineFailed:
        cause = self._cause.result()
        return EngineFailed(f"cannot answer: the engine of {self._spec.served_names[0]} died: {cause}", cause=cause)

    async def _answer(self, request: Request, reply: "_Watched") -> None:
        chat = request.path == "/v1/chat/completions"
        if (request.method, chat or request.path == "/v1/completions") != ("POST", True):
            return await reply.refuse(404, f"cannot answer {request.method} {request.path}", "not_found")
        try:
            question = _question(request.body, chat)
        except ValueError as error:
            return await reply.refuse(400, str(error), "invalid_request_error")
        if len(question.words) > self.max_model_len:
            text = (
                f"This model's maximum context length is {self.max_model_len} tokens. "
                f"However, your request has {len(question.words)} tokens."
            )
            return await reply.refuse(400, text, "context_length_exceeded")
        if self._behaviour.dies_of is not None and self._behaviour.dies_of in " ".join(question.words):
            self.die(f"a request said {self._behaviour.dies_of!r}")
        shape = _Shape(chat, f"{'chatcmpl' if chat else 'cmpl'}-{request.ticket}", self._spec.served_names[0])
        n_tokens = min(question.max_tokens, self.max_model_len - len(question.words))
        words = [word async for word in self._words(question, n_tokens)] if not question.stream else []
        if not question.stream:
            await reply.start(200, [("content-type", "application/json")])
            await reply.write(json.dumps(shape.whole(words, len(question.words))).encode())
            return None
        await reply.start(200, [("content-type", "text/event-stream; charset=utf-8")])
        async for word in self._words(question, n_tokens):
            await reply.write(_event(shape.piece(word)))
        await reply.write(_event(shape.piece(None)))
        if question.usage:
            await reply.write(_event(shape.counted(n_tokens, len(question.words))))
        await reply.write(b"data: [DONE]\n\n")
        return None

    async def _words(self, question: "_Question", n_tokens: int) -> AsyncIterator[str]:
        seed = int.from_bytes(hashlib.sha256(" ".join(question.words).encode()).digest()[:4])
        for number in range(n_tokens):
            await self._sleep(1 / self._behaviour.tokens_per_s)
            yield _WORDS[(seed + number) % len(_WORDS)] + " "


class _Watched:
    """The reply, and whether anything was written to it."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self.started = False

    async def start(self, status: int, headers: list[tuple[str, str]]) -> None:
        self.started = True
        await self._reply.start(status, headers)

    async def write(self, chunk: bytes) -> None:
        await self._reply.write(chunk)

    async def refuse(self, status: int, message: str, code: str) -> None:
        await self.start(status, [("content-type", "application/json")])
        await self.write(json.dumps({"error": _error(message, code)}).encode())


@dataclass(frozen=True, slots=True)
class _Question:
    words: list[str]
    max_tokens: int
    stream: bool
    usage: bool


@dataclass(frozen=True, slots=True)
class _Shape:
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


def _question(body: bytes, chat: bool) -> _Question:
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
    return _Question(
        words=" ".join(texts).split(),
        max_tokens=int(asked.get("max_completion_tokens") or asked.get("max_tokens") or 16),
        stream=bool(asked.get("stream", False)),
        usage=bool(options.get("include_usage", False)),
    )


def _usage(asked: int, said: int) -> dict[str, int]:
    return {"prompt_tokens": asked, "completion_tokens": said, "total_tokens": asked + said}


def _error(message: str, code: str) -> dict[str, Any]:
    return {"message": message, "type": code, "param": None, "code": code}


def _event(payload: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(payload).encode() + b"\n\n"


def _weights_bytes(behaviour: Behaviour, spec: LaunchSpec) -> int:
    if behaviour.weights_bytes is not None:
        return behaviour.weights_bytes
    return sum(file.stat().st_size for file in spec.directory.glob("*.safetensors"))
