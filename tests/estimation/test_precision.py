"""What a checkpoint can be made into, and that narrower never takes more."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliosd.errors import BadRequest
from heliosd.estimation.account import account
from heliosd.estimation.cache import cache_of
from heliosd.estimation.launch import Launch, Platform
from heliosd.estimation.model import Model, read_model
from heliosd.estimation.precision import (
    Means,
    Precision,
    Support,
    at_precision,
    fp8_cache,
    means,
    possible,
    precision_of,
    support,
)
from heliosd.estimation.resolve import resolve
from tests.estimation.planned_models import LLAMA_8B, MODELS

PLAIN = MODELS["Llama-3.1-8B"]
MATRICES = 32 * (4096 * (4096 + 2 * 1024) + 4096 * 4096 + 3 * 4096 * 14336)
"""Weights of all projections of Llama-3.1-8B; embeddings and head are 2 x 128,256 x 4,096 more."""


def weights(model: Model, launch: Launch | None = None) -> int:
    return sum(each.weights.likely_bytes for each in account(model, launch or Launch()))


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        ("Llama-3.1-8B", Precision.BF16),
        ("Qwen3-30B-A3B", Precision.BF16),
        ("Qwen3-30B-A3B-FP8", Precision.FP8),
        ("DeepSeek-V3", Precision.FP8),
        ("gpt-oss-120b", Precision.FP4),
    ],
)
def test_a_checkpoints_own_precision(name: str, precision: Precision) -> None:
    assert precision_of(MODELS[name]) is precision
    assert at_precision(MODELS[name], precision) is MODELS[name]


@pytest.mark.parametrize(
    ("config", "precision"),
    [
        ({"quant_method": "awq", "bits": 4, "group_size": 128}, Precision.INT4),
        ({"quant_method": "gptq", "bits": 8, "group_size": 128}, Precision.INT8),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, Precision.INT4),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, Precision.FP4),
    ],
)
def test_of_quantized_checkpoints(config: dict[str, object], precision: Precision) -> None:
    assert precision_of(read_model({**LLAMA_8B, "quantization_config": config})) is precision


@pytest.mark.parametrize(
    ("precision", "bits"),
    [
        (Precision.FP32, 32.0),
        (Precision.BF16, 16.0),
        (Precision.FP16, 16.0),
        (Precision.FP8, 8.0),
        (Precision.INT8, 8.0),
        (Precision.INT4, 4 + 16 / 128),
        (Precision.FP4, 4 + 8 / 16),
    ],
)
def test_only_projections_shrink(precision: Precision, bits: float) -> None:
    outside = 2 * 128256 * 4096 * (4 if precision is Precision.FP32 else 2)
    tables = 131072 * 128 * (4 if precision is Precision.FP32 else 2)
    expected = MATRICES * bits / 8 + outside + tables
    rounding = 0.002 if precision.bits >= 16 else 0.015
    assert weights(at_precision(PLAIN, precision)) == pytest.approx(expected, rel=rounding)


def test_narrower_never_takes_more() -> None:
    for model in MODELS.values():
        sizes = [(each.bits, weights(at_precision(model, each))) for each in possible(model)]
        for wider, narrower in pairwise(sizes):
            assert narrower[1] <= wider[1] or narrower[0] == wider[0], (model.fields.model_type, wider, narrower)


@given(st.sampled_from(sorted(MODELS)), st.sampled_from(list(Precision)))
def test_wider_than_stored_is_refused_and_says_what_is_possible(name: str, precision: Precision) -> None:
    model = MODELS[name]
    own = precision_of(model)
    if precision in possible(model):
        made = at_precision(model, precision)
        assert precision_of(made) is precision
        assert weights(made) <= weights(model) or precision is Precision.FP32
        return
    assert own.bits < 16
    assert precision.bits >= own.bits
    with pytest.raises(BadRequest, match="original checkpoint") as raised:
        at_precision(model, precision)
    assert own in raised.value.message


def test_who_makes_it() -> None:
    assert means(PLAIN, Precision.BF16) is Means.AS_IS
    assert means(PLAIN, Precision.FP32) is Means.CAST
    assert means(PLAIN, Precision.FP8) is Means.ONLINE
    assert means(PLAIN, Precision.INT4) is Means.AHEAD
    assert means(MODELS["DeepSeek-V3"], Precision.FP4) is Means.AHEAD


def test_exceptions_of_a_checkpoint_stay_exceptions() -> None:
    config = {**LLAMA_8B, "quantization_config": {"quant_method": "fp8", "ignored_layers": ["model.layers.0.mlp"]}}
    all_of_it = at_precision(read_model({**LLAMA_8B, "quantization_config": {"quant_method": "fp8"}}), Precision.INT4)
    but_one = at_precision(read_model(config), Precision.INT4)
    kept = 3 * 4096 * 14336
    assert weights(but_one) - weights(all_of_it) == pytest.approx(kept * (16 - 4 - 16 / 128) / 8, rel=0.12), (
        "and rounding"
    )


def test_a_cache_in_fp8_is_half_of_one_in_half_precision() -> None:
    def block(dtype: str) -> int:
        launch = Launch(kv_cache_dtype=dtype)
        return cache_of(PLAIN, launch, resolve(PLAIN, launch)).block_bytes

    assert 2 * block("fp8") == block("auto")


@given(st.sampled_from(list(Precision)), st.integers(7, 12), st.integers(0, 9), st.integers(7, 12), st.integers(0, 9))
def test_newer_cards_run_what_older_ones_do(
    precision: Precision, major: int, minor: int, other_major: int, other_minor: int
) -> None:
    older, newer = sorted([(major, minor), (other_major, other_minor)])
    order = [Support.NONE, Support.STORED, Support.NATIVE]
    assert order.index(support(precision, older)) <= order.index(support(precision, newer))
    assert fp8_cache(newer) or not fp8_cache(older)


def test_the_cpu_has_no_small_floats() -> None:
    assert support(Precision.FP8, None, Platform.CPU) is Support.NONE
    assert support(Precision.INT8, None, Platform.CPU) is Support.NATIVE
    assert not fp8_cache(None, Platform.CPU)
