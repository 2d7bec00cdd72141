"""Precisions of weights: what a checkpoint can be made into, by whom, and what a card runs.

Bytes only: what rounding does to answers is not judged here. Formats are those the engine reads (compressed-tensors,
modelopt, GPTQ, bitsandbytes); embeddings, heads, norms and towers keep the model's own width, as its quantizers do.
"""

from dataclasses import replace
from enum import StrEnum

from heliosd.errors import BadRequest
from heliosd.estimation.launch import Platform
from heliosd.estimation.model import Model
from heliosd.estimation.quantization import NOTHING, Quantization
from heliosd.estimation.quantization_schemes import (
    FP8_TENSOR,
    INT8_CHANNEL,
    MXFP4,
    NVFP4,
    Scheme,
    integer_groups,
)


class Precision(StrEnum):
    """Of the matrices of projections and experts, widest first."""

    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"
    FP8 = "fp8"
    INT8 = "int8"
    INT4 = "int4"
    FP4 = "fp4"

    @property
    def bits(self) -> int:
        return _BITS[self]


class Support(StrEnum):
    """What a card makes of a precision."""

    NATIVE = "native"
    """Multiplied in it."""
    STORED = "stored"
    """Kept in it and widened while multiplying: the memory is saved, the time is not."""
    NONE = "none"


class Means(StrEnum):
    """Who makes a checkpoint into a precision."""

    AS_IS = "as it is"
    CAST = "cast while loading"
    ONLINE = "quantized by the engine while loading"
    AHEAD = "needs a checkpoint that was quantized ahead"


_BITS = {
    Precision.FP32: 32, Precision.BF16: 16, Precision.FP16: 16, Precision.FP8: 8, Precision.INT8: 8,
    Precision.INT4: 4, Precision.FP4: 4,
}  # fmt: skip
_DTYPES = {Precision.FP32: "float32", Precision.BF16: "bfloat16", Precision.FP16: "float16"}
_SCHEMES: dict[Precision, Scheme] = {
    Precision.FP8: FP8_TENSOR,
    Precision.INT8: INT8_CHANNEL,
    Precision.INT4: integer_groups(4, 128, zeros=False),
    Precision.FP4: NVFP4,
}
ONLINE = {Precision.FP8: "fp8", Precision.INT8: "int8_per_channel_weight_only"}
"""What the engine's `quantization` argument is called (0.32) for what needs no prepared files."""


def precision_of(model: Model) -> Precision:
    """Of most of the model's matrices: the experts' where only they are quantized, the narrowest where schemes mix."""
    schemes = _schemes(model.quantization)
    if not schemes:
        named = {"float32": Precision.FP32, "float": Precision.FP32, "float16": Precision.FP16, "half": Precision.FP16}
        return named.get(model.dtype, Precision.BF16)
    scheme = min(schemes, key=lambda each: each.bits)
    if scheme in (MXFP4, NVFP4) or "fp4" in scheme.name:
        return Precision.FP4
    if scheme.bits > 4:
        return Precision.FP8 if "fp8" in scheme.name else Precision.INT8
    return Precision.INT4


def _schemes(quantization: Quantization) -> list[Scheme]:
    whole = [scheme for scheme in (quantization.experts, quantization.linear) if scheme is not None]
    return whole or [rule.scheme for rule in quantization.rules if rule.scheme is not None]


def means(model: Model, precision: Precision) -> Means:
    """Who would make `model` into `precision`.

    Raises BadRequest when nobody can: a quantized checkpoint has lost what a wider one holds, and one of as many bits
    in another format is made from the original, not from it.
    """
    now = precision_of(model)
    if precision is now:
        return Means.AS_IS
    if now.bits >= 16:
        if precision.bits >= 16:
            return Means.CAST
        return Means.ONLINE if precision in ONLINE else Means.AHEAD
    if precision.bits < now.bits:
        return Means.AHEAD
    raise BadRequest(
        f"cannot make {model.quantization.name} weights ({now.bits} bits) into {precision}: what rounding took is not "
        f"in the files; take the original checkpoint, or one of {', '.join(possible(model))}",
        code="bad_precision",
        param="precision",
    )


def possible(model: Model) -> tuple[Precision, ...]:
    """Precisions that `at_precision` accepts, widest first."""
    now = precision_of(model)
    return tuple(each for each in Precision if now.bits >= 16 or each is now or each.bits < now.bits)


def at_precision(model: Model, precision: Precision) -> Model:
    """The model with its projections' and experts' matrices in `precision`; what its checkpoint exempts stays exempt.

    Raises BadRequest as `means` does.
    """
    match means(model, precision):
        case Means.AS_IS:
            return model
        case Means.CAST:
            return replace(model, dtype=_DTYPES[precision], quantization=NOTHING)
        case _:
            return replace(model, quantization=_quantized(model, _SCHEMES[precision]))


def _quantized(model: Model, scheme: Scheme) -> Quantization:
    now = model.quantization
    exempt = tuple(rule for rule in now.rules if rule.scheme is None)
    return Quantization(scheme.name, scheme, scheme, exempt)


def support(precision: Precision, capability: tuple[int, int] | None, platform: Platform = Platform.CUDA) -> Support:
    """What the engine does with weights in `precision` on a card of this compute capability.

    Source: the least capabilities in vLLM 0.32's `model_executor/layers/quantization` and `platforms/cuda.py`: bf16
    8.0, fp8 8.9 (weight-only 7.5), int8 7.5, int4 weight-only (GPTQ 6.0), fp4 10.0 (weight-only 8.0). ROCm: MI300.
    """
    if platform is Platform.CPU:
        return Support.NONE if precision in (Precision.FP8, Precision.FP4) else Support.NATIVE
    if platform is Platform.ROCM:
        return Support.STORED if precision.bits == 4 else Support.NATIVE
    native, stored = _LEAST[precision]
    if capability is None or (native is not None and capability >= native):
        return Support.NATIVE if native is not None else Support.STORED
    return Support.STORED if stored is not None and capability >= stored else Support.NONE


_Least = tuple[tuple[int, int] | None, tuple[int, int] | None]
_LEAST: dict[Precision, _Least] = {
    Precision.FP32: ((6, 0), None),
    Precision.BF16: ((8, 0), None),
    Precision.FP16: ((6, 0), None),
    Precision.FP8: ((8, 9), (7, 5)),
    Precision.INT8: ((7, 5), None),
    Precision.INT4: (None, (6, 0)),
    Precision.FP4: ((10, 0), (8, 0)),
}


def fp8_cache(capability: tuple[int, int] | None, platform: Platform = Platform.CUDA) -> bool:
    """Whether attention reads a KV cache in fp8: kernels convert it from 8.9 on, and on MI300."""
    if platform is Platform.CPU:
        return False
    return platform is Platform.ROCM or capability is None or capability >= (8, 9)
