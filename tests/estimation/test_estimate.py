"""Bytes are predicted from facts; what is assumed is said, and wishes that contradict each other are refused."""

from dataclasses import replace

import pytest

from heliosd.core.hardware import DeviceKind
from heliosd.core.profile import ModelProfile
from heliosd.core.units import GiB, MiB
from heliosd.errors import BadRequest
from heliosd.estimation import kv_cache
from heliosd.estimation.estimate import Wishes, estimate

SMOLLM2 = ModelProfile(
    architecture="LlamaForCausalLM",
    weights_bytes=269_060_552,
    parameters=134_515_008,
    dtype="bfloat16",
    layers=30,
    kv_heads=3,
    head_dim=64,
    hidden_size=576,
    vocab_size=49152,
    max_model_len=8192,
)
LLAMA_8B = replace(
    SMOLLM2, weights_bytes=16 * GiB, layers=32, kv_heads=8, head_dim=128, vocab_size=128_256, max_model_len=131_072
)


def test_kv_cache_is_what_the_engine_logs() -> None:
    """256 MiB hold 91 blocks of 128 tokens on the CPU, one of which is the engine's own."""
    per_token = kv_cache.bytes_per_token(SMOLLM2, "bfloat16", 1)
    assert per_token == 23040
    assert kv_cache.tokens_in(256 * MiB, per_token, 128) == 90 * 128
    assert kv_cache.tokens_in(kv_cache.bytes_for(8192, per_token, 128), per_token, 128) == 8192


def test_kv_heads_are_replicated_when_ranks_outnumber_them() -> None:
    whole = kv_cache.bytes_per_token(LLAMA_8B, "bfloat16", 1)
    assert kv_cache.bytes_per_token(LLAMA_8B, "bfloat16", 8) == whole // 8  # type: ignore[operator]
    assert kv_cache.bytes_per_token(LLAMA_8B, "bfloat16", 16) == whole // 8  # type: ignore[operator]


def test_left_alone_it_leaves_room_for_others() -> None:
    predicted = estimate(LLAMA_8B, Wishes(), DeviceKind.CUDA, 80 * GiB)
    assert predicted.per_device.weights_bytes == 16 * GiB
    assert predicted.per_device.kv_cache_bytes == 20 * GiB
    assert predicted.kv_tokens >= predicted.max_model_len == 131_072


def test_a_request_longer_than_a_share_of_the_device_is_cut_and_said() -> None:
    predicted = estimate(LLAMA_8B, Wishes(), DeviceKind.CUDA, 40 * GiB)
    assert predicted.max_model_len < 131_072
    assert predicted.kv_tokens >= predicted.max_model_len
    assert any("limited" in note for note in predicted.notes)


def test_explicit_kv_cache_is_taken_verbatim() -> None:
    predicted = estimate(SMOLLM2, Wishes(kv_cache_bytes=64 * MiB), DeviceKind.HOST, 16 * GiB)
    assert predicted.per_device.kv_cache_bytes == 64 * MiB
    assert predicted.max_model_len == predicted.kv_tokens < 8192


def test_wishes_that_contradict_each_other_are_refused_with_the_arithmetic() -> None:
    with pytest.raises(BadRequest, match=r"8192 tokens x 23040 bytes need 18\d\.\d MiB"):
        estimate(SMOLLM2, Wishes(kv_cache_bytes=64 * MiB, max_model_len=8192), DeviceKind.HOST, 16 * GiB)


def test_what_was_measured_replaces_the_guess() -> None:
    guessed = estimate(SMOLLM2, Wishes(), DeviceKind.HOST, 16 * GiB)
    measured = estimate(SMOLLM2, Wishes(), DeviceKind.HOST, 16 * GiB, measured_overhead_bytes=77)
    assert any("first guess" in note for note in guessed.notes)
    assert measured.per_device.overhead_bytes == 77
    assert not measured.notes


def test_another_precision_scales_the_weights() -> None:
    predicted = estimate(SMOLLM2, Wishes(dtype="float32"), DeviceKind.HOST, 16 * GiB)
    assert predicted.per_device.weights_bytes == 2 * SMOLLM2.weights_bytes
    assert predicted.kv_bytes_per_token == 2 * 23040


def test_an_encoder_keeps_nothing() -> None:
    bert = replace(SMOLLM2, architecture="BertModel", max_model_len=512)
    predicted = estimate(bert, Wishes(), DeviceKind.HOST, 16 * GiB)
    assert predicted.per_device.kv_cache_bytes == 0


def test_what_is_not_known_is_said() -> None:
    unknown = ModelProfile("Strange", 10 * GiB, *(None,) * 8)
    predicted = estimate(unknown, Wishes(), DeviceKind.CUDA, 80 * GiB)
    assert predicted.per_device.total_bytes > 10 * GiB
    assert len(predicted.notes) >= 2


def test_ranks_share_the_weights() -> None:
    predicted = estimate(LLAMA_8B, Wishes(tensor_parallel=4), DeviceKind.CUDA, 80 * GiB)
    assert predicted.device_count == 4
    assert predicted.per_device.weights_bytes == 4 * GiB


def test_a_share_too_small_for_one_block_is_not_taken() -> None:
    predicted = estimate(LLAMA_8B, Wishes(), DeviceKind.HOST, 32 * MiB)
    assert predicted.kv_tokens >= predicted.max_model_len > 0
