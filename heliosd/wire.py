"""What crosses the admin API. The one daemon module that heliosctl and the TUI may import."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Wire(BaseModel):
    """Unknown fields are ignored when reading, so an older client understands a newer daemon."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Asked(BaseModel):
    """The body of a request: an unknown field is an error, because it would otherwise be ignored silently."""

    model_config = ConfigDict(frozen=True, extra="forbid")


# ---- errors ----------------------------------------------------------------


class ErrorDetail(Wire):
    """OpenAI's error object; `code` is stable, `cause` has the engine's own words."""

    message: str
    type: str
    code: str
    param: str | None = None
    cause: str | None = None


class ErrorBody(Wire):
    error: ErrorDetail


# ---- memory ----------------------------------------------------------------


class FootprintView(Wire):
    """Bytes on one device."""

    weights_bytes: int
    kv_cache_bytes: int
    overhead_bytes: int
    total_bytes: int


class DeviceView(Wire):
    """One device with the ledger's columns. `free_bytes` is what may still be promised."""

    id: str
    kind: str
    name: str
    capacity_bytes: int
    foreign_bytes: int = Field(description="held by processes that are not ours")
    safety_bytes: int
    promised_bytes: int
    measured_bytes: int = Field(description="what our ready replicas were measured to hold")
    free_bytes: int
    weights_bytes: int = Field(description="part of promised")
    kv_cache_bytes: int = Field(description="part of promised")
    used_bytes: int = Field(description="all processes together, as the device says")
    utilization_ratio: float | None = None
    temperature_c: float | None = None
    power_w: float | None = None
    power_limit_w: float | None = None
    ecc_errors: int | None = None
    fault: str | None = None
    parent: str | None = None
    compute_capability: str | None = None
    driver_version: str | None = None
    numa_node: int | None = None
    pcie: str | None = Field(None, description="generation and width of the link, such as gen5 x16")
    links: dict[str, str] = {}


# ---- models ----------------------------------------------------------------


class FileView(Wire):
    path: str
    digest: str
    size_bytes: int


class ModelView(Wire):
    """A ref the store knows."""

    ref: str
    revision: str = Field(description="sha256 of the manifest")
    size_bytes: int
    source: str = Field(description="hub, directory or gguf, and where from")
    created_at: float = Field(description="seconds since the epoch")
    aliases: list[str] = []
    state: str = Field("stored", description="stored, or the state of its replica")
    architecture: str | None = None
    parameters: int | None = None
    max_model_len: int | None = None
    peer: str | None = Field(None, description="set when only that peer holds it")


class ModelDetail(ModelView):
    files: list[FileView]
    dtype: str | None = None
    kv_bytes_per_token: int | None = None
    settings: dict[str, Any] = {}
    estimate: "EstimateView | None" = None


class AddModel(Asked):
    """Bring a model into the store."""

    source: Literal["hub", "directory", "gguf"]
    location: str = Field(description="a hub repository, or an absolute path on the daemon's machine")
    ref: str | None = Field(None, description="what to call it; default: after the repository or folder")
    revision: str | None = Field(None, description="hub only: branch, tag or commit")
    alias: str | None = None
    allow_pickle: bool = False


class SetAlias(Asked):
    """Let an alias mean a model."""

    ref: str = Field(description="a model of this node's store, or another alias of it")


class AliasView(Wire):
    alias: str
    ref: str = Field(description="the model itself")


class ProgressView(Wire):
    """One line of a long operation, as an SSE `progress` event."""

    phase: str = Field(description="list, fetch, convert, verify, commit")
    item: str | None = None
    done_bytes: int = 0
    total_bytes: int | None = None


class Removed(Wire):
    ref: str
    freed_bytes: int


# ---- replicas --------------------------------------------------------------


class ReplicaView(Wire):
    id: str
    model: str
    revision: str
    state: str
    devices: list[str]
    leases: int
    predicted: FootprintView
    measured: FootprintView | None = None
    phases: dict[str, float] = Field({}, description="seconds of each phase of the start")
    started_at: float = Field(description="seconds since the epoch")
    idle_s: float
    keep_alive_s: float | None = Field(description="None: kept for ever")
    max_model_len: int | None = None
    tasks: list[str] = []
    pids: list[int] = []
    log_file: str | None = None


class LoadModel(Asked):
    model: str


class QueueView(Wire):
    """A request that waits."""

    ticket: str
    model: str
    waiting_s: float
    reason: str


# ---- estimates -------------------------------------------------------------


class EstimateRequest(Asked):
    model: str
    kv_cache_bytes: int | None = Field(None, gt=0)
    max_model_len: int | None = Field(None, gt=0)
    max_num_seqs: int | None = Field(None, gt=0)


class EstimateView(Wire):
    """Predicted bytes on each of `device_count` devices, and whether they are to be had."""

    model: str
    per_device: FootprintView
    device_count: int
    max_model_len: int
    kv_tokens: int = Field(description="tokens that the KV cache holds")
    kv_bytes_per_token: int
    verdict: Literal["ready", "fits", "must_wait", "never_fits"]
    reason: str
    notes: list[str] = Field([], description="what is assumed or not known")


# ---- events ----------------------------------------------------------------


class EventView(Wire):
    """A line of the journal, or a state change on the feed (then `id` is 0 and nothing is stored)."""

    id: int
    at: float = Field(description="seconds since the epoch")
    kind: str
    message: str
    ticket: str | None = None
    model: str | None = None
    replica: str | None = None
    detail: dict[str, Any] = {}


class Explanation(Wire):
    subject: str
    events: list[EventView]


# ---- node, cluster, keys ---------------------------------------------------


class EngineKindView(Wire):
    kind: str
    version: str | None
    state: str = Field(description="cold, warming, warm or failed")
    detail: str | None = None


class NodeView(Wire):
    name: str
    version: str
    state: str = Field(description="starting, running or draining")
    started_at: float
    uptime_s: float
    pid: int
    engines: list[EngineKindView]
    config_files: list[str]
    state_dir: str
    warnings: list[str] = []


class MemberView(Wire):
    name: str
    state: str = Field(description="self, alive, suspect, dead or left")
    address: str
    api_url: str | None = None
    version: str | None = None
    models: list[str] = []


class Snapshot(Wire):
    """All the TUI shows, as the first event of the feed and after each change."""

    node: NodeView
    devices: list[DeviceView]
    replicas: list[ReplicaView]
    queue: list[QueueView]


class AddKey(Asked):
    name: str = Field(min_length=1, max_length=64)
    admin: bool = False


class KeyView(Wire):
    id: str
    name: str
    admin: bool
    created_at: float
    secret: str | None = Field(None, description="shown once, when the key is made")


class CheckView(Wire):
    """One finding of `heliosctl doctor`."""

    name: str
    ok: bool
    message: str
    advice: str | None = None


# ---- lists -----------------------------------------------------------------


class ModelList(Wire):
    models: list[ModelView]


class ReplicaList(Wire):
    replicas: list[ReplicaView]
    queue: list[QueueView]


class StoppedReplicas(Wire):
    stopped: list[str] = Field(description="ids of the replicas that were stopped")


class DeviceList(Wire):
    devices: list[DeviceView]


class EventList(Wire):
    events: list[EventView]


class MemberList(Wire):
    members: list[MemberView]


class CheckList(Wire):
    checks: list[CheckView]


class KeyList(Wire):
    keys: list[KeyView]
