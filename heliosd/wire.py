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
    drift_bytes: int = Field(0, description="what the device says ours hold, minus what they were measured to hold")
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
    state: str = Field("stored", description="stored, or the state of its replica; of an adapter: of its base's")
    architecture: str | None = None
    parameters: int | None = None
    max_model_len: int | None = None
    peer: str | None = Field(None, description="set when only that peer holds it")
    base: str | None = Field(None, description="of an adapter: the model it is for, whose replica serves it")
    adapter_rank: int | None = Field(None, description="of an adapter: the highest of its matrices")


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
    base: str | None = Field(
        None, description="for an adapter: the model of the store it is for; default: what its configuration names"
    )


class SetAlias(Asked):
    """Let an alias mean a model."""

    ref: str = Field(description="a model of this node's store, or another alias of it")


class PinModel(Asked):
    replicas: int = Field(1, ge=1, le=64, description="how many to keep ready")


class PinView(Wire):
    model: str
    replicas: int


class PinList(Wire):
    pins: list[PinView]


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
    pinned: bool = Field(False, description="it is kept ready, whatever is asked for")
    sleep_level: int = Field(0, description="1: its weights are in host memory; 2: they are not; 0: it does not sleep")
    limit: int = Field(0, description="requests it may work on at once now")
    kv_used_ratio: float = Field(0.0, description="of its KV cache, as its engine last said")
    max_model_len: int | None = None
    tasks: list[str] = []
    pids: list[int] = []
    log_file: str | None = None


class LoadModel(Asked):
    model: str


class SleepingReplicas(Wire):
    asleep: list[str]


class HostView(Wire):
    """Host memory that sleeping replicas may hold."""

    limit_bytes: int
    staged_bytes: int = Field(description="held by those that sleep")
    free_bytes: int


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


# ---- estimates -------------------------------------------------------------

LARGEST = 2**40
"""No size in tokens or sequences comes near it; bytes may."""


class TrainRequest(Asked):
    """How a model is to be trained; sizes are for one device."""

    method: Literal["full", "lora", "qlora"] = "full"
    optimizer: Literal["adam", "adamw", "adam8bit", "adafactor", "sgd"] = "adamw"
    precision: Literal["fp32", "bf16", "mixed", "master"] = "mixed"
    batch_size: int = 1
    sequence_length: int = 2048
    gradient_checkpointing: bool = False
    gradient_accumulation: int = 1
    attention: Literal["eager", "sdpa", "flash"] = "sdpa"
    rank: int = Field(16, description="of the LoRA matrices")
    targets: list[str] = Field([], description="projections with LoRA, such as q_proj; empty: all of the layers'")
    momentum: bool = False
    sharding: Literal["none", "zero1", "zero2", "zero3", "full_shard", "shard_grad_op"] = "none"
    data_parallel: int = 1
    tensor_parallel: int = 1
    offload: Literal["none", "optimizer", "all"] = "none"


class LoadRequest(Asked):
    """Requests to come, to tell when the KV cache overflows."""

    rate: float = Field(gt=0, le=1e9, description="requests a second, over all replicas")
    prompt_tokens: float = Field(gt=0, le=1e9, description="mean")
    prompt_p95: float | None = Field(None, gt=0, le=1e9)
    output_tokens: float = Field(gt=0, le=1e9, description="mean")
    output_p95: float | None = Field(None, gt=0, le=1e9)
    tokens_per_second: float = Field(gt=0, le=1e9, description="that each sequence writes")


class WeightsHeader(Asked):
    """The head of one safetensors file."""

    size_bytes: int = Field(gt=0, description="of the whole file")
    header: str = Field(description="the JSON behind the first eight bytes")


class EstimateRequest(Asked):
    """One of `model`, `config` and `hub`, and how it would be started.

    A `model` with nothing but limits is estimated for this node as it is; any field from `quantize` on asks what would
    be, on whatever device.
    """

    model: str | None = Field(None, description="a model of the store, or an alias")
    kv_cache_bytes: int | None = Field(None, gt=0, description="of each device; default: what is left")
    max_model_len: int | None = Field(None, gt=0, le=LARGEST, description="longest request in tokens")
    max_num_seqs: int | None = Field(None, gt=0, le=2**20, description="sequences that the engine works on at once")
    config: dict[str, Any] | None = Field(None, description="a model's config.json itself")
    headers: list[WeightsHeader] = Field(
        [], max_length=2000, description="for `config`: what the weight files hold, which makes the weights exact"
    )
    hub: str | None = Field(None, description="org/name on the hub; only its config.json and headers are read")
    revision: str | None = Field(None, description="hub only: branch, tag or commit")
    quantize: str | None = Field(
        None, max_length=40, description="what the engine is to make of a plain checkpoint, such as fp8"
    )
    gpu: str | None = Field(None, max_length=200, description="H100, MI300X, MIG 1g.10gb; default: this node's")
    device_bytes: int | None = Field(None, gt=0, description="of a device, instead of the GPU's own")
    tensor_parallel: int = Field(1, gt=0, le=4096)
    pipeline_parallel: int = Field(1, gt=0, le=4096)
    data_parallel: int = Field(1, gt=0, le=65536)
    expert_parallel: bool = False
    context: int | None = Field(None, gt=0, le=LARGEST, description="another name of max_model_len")
    concurrency: int | None = Field(
        None, gt=0, le=2**20, description="requests of full length that must fit at once; default: 1"
    )
    precision: Literal["fp32", "bf16", "fp16", "fp8", "int8", "int4", "fp4"] | None = Field(
        None, description="of the weights; default: the checkpoint's own"
    )
    kv_cache_dtype: Literal["auto", "bfloat16", "float16", "fp8", "fp8_e4m3", "fp8_e5m2"] = "auto"
    max_num_batched_tokens: int | None = Field(None, gt=0, le=2**30)
    speculative_tokens: int = Field(0, ge=0, le=64, description="drafted a step by the checkpoint's own draft layers")
    engine_version: str | None = Field(None, max_length=40, description="vLLM's; default: the one Helios ships with")
    enforce_eager: bool = False
    train: TrainRequest | None = Field(None, description="what training takes, instead of serving")
    load: LoadRequest | None = Field(None, description="adds the overflow prediction")
    changes: bool | None = Field(
        None, description="what would make it fit, where it does not; default: yes, in a batch no"
    )
    size: bool = Field(False, description="adds the largest batch and the longest context that fit")
    recommend: bool = Field(False, description="adds what serves it of the catalogue of GPUs")
    gpus: list[str] = Field([], max_length=200, description="for `recommend`: only these")
    prices: dict[str, float] = Field(
        {}, max_length=200, description="USD an hour by GPU, instead of the assumed ones; slices follow their card"
    )


class TermView(Wire):
    """One number of an account."""

    name: str
    likely_bytes: int
    low_bytes: int
    high_bytes: int
    why: str = Field(description="the formula with its numbers, and where they come from")


class AccountView(Wire):
    """What each device of a pipeline stage holds, term by term."""

    stage: int = Field(description="from 0")
    devices: int = Field(description="that hold the same")
    terms: list[TermView]
    total_bytes: int = Field(description="the likely ones together")
    booked_bytes: int = Field(description="with the margin that a ledger sets aside")
    device_bytes: int | None = Field(None, description="of one such device")


class OverflowView(Wire):
    """What becomes of the KV cache under the load."""

    sequences: float = Field(description="under way, in the mean")
    tokens: float = Field(description="held, in the mean, were there no limit")
    capacity_tokens: int
    full_share: float = Field(description="of the time in which the engine preempts, 0 to 1")
    seconds_until_full: float | None = Field(None, description="from an empty cache; none: it fills by chance only")
    fitting_rate: float = Field(description="requests a second that would fit 99 % of the time")
    queue_grows: bool = Field(description="more come than max_num_seqs lets through")


class TrainingView(Wire):
    """What a step of training takes on one device; the terms of its account are those of the fullest moment."""

    total_bytes: int
    low_bytes: int
    high_bytes: int
    host_bytes: int
    trained_parameters: int
    moment: str = Field(description="when most is held")
    moments: dict[str, int] = Field(description="bytes of each moment of a step")
    assumed: list[str] = Field(description="what widens the interval")


class ChangeView(Wire):
    """One change that makes it fit."""

    kind: str
    sentence: str
    gpu: str
    devices: int
    usd_per_hour: float
    needed_bytes: int


class OptionView(Wire):
    """Cards of the catalogue that serve it."""

    gpu: str
    devices: int
    parallel: str
    precision: str
    usd_per_hour: float = Field(description="assumed")
    longest_context: int
    most_concurrency: int
    sentence: str


class SizingView(Wire):
    """The largest value of each limit with the other two as asked; none: not even the least fits. At most 1,024
    sequences and 65,536 tokens a step are looked at."""

    max_num_seqs: int | None = Field(description="all of them at max_model_len at once, unless kv_cache_bytes is given")
    max_num_batched_tokens: int | None = Field(description="tokens of a step, beside the KV cache that requests need")
    max_model_len: int | None


class RecommendationView(Wire):
    options: list[OptionView] = Field(description="cheapest first")
    misses: list[str] = Field(description="the others, each with the nearest change")


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
    accounts: list[AccountView] = Field([], description="one for each pipeline stage; of a stored model the neediest")
    device: str | None = Field(None, description="what it was calculated for")
    engine_version: str | None = None
    architecture: str | None = None
    parameters: int | None = None
    quantization: str | None = None
    max_num_seqs: int | None = None
    concurrency: float | None = Field(None, description="requests of max_model_len that the KV cache holds at once")
    longest_context: int | None = Field(None, description="of a request alone")
    overflow: OverflowView | None = None
    training: TrainingView | None = None
    changes: list[ChangeView] = Field([], description="single changes that make it fit, cheapest kind first")
    sizing: SizingView | None = None
    recommendation: RecommendationView | None = None


class PlanModel(Asked):
    """One of `model`, `config` and `hub`, and how it is to be served."""

    model: str | None = Field(None, description="a model of the store, or an alias")
    config: dict[str, Any] | None = Field(None, description="a model's config.json itself")
    headers: list[WeightsHeader] = Field([], max_length=2000, description="for `config`: what the weight files hold")
    hub: str | None = Field(None, description="org/name on the hub; only its config.json and headers are read")
    revision: str | None = Field(None, description="hub only: branch, tag or commit")
    name: str | None = Field(None, max_length=200, description="what it is called in the answer")
    context: int | None = Field(None, gt=0, le=LARGEST, description="longest request in tokens")
    concurrency: int = Field(1, gt=0, le=2**20, description="requests of full length that must fit at once")
    tensor_parallel: int | None = Field(None, gt=0, le=64, description="devices for one replica; default: the fewest")
    precision: Literal["fp32", "bf16", "fp16", "fp8", "int8", "int4", "fp4"] | None = None
    kv_cache_dtype: Literal["auto", "bfloat16", "float16", "fp8", "fp8_e4m3", "fp8_e5m2"] = "auto"
    replicas: int = Field(1, gt=0, le=64)
    worth: float = Field(1.0, gt=0, lt=1e12, description="against others, when not all fit")


class PlanRequest(Asked):
    models: list[PlanModel] = Field(min_length=1, max_length=1000)
    gpus: list[str] = Field([], max_length=64, description="one name for each; default: the devices of this node")


class PlacedView(Wire):
    """A replica and where it lies."""

    model: str
    devices: list[str]
    needed_bytes: int = Field(description="on each device, with the margin and the KV cache asked for")
    kv_cache_bytes: int = Field(description="on each device, once what is left there is dealt out")
    committed_bytes: int = Field(description="on each device, with that KV cache")
    context: int
    concurrency: int = Field(description="requests of full length that this KV cache holds")


class LeftView(Wire):
    """A replica that finds no place."""

    model: str
    reason: str


class PlanDeviceView(Wire):
    name: str
    gpu: str
    capacity_bytes: int
    room_bytes: int = Field(description="that may be promised: less what is held in reserve")
    committed_bytes: int = Field(description="with the KV caches as dealt out")
    models: list[str]


class PlanView(Wire):
    placed: list[PlacedView]
    left: list[LeftView]
    devices: list[PlanDeviceView]
    committed_ratio: float = Field(description="of the devices' capacity")


class EstimateBatch(Asked):
    entries: list[EstimateRequest] = Field(max_length=10_000)


class BatchEntry(Wire):
    """The answer to one entry: an estimate or what is wrong with the entry."""

    index: int
    cached: bool = False
    estimate: EstimateView | None = None
    error: ErrorDetail | None = None


class BatchAnswer(Wire):
    estimates: list[BatchEntry] = Field(description="in the order of the entries")


class TermAccuracyView(Wire):
    """How near one term came; ratios are |predicted - measured| / measured."""

    name: str
    starts: int
    median: float
    p90: float
    worst: float
    under_share: float = Field(description="of the starts, those that took over 1 % more than was set aside")


class AccuracyView(Wire):
    terms: list[TermAccuracyView]


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


class StepView(Wire):
    """One thing that was said to a request."""

    after_s: float = Field(description="since it arrived")
    kind: str = Field(description="hold, grant, forward, refuse or released")
    reason: str
    position: int | None = Field(None, description="requests before it, as it looked then")
    eta_s: float | None = Field(None, description="seconds until it is served, as it looked then")


class StartView(Wire):
    """The start of a replica, as the journal has it."""

    replica: str
    reason: str
    devices: list[str]
    began_at: float = Field(description="seconds since the epoch")
    took_s: float | None = Field(None, description="until it was ready; none: it is not, or never was")
    phases: dict[str, float] = Field({}, description="seconds of each")


class RequestStory(Wire):
    model: str | None
    state: Literal["waiting", "served", "over", "forwarded", "refused"]
    arrived_at: float = Field(description="seconds since the epoch")
    waited_s: float = Field(description="until it was answered, or until now")
    served_s: float | None = Field(None, description="from the grant to its end")
    steps: list[StepView]
    replica: str | None = None
    waited_for: StartView | None = Field(None, description="the start that ended while it waited")
    position: int | None = Field(None, description="requests before it now")
    eta_s: float | None = None
    code: str | None = Field(None, description="of the refusal")
    cause: str | None = None


class BarredView(Wire):
    """Devices where a model failed and is not started for a while."""

    devices: list[str]
    failures: int = Field(description="in a row")
    retry_in_s: float
    cause: str


class AppetiteView(Wire):
    """How much a model is asked for, and what it costs to have it again."""

    asked_per_minute: float = Field(description="to be expected, by how often it was asked for lately")
    reuse_ratio: float = Field(description="probability of a request within horizon_s")
    horizon_s: float
    reload_s: float | None = Field(None, description="seconds of its last start here")
    wake_s: float | None = None
    lease_s: float | None = Field(None, description="seconds that a request is worked on")
    waiting: int
    barred: list[BarredView] = []


class ModelStory(Wire):
    estimate: EstimateView | None = Field(None, description="what a replica would take now, and whether it fits")
    replicas: list[ReplicaView]
    appetite: AppetiteView | None = Field(None, description="none: nobody has asked for it")
    failure: EventView | None = Field(None, description="the last one noted")


class RivalView(Wire):
    replica: str
    model: str
    loss_s: float
    frees_bytes: int


class WorthView(Wire):
    """What the loss of a replica would cost, and when its turn comes to make room."""

    loss_s: float = Field(description="seconds of waiting to be expected: reuse_ratio times slower_s")
    slower_s: float = Field(description="by so much longer it would take to have it back")
    frees_bytes: int = Field(description="on each of its devices")
    sleeps: bool = Field(description="it would be put to sleep rather than stopped")
    rank: int | None = Field(description="1: the next to go; none: it is not asked to go")
    of: int
    protected: str | None = None
    before: list[RivalView] = Field([], description="those that go sooner")


class ReplicaStory(Wire):
    model: str | None
    start: StartView | None = None
    predicted: FootprintView | None = None
    measured: FootprintView | None = None
    running: ReplicaView | None = Field(None, description="none: it has ended")
    appetite: AppetiteView | None = None
    worth: WorthView | None = None
    ended: EventView | None = None


class Explanation(Wire):
    subject: str
    request: RequestStory | None = None
    model: ModelStory | None = None
    replica: ReplicaStory | None = None
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
    ready: list[str] = Field([], description="of its models, those that are ready; at most the twelve latest used")
    free_bytes: int | None = Field(None, description="of its freest device, as it last told, in whole GiB")
    queue_length: int = Field(0, description="requests that wait there, up to the next power of two")


class Snapshot(Wire):
    """All the TUI shows, as the first event of the feed and after each change."""

    node: NodeView
    devices: list[DeviceView]
    replicas: list[ReplicaView]
    queue: list[QueueView]


class AddKey(Asked):
    name: str = Field(min_length=1, max_length=64)
    admin: bool = False
    priority: PriorityWord = Field("normal", description="class of its requests; normal leaves it to the model")
    share: float = Field(1.0, ge=0.001, le=1000, description="of the fair share, beside other keys that wait")


class ChangeKey(Asked):
    """What is left out stays as it is."""

    priority: PriorityWord | None = None
    share: float | None = Field(None, ge=0.001, le=1000)


class KeyView(Wire):
    id: str
    name: str
    admin: bool
    created_at: float
    priority: PriorityWord = "normal"
    share: float = 1.0
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


class QueueList(Wire):
    queue: list[QueueView] = Field(description="in the order in which they are served, as it looks now")


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
