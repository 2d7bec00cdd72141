"""Replicas, and requests that wait for one."""

from typing import Literal

from pydantic import Field

from heliosd.wire.base import Asked, Wire
from heliosd.wire.devices import FootprintView


class MemoryView(Wire):
    """What a replica holds over time."""

    pss_bytes: int | None = Field(
        description="of the machine's RAM, pages that n processes share counted as 1/n; none: it has no process"
    )
    device_bytes: int | None = Field(description="of all its devices, where their driver tells")
    host_floor_bytes: int = Field(description="least that it held alone of the RAM, lately and idle; 0: not known yet")
    device_floor_bytes: int
    slope_bytes_per_s: float = Field(description="by which it grows, lastingly")
    suspected: bool = Field(description="it leaks")
    why: str


class ReplicaView(Wire):
    id: str
    model: str
    revision: str
    state: str
    devices: list[str]
    leases: int
    predicted: FootprintView
    measured: FootprintView | None = None
    phases: dict[str, float] = Field({}, description="seconds of each phase of the start that has ended")
    left_s: float | None = Field(None, description="while it starts: until it is ready, as earlier starts tell")
    started_at: float = Field(description="seconds since the epoch")
    idle_s: float
    keep_alive_s: float | None = Field(description="None: kept for ever")
    pinned: bool = Field(False, description="it is kept ready, whatever is asked for")
    sleep_level: int = Field(0, description="1: its weights are in host memory; 2: they are not; 0: it does not sleep")
    limit: int = Field(0, description="requests it may work on at once now")
    kv_used_ratio: float = Field(0.0, description="of its KV cache, as its engine last said")
    memory: MemoryView | None = None
    max_model_len: int | None = None
    tasks: list[str] = []
    pids: list[int] = []
    log_file: str | None = None


class LoadModel(Asked):
    model: str
    stream: bool = Field(False, description="answer with events: `timeline` as each phase ends, then `done` or `error`")
    count: int | None = Field(
        None, ge=0, le=64, description="have so many, neither more nor fewer; default: one at least"
    )
    devices: list[str] = Field([], max_length=64, description="with `count`: where those that start may run")
    max_model_len: int | None = Field(None, gt=0, le=100_000_000, description="with `count`: of those that start")
    max_num_seqs: int | None = Field(None, gt=0, le=65536, description="with `count`: of those that start")
    kv_cache_bytes: int | None = Field(None, gt=0, description="with `count`: per device, of those that start")


class ScaledView(Wire):
    """The answer where `count` was asked for."""

    model: str
    replicas: list[ReplicaView] = Field(description="all of the model")
    started: list[str] = Field(description="ids of those that were started or woken")
    stopped: list[str]


class SleepingReplicas(Wire):
    asleep: list[str]


PriorityWord = Literal["low", "normal", "high"]


class QueueView(Wire):
    """A request that waits."""

    ticket: str
    model: str
    waiting_s: float
    reason: str
    position: int = Field(0, description="requests that go before it, as it looks now")
    eta_s: float | None = Field(None, description="until it is served, as it looks now; none: nobody can tell")
    priority: PriorityWord = "normal"
    key: str | None = Field(None, description="name of its API key; the id where a peer's client has it")
    since: float | None = Field(None, description="when it came, in seconds since the epoch")


class ReplicaList(Wire):
    replicas: list[ReplicaView]
    queue: list[QueueView]


class QueueList(Wire):
    queue: list[QueueView] = Field(description="in the order in which they are served, as it looks now")


class StoppedReplicas(Wire):
    stopped: list[str] = Field(description="ids of the replicas that were stopped")
