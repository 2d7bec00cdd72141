"""How many models would share devices."""

from typing import Any, Literal

from pydantic import Field

from heliosd.wire.base import Asked, Wire
from heliosd.wire.estimates import LARGEST, WeightsHeader


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
    tensor_parallel: int | None = Field(
        None, gt=0, le=64, description="devices that share each layer; default: the fewest that hold the model"
    )
    pipeline_parallel: int | None = Field(
        None, gt=0, le=64, description="stages; default: one, more where the heads do not divide over the devices"
    )
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
    devices: list[str] = Field(description="those of the first stage first")
    pipeline_parallel: int = Field(1, description="stages among which the devices are dealt out")
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
