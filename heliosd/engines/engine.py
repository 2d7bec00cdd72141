"""What every kind of engine can do. The pool knows only this; vLLM and simulation implement it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from heliosd.core.hardware import Device
from heliosd.core.messages import Footprint
from heliosd.core.names import ReplicaId, Ticket


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
    trust_remote_code: bool = False
    remote_code: bool = False
    """The model's configuration wants code that comes with it."""
    engine_args: Mapping[str, Any] = field(default_factory=dict)
    """What the operator set for this model, passed to the engine unchanged."""


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
        """What it was measured to hold when it became ready."""
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

    async def wait_dead(self) -> str:
        """Return the cause, with the engine's own words, once it died of itself. Never after `stop`."""
        ...

    async def stop(self) -> None:
        """End it and all its processes; returns when its memory is free."""
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

    async def close(self) -> None: ...
