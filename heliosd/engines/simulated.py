"""Engines that only pretend: they take time to load, hold booked memory, answer, sleep, and die when they are told to.

For `heliosd --simulate`, and for every test that needs an engine but no model. What they answer is in
`simulated_answers`, how full their KV cache is in `simulated_cache`.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Protocol

from heliosd.core.messages import Footprint
from heliosd.core.metering import Tokens
from heliosd.core.names import DeviceId, ReplicaId
from heliosd.core.units import KiB, MiB
from heliosd.engines.engine import Engine, LaunchSpec, Pressure, Reply, Request, Slept
from heliosd.engines.pressure import Gauge
from heliosd.engines.simulated_answers import Question, Shape, Watched, error, event, read_question, words
from heliosd.engines.simulated_cache import SimulatedCache
from heliosd.engines.simulated_counters import Counters
from heliosd.errors import EngineFailed

Sleep = Callable[[float], Awaitable[None]]


class SimulatedMemory(Protocol):
    """Who keeps account of the simulated devices' bytes."""

    def take(self, replica: ReplicaId, device: DeviceId, n_bytes: int) -> None:
        """Raises EngineFailed when the device has not so much left."""
        ...

    def give(self, replica: ReplicaId) -> None:
        """Take back all of a replica's bytes. Harmless when repeated."""
        ...

    def follow(self, replica: ReplicaId, leak_bytes_per_s: int) -> int:
        """From now on tell what the replica holds as that of a process, whose number is returned; it leaks so much of
        each device on which it holds anything."""
        ...


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How simulated engines behave. A model's `engine_args` may hold any of these by name."""

    load_s: float = 1.0
    phases: Mapping[str, float] = field(default_factory=lambda: {"fork": 0.05, "weights": 0.8, "warm_up": 0.15})
    """The phases of a start, each with its share of `load_s`."""
    swap_phases: Mapping[str, float] = field(default_factory=lambda: {"tokenizer": 0.1, "weights": 0.8, "check": 0.1})
    """The phases of a hot swap, each with its share of `swap_s`."""
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
    kv_bytes_per_token: int = 128 * KiB
    """The KV cache holds so many fewer tokens, but always the longest request: vLLM does not start otherwise."""
    sleep_levels: frozenset[int] = frozenset({1, 2})
    """Where the launch wants an engine that can sleep."""
    residue_bytes: int = 512 * MiB
    """What it keeps of each device while it sleeps, of its overhead: weights and KV cache do go."""
    sleep_s: float = 0.1
    wake_s: float | None = None
    """None: 0.3 from level 1, half of `load_s` from level 2."""
    sleep_fails: str | None = None
    """Does not fall asleep, and says this."""
    wake_fails: str | None = None
    """Does not wake, and says this."""
    swap_s: float | None = None
    """To become another model of the same shape; None: a third of `load_s`."""
    swap_fails: str | None = None
    """Cannot become this model in another's engine, and says this."""
    sleep_leaks_bytes: int = 0
    """Of each device, lost with every sleep until it is stopped."""
    leak_bytes_per_s: int = 0
    """Of each device, lost with every second since it became ready; seen when somebody looks."""
    leak_bytes_per_request: int = 0
    """Of each device, lost with every request."""
    kv_fills: bool = False
    """Its KV cache is only taken of the device as it is first used, as many tokens at a time as its requests have."""


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

    def _told(self, spec: LaunchSpec) -> Behaviour:
        known = {one.name for one in fields(Behaviour)}
        ours = {name: value for name, value in spec.engine_args.items() if name in known}
        return replace(self._behaviour, **ours)

    async def take_over(self, engine: Engine, spec: LaunchSpec) -> "SimulatedEngine":
        behaviour = self._told(spec)
        footprint = Footprint(_weights_bytes(behaviour, spec), spec.kv_cache_bytes, behaviour.overhead_bytes)
        await engine.stop()
        try:
            for device in spec.devices:
                self._memory.take(spec.replica, device.id, footprint.total_bytes)
            swap_s = behaviour.load_s / 3 if behaviour.swap_s is None else behaviour.swap_s
            for phase, share in behaviour.swap_phases.items():
                await self._sleep(swap_s * share)
                spec.clock.mark(phase)
            if behaviour.swap_fails is not None:
                name, why = spec.served_names[0], behaviour.swap_fails
                raise EngineFailed(f"cannot make a running engine {name}: {why}", cause=why)
        except BaseException:
            self._memory.give(spec.replica)
            raise
        return SimulatedEngine(spec, behaviour, footprint, self._memory, self._sleep, swapped=True)

    async def start(self, spec: LaunchSpec) -> "SimulatedEngine":
        behaviour = self._told(spec)
        footprint = Footprint(_weights_bytes(behaviour, spec), spec.kv_cache_bytes, behaviour.overhead_bytes)
        later_bytes = footprint.kv_cache_bytes if behaviour.kv_fills else 0
        try:
            for device in spec.devices:
                self._memory.take(spec.replica, device.id, footprint.total_bytes - later_bytes)
            if behaviour.never_ready:
                await asyncio.get_running_loop().create_future()
            for phase, share in behaviour.phases.items():
                await self._sleep(behaviour.load_s * share)
                spec.clock.mark(phase)
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
        *,
        swapped: bool = False,
    ) -> None:
        self.spec = spec
        self._swapped = swapped
        self._behaviour = behaviour
        self._footprint = footprint
        self._memory = memory
        self._sleep = sleep
        self._adapters: set[str] = set()
        self._working: set[asyncio.Task[Any]] = set()
        self._cause: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._stopped = False
        self._asleep_at: int | None = None
        self._counters = Counters(spec.served_names[0], spec.replica)
        self._gauge = Gauge()
        capacity = max(self.max_model_len, spec.kv_cache_bytes // behaviour.kv_bytes_per_token)
        self._cache = SimulatedCache(capacity, spec.max_num_seqs, self._gauge.note)
        self._kv_unused = spec.kv_cache_bytes if behaviour.kv_fills and not swapped else 0
        followed = behaviour.leak_bytes_per_s or behaviour.leak_bytes_per_request or behaviour.kv_fills
        self._pids = frozenset({memory.follow(spec.replica, behaviour.leak_bytes_per_s)} if followed else ())

    @property
    def frontend(self) -> "SimulatedEngine":
        return self

    @property
    def pids(self) -> frozenset[int]:
        """Of no real process, where it leaks or fills its KV cache; else none."""
        return self._pids

    @property
    def footprint(self) -> Footprint:
        return self._footprint

    @property
    def phases(self) -> Mapping[str, float]:
        behaviour = self._behaviour
        if self._swapped:
            return {"weights": behaviour.load_s / 3 if behaviour.swap_s is None else behaviour.swap_s}
        return {phase: behaviour.load_s * share for phase, share in behaviour.phases.items()}

    @property
    def max_model_len(self) -> int:
        return self.spec.max_model_len or self._behaviour.default_max_model_len

    @property
    def tasks(self) -> tuple[str, ...]:
        return ("generate",)

    @property
    def sleep_levels(self) -> frozenset[int]:
        return frozenset(self._behaviour.sleep_levels) if self.spec.sleep else frozenset()

    @property
    def swaps(self) -> bool:
        return self._asleep_at is None and not self._working

    async def sleep(self, level: int) -> Slept:
        name, behaviour = self.spec.served_names[0], self._behaviour
        if level not in self.sleep_levels:
            able = f"it can at {sorted(self.sleep_levels)}" if self.sleep_levels else "it was started without sleep"
            raise EngineFailed(f"cannot put {name} to sleep at level {level}: {able}")
        if self._working:
            raise EngineFailed(f"cannot put {name} to sleep: it works on {len(self._working)} requests")
        self._asleep_at = level
        await self._sleep(behaviour.sleep_s)
        if behaviour.sleep_fails is not None:
            why = behaviour.sleep_fails
            raise EngineFailed(f"cannot put {name} to sleep at level {level}: {why}", cause=why)
        kept = self._residue_bytes + behaviour.sleep_leaks_bytes
        self._kv_unused = 0
        self._memory.give(self.spec.replica)
        self._take(kept)
        weights_bytes = self._footprint.weights_bytes * len(self.spec.devices)
        return Slept(Footprint(0, 0, kept), weights_bytes if level == 1 else 0)

    async def wake(self) -> Footprint:
        name, behaviour = self.spec.served_names[0], self._behaviour
        if self._asleep_at is None:
            raise EngineFailed(f"cannot wake {name}: it is not asleep")
        try:
            self._take(self._footprint.total_bytes - self._residue_bytes)
        except EngineFailed as failure:
            raise EngineFailed(f"cannot wake {name}: {failure.message}", cause=failure.cause) from failure
        default_s = 0.3 if self._asleep_at == 1 else behaviour.load_s / 2
        await self._sleep(default_s if behaviour.wake_s is None else behaviour.wake_s)
        if behaviour.wake_fails is not None:
            raise EngineFailed(f"cannot wake {name}: {behaviour.wake_fails}", cause=behaviour.wake_fails)
        self._asleep_at = None
        held = self._footprint
        self._footprint = replace(held, overhead_bytes=held.overhead_bytes + behaviour.sleep_leaks_bytes)
        return self._footprint

    @property
    def _residue_bytes(self) -> int:
        return min(self._behaviour.residue_bytes, self._footprint.overhead_bytes)

    def _take(self, n_bytes: int) -> None:
        for device in self.spec.devices:
            self._memory.take(self.spec.replica, device.id, n_bytes)

    def _hold_more(self, n_tokens: int) -> None:
        """What a request leaves behind: KV cache used for the first time, and what leaks."""
        filled = min(self._kv_unused, n_tokens * self._behaviour.kv_bytes_per_token)
        more = filled + self._behaviour.leak_bytes_per_request
        if more:
            self._kv_unused -= filled
            self._take(more)

    def pressure(self) -> Pressure:
        return self._gauge.now

    def on_pressure(self, tell: Callable[[Pressure], None]) -> None:
        self._gauge.listen(tell)

    def unfinished(self) -> int:
        """Requests it works on."""
        return len(self._working)

    def die(self, cause: str) -> None:
        """End as a crashed engine does: at once, with every request."""
        if self._stopped or self._cause.done():
            return
        self._cause.set_result(cause)
        self._gauge.close()
        self._memory.give(self.spec.replica)
        for task in self._working:
            task.cancel()

    async def load_adapter(self, name: str, directory: Path) -> None:
        refusal = None if self.spec.engine_args.get("enable_lora") else "it was started without room for adapters"
        if not await asyncio.to_thread((directory / "adapter_config.json").is_file):
            refusal = f"there is no adapter_config.json in {directory.name}"
        if refusal:
            text = f"cannot use the adapter {name} with {self.spec.served_names[0]}: {refusal}"
            raise EngineFailed(text, code="adapter_refused", cause=refusal)
        self._adapters.add(name)

    async def wait_dead(self) -> str:
        return await asyncio.shield(self._cause)

    async def stop(self) -> None:
        self._stopped = True
        self._gauge.close()
        self._memory.give(self.spec.replica)

    def counted(self) -> Tokens:
        return self._counters.total

    def metrics(self) -> str:
        return self._counters.text()

    async def handle(self, request: Request, reply: Reply) -> None:
        task = asyncio.current_task()
        assert task is not None, "called in a task"
        watched = Watched(reply)
        self._working.add(task)
        try:
            if self._cause.done():
                raise self._failure()
            if self._asleep_at is not None:
                raise EngineFailed(f"cannot answer: {self.spec.served_names[0]} sleeps at level {self._asleep_at}")
            await self._answer(request, watched)
        except asyncio.CancelledError:
            if not self._cause.done() or task.uncancel() > 0:
                raise  # the client is gone
            if not watched.wrote:
                raise self._failure() from None
            await watched.write(event({"error": error(self._failure().message, "engine_failed")}))
        finally:
            self._working.discard(task)

    def _failure(self) -> EngineFailed:
        cause = self._cause.result()
        return EngineFailed(f"cannot answer: the engine of {self.spec.served_names[0]} died: {cause}", cause=cause)

    async def _answer(self, request: Request, reply: Watched) -> None:
        chat = request.path == "/v1/chat/completions"
        if (request.method, chat or request.path == "/v1/completions") != ("POST", True):
            return await reply.refuse(404, f"cannot answer {request.method} {request.path}", "not_found")
        try:
            question = read_question(request.body, chat)
        except ValueError as wrong:
            return await reply.refuse(400, str(wrong), "invalid_request_error")
        if len(question.words) > self.max_model_len:
            text = (
                f"This model's maximum context length is {self.max_model_len} tokens. "
                f"However, your request has {len(question.words)} tokens."
            )
            return await reply.refuse(400, text, "context_length_exceeded")
        if self._behaviour.dies_of is not None and self._behaviour.dies_of in " ".join(question.words):
            self.die(f"a request said {self._behaviour.dies_of!r}")
        if question.adapter not in self._adapters:
            question = replace(question, adapter="")
        model = question.adapter or self.spec.served_names[0]
        shape = Shape(chat, f"{'chatcmpl' if chat else 'cmpl'}-{request.ticket}", model)
        n_tokens = min(question.max_tokens, self.max_model_len - len(question.words))
        self._hold_more(len(question.words) + n_tokens)
        if not question.stream:
            async with aclosing(self._words(request, question, n_tokens)) as spoken:
                said = [word async for word in spoken]
            await reply.start(200, [("content-type", "application/json")])
            await reply.write(json.dumps(shape.whole(said, len(question.words))).encode())
            return None
        await reply.start(200, [("content-type", "text/event-stream; charset=utf-8")])
        # A client that leaves frees its room at once.
        async with aclosing(self._words(request, question, n_tokens)) as spoken:
            async for word in spoken:
                await reply.write(event(shape.piece(word)))
        await reply.write(event(shape.piece(None)))
        if question.usage:
            await reply.write(event(shape.counted(n_tokens, len(question.words))))
        await reply.write(b"data: [DONE]\n\n")
        return None

    async def _words(self, request: Request, question: Question, n_tokens: int) -> AsyncGenerator[str, None]:
        async with self._cache.sequence(len(question.words)) as sequence:
            with self._counters.sequence(len(question.words), request.meter) as count:
                for word in words(question, n_tokens):
                    await self._sleep(1 / self._behaviour.tokens_per_s)
                    await self._cache.grow(sequence)
                    count()
                    yield word


def _weights_bytes(behaviour: Behaviour, spec: LaunchSpec) -> int:
    if behaviour.weights_bytes is not None:
        return behaviour.weights_bytes
    recipes = (json.loads(file.read_bytes()) for file in spec.directory.glob("*.safetensors.recipe"))
    whole = sum(file.stat().st_size for file in spec.directory.glob("*.safetensors"))
    return whole + sum(int(recipe["size_bytes"]) for recipe in recipes)
