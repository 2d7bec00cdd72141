"""What a model would take: the questions and the answers."""

from typing import Any, Literal

from pydantic import Field

from heliosd.wire.base import Asked, ErrorDetail, Wire
from heliosd.wire.devices import FootprintView

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
    pipeline_parallel: int = Field(1, description="stages among which the devices are dealt out")
    max_model_len: int
    kv_tokens: int = Field(description="tokens that the KV cache holds")
    kv_bytes_per_token: int
    verdict: Literal["ready", "fits", "must_wait", "never_fits"]
    reason: str
    notes: list[str] = Field([], description="what is assumed or not known")
    accounts: list[AccountView] = Field([], description="one for each pipeline stage")
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
