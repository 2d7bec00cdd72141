"""What a replica of a model will take on each device, before anything loads.

First floor: exact weights from the safetensors headers, KV cache by formula, overhead as measured here before or else
by a first guess. What is assumed is said in `notes`.
"""

from dataclasses import dataclass

from heliosd.core.hardware import DeviceKind
from heliosd.core.messages import Footprint
from heliosd.core.profile import ModelProfile
from heliosd.core.units import GiB, format_bytes
from heliosd.errors import BadRequest
from heliosd.estimation import kv_cache
from heliosd.estimation.overhead import overhead_bytes

# Left to itself, Helios gives a model room for so many requests of full length, but no more than this share of a
# device, so that several models fit side by side.
AUTO_SEQUENCES = 4
AUTO_SHARE = 4
UNKNOWN_KV_BYTES = GiB
UNKNOWN_MODEL_LEN = 4096


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the operator or the caller set; None leaves it to Helios."""

    kv_cache_bytes: int | None = None
    max_model_len: int | None = None
    max_num_seqs: int | None = None
    dtype: str = "auto"
    tensor_parallel: int = 1


@dataclass(frozen=True, slots=True)
class Estimate:
    per_device: Footprint
    device_count: int
    max_model_len: int
    max_num_seqs: int
    kv_tokens: int
    kv_bytes_per_token: int
    notes: tuple[str, ...]


def estimate(
    profile: ModelProfile,
    wishes: Wishes,
    kind: DeviceKind,
    capacity_bytes: int,
    measured_overhead_bytes: int | None = None,
) -> Estimate:
    """Predict the bytes on each of `wishes.tensor_parallel` devices of `kind` with `capacity_bytes`.

    `measured_overhead_bytes` is what the same revision and engine took here before. Raises BadRequest when the wishes
    contradict each other: a KV cache too small for one request of the length asked for.
    """
    notes: list[str] = []
    ranks = wishes.tensor_parallel
    dtype = profile.dtype if wishes.dtype == "auto" else wishes.dtype
    seqs = sequences(wishes, kind)
    length = wishes.max_model_len or profile.max_model_len or UNKNOWN_MODEL_LEN
    if not (wishes.max_model_len or profile.max_model_len):
        notes.append(f"the configuration does not say how long a request may be: {length} tokens are assumed")
    per_token = kv_cache.bytes_per_token(profile, dtype, ranks)
    if per_token is None:
        notes.append(f"the configuration does not describe its attention: {format_bytes(UNKNOWN_KV_BYTES)} assumed")
        kv_bytes, tokens, per_token = wishes.kv_cache_bytes or UNKNOWN_KV_BYTES, length, 0
    elif per_token == 0:
        kv_bytes, tokens = 0, 0
    else:
        kv_bytes, length = _kv_cache(wishes, per_token, length, kind, capacity_bytes, notes)
        tokens = kv_cache.tokens_in(kv_bytes, per_token, kv_cache.block_tokens(kind))
    if measured_overhead_bytes is None:
        notes.append("not measured here yet: the overhead is a first guess")
        overhead = overhead_bytes(profile, seqs, kind, ranks)
    else:
        overhead = measured_overhead_bytes
    return Estimate(
        per_device=Footprint(_weights(profile, wishes.dtype) // ranks, kv_bytes, overhead),
        device_count=ranks,
        max_model_len=length,
        max_num_seqs=seqs,
        kv_tokens=tokens,
        kv_bytes_per_token=per_token,
        notes=tuple(notes),
    )


def sequences(wishes: Wishes, kind: DeviceKind) -> int:
    """How many an engine on such a device works on at once."""
    return wishes.max_num_seqs or (32 if kind is DeviceKind.HOST else 256)


def _weights(profile: ModelProfile, dtype: str) -> int:
    """As stored, unless the operator asked for another precision of a model stored in a plain one."""
    stored = kv_cache.DTYPE_BYTES.get(profile.dtype or "")
    wanted = kv_cache.DTYPE_BYTES.get(dtype)
    if dtype == "auto" or stored is None or wanted is None:
        return profile.weights_bytes
    return profile.weights_bytes * wanted // stored


def _kv_cache(
    wishes: Wishes, per_token: int, length: int, kind: DeviceKind, capacity_bytes: int, notes: list[str]
) -> tuple[int, int]:
    """(bytes of KV cache, longest request): the cache always holds at least one request of that length."""
    block = kv_cache.block_tokens(kind)
    one = kv_cache.bytes_for(length, per_token, block)
    if wishes.kv_cache_bytes is None:
        share = capacity_bytes // AUTO_SHARE
        if one > share and wishes.max_model_len is None:
            share = max(share, kv_cache.bytes_for(block, per_token, block))
            fits = kv_cache.tokens_in(share, per_token, block)
            notes.append(f"requests are limited to {fits} of {length} tokens, so that the KV cache fits a device")
            return share, fits
        return max(one, min(AUTO_SEQUENCES * one, share)), length
    if wishes.kv_cache_bytes >= one:
        return wishes.kv_cache_bytes, length
    fits = kv_cache.tokens_in(wishes.kv_cache_bytes, per_token, block)
    if wishes.max_model_len is not None or fits < block:
        raise BadRequest(
            f"cannot hold a request of {length} tokens in a KV cache of {format_bytes(wishes.kv_cache_bytes)}: "
            f"{length} tokens x {per_token} bytes need {format_bytes(one)}; set a larger kv_cache or a smaller "
            "max_model_len",
            code="bad_limits",
        )
    notes.append(f"requests are limited to {fits} of {length} tokens by the KV cache")
    return wishes.kv_cache_bytes, fits
