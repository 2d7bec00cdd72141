"""What every kind of engine can do. The pool knows only this; vLLM and simulation implement it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from heliosd.core.hardware import Device
from heliosd.core.messages import Footprint
from heliosd.core.metering import Tokens
from heliosd.core.names import ReplicaId, Ticket
from heliosd.engines.meter import Meter
from heliosd.engines.start_clock import StartClock


@dataclass(frozen=True, slots=True)
class LaunchSpec:
    """Everything an engine needs to start: nothing is looked up later."""

    replica: ReplicaId
    served_names: tuple[str, ...]
    """Names clients may put into `model`, the main one first."""
    directory: Path
    """The revision, as a directory of links."""
    devices: tuple[Device, ...]
    kv_cache_bytes: int
    """Per device; used verbatim, nothing is profiled."""
    max_model_len: int | None
    """None: what the model's configuration says."""
    max_num_seqs: int
    log_file: Path
    """Where the engine process's own output goes."""
    dtype: str = "auto"
    revision: str = ""
    """The digest of what is served; empty: nothing that depends on it is kept."""
    trust_remote_code: bool = False
    remote_code: bool = False
    """The model's configuration wants code that comes with it."""
    engine_args: Mapping[str, Any] = field(default_factory=dict)
    """What the operator set for this model, passed to the engine unchanged."""
    sleep: bool = False
    """It shall be able to sleep, where the engine can on these devices. Must be known at the start."""
    pipeline_parallel: int = 1
    """Stages, each with an equal part of `devices`: the first ones are the first stage's."""
    clock: StartClock = field(default_factory=StartClock, compare=False, repr=False)
    """Where the phases of this start are marked as they end."""
    traceparent: str = field(default="", compare=False)
    """The span of this start, as the W3C's header; empty: it is not traced."""


@dataclass(frozen=True, slots=True)
class Slept:
    """What an engine kept when it fell asleep, as measured."""

    residue: Footprint
    """On each of its devices."""
    host_bytes: int
    """In host memory, besides what it held awake."""


@dataclass(frozen=True, slots=True)
class Pressure:
    """What an engine says of its own load."""

    running: int
    """Sequences it works on."""
    waiting: int
    """Sequences that its own queue holds."""
    kv_used_ratio: float
    """Of its KV cache, 0 to 1."""
    preemptions: int
    """Sequences it had to put back for want of KV cache, since it started."""


@dataclass(frozen=True, slots=True)
class Request:
    """An HTTP request for an engine's frontend, already admitted."""

    ticket: Ticket
    method: str
    path: str
    """As the client sent it, such as `/v1/chat/completions`."""
    query: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    meter: Meter | None = field(default=None, compare=False)
    """Where the engine tells what it counts for this request; None: nobody wants to know."""


class Reply(Protocol):
    """Where a frontend writes its answer; the API hands in the client's connection."""

    async def start(self, status: int, headers: list[tuple[str, str]]) -> None: ...

    async def write(self, chunk: bytes) -> None: ...


class Frontend(Protocol):
    """Serves the OpenAI and Anthropic surfaces of one engine."""

    async def handle(self, request: Request, reply: Reply) -> None:
        """Answer one request onto `reply`. Cancelling frees the engine's sequences.

        Raises EngineFailed, with the cause, when the engine dies meanwhile and nothing was written yet.
        """
        ...


class Engine(Protocol):
    """A running engine."""

    @property
    def frontend(self) -> Frontend: ...

    @property
    def pids(self) -> frozenset[int]:
        """Its processes, for attributing device memory. Empty when it has none."""
        ...

    @property
    def footprint(self) -> Footprint:
        """What it was measured to hold when it became ready, or when it woke last."""
        ...

    @property
    def phases(self) -> Mapping[str, float]:
        """Seconds spent in each phase of the start, in order."""
        ...

    @property
    def max_model_len(self) -> int: ...

    @property
    def tasks(self) -> tuple[str, ...]:
        """What it can do: `generate`, `embed`, `score`, …"""
        ...

    @property
    def sleep_levels(self) -> frozenset[int]:
        """At which levels it can sleep; empty when it cannot.

        1: its weights go to host memory. 2: they are dropped, and read again from the store. At both, the KV cache is
        emptied and given back.
        """
        ...

    async def sleep(self, level: int) -> Slept:
        """Give the device's memory back, as far as it can. The caller sees to it that no request is under way.

        Raises EngineFailed, also for a level it cannot. Use no engine further whose sleep or wake failed or was
        cancelled, except to stop it.
        """
        ...

    async def wake(self) -> Footprint:
        """Take the memory again, and be as it was before. Returns what it holds now. Raises EngineFailed."""
        ...

    @property
    def swaps(self) -> bool:
        """Whether `EngineKind.take_over` can make it another model of the same shape."""
        ...

    def pressure(self) -> Pressure:
        """From the numbers it gave last. Cheap."""
        ...

    def on_pressure(self, tell: Callable[[Pressure], None]) -> None:
        """Have `tell` called on the event loop when its pressure changes: see `heliosd.engines.pressure`."""
        ...

    async def load_adapter(self, name: str, directory: Path) -> None:
        """Read an adapter, so that requests may name it as their model from then on; the name may have meant another.

        `directory` must stay until the engine has ended: an engine that holds many reads some of them again. Raises
        EngineFailed with the engine's own words when it does not take the adapter; it then serves on without.
        """
        ...

    async def wait_dead(self) -> str:
        """Return the cause, with the engine's own words, once it died of itself. Never after `stop`."""
        ...

    async def stop(self) -> None:
        """End it and all its processes; returns when its memory is free."""
        ...

    def counted(self) -> Tokens:
        """All tokens since it started, by its own counters, also once it has ended. Cheap."""
        ...

    def metrics(self) -> str:
        """Its own metrics in Prometheus text format (`vllm:*`), or an empty string. Called in a thread."""
        ...


class EngineKind(Protocol):
    """A way to start engines on some kinds of device."""

    @property
    def state(self) -> str:
        """`cold`, `warming`, `warm` or `failed`."""
        ...

    @property
    def version(self) -> str | None:
        """Of the engine's package; None when it has none or is not installed."""
        ...

    @property
    def detail(self) -> str | None:
        """Why it failed."""
        ...

    async def warm(self) -> None:
        """Do once what makes later starts fast (preload the zygote). Idempotent, safe to run in the background."""
        ...

    async def start(self, spec: LaunchSpec) -> Engine:
        """Start an engine. Raises EngineFailed with the child's own traceback. Cancelling leaves no process."""
        ...

    async def take_over(self, engine: Engine, spec: LaunchSpec) -> Engine:
        """Make a running engine, which serves nobody, another one: weights, tokenizer, templates and limits of `spec`.

        What shapes the engine must be equal: architecture, tensors, devices, bytes of KV cache, lengths, arguments. Of
        `engine` nothing may be used afterwards. Raises EngineFailed, and then, as when cancelled, the engine has ended.
        """
        ...

    async def close(self) -> None: ...
