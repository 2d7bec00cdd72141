"""How a checkpoint's tensors are stored, from all dialects of its configuration."""

from typing import Any

import pytest

from heliosd.core.units import GiB
from heliosd.estimation.layout import Kind, Split, Tensor
from heliosd.estimation.model import read_model
from heliosd.estimation.quantization import Quantization, read_quantization
from heliosd.estimation.quantization_schemes import (
    FP8_CHANNEL,
    FP8_TENSOR,
    INT8_CHANNEL,
    MXFP4,
    NF4,
    NVFP4,
    Scheme,
    fp8_tiles,
    integer_groups,
)
from tests.estimation.logged_models import AWQ, GPTQ, LLAMA_8B

PROJECTION = Tensor("model.layers.{}.mlp.up_proj.weight", 14336, 4096, Kind.LINEAR, Split.ROWS)
ROUTED = Tensor("model.layers.{}.mlp.experts.0.up_proj.weight", 768, 2048, Kind.EXPERT, Split.ROWS, 128)
HEAD = Tensor("lm_head.weight", 128256, 4096, Kind.HEAD, Split.VOCABULARY)
NORM = Tensor("model.layers.{}.input_layernorm.weight", 4096)
LAYERS = tuple(range(32))


def of(found: dict[str, Any]) -> Quantization:
    return read_quantization({"quantization_config": found})


def test_sizes_of_a_matrix() -> None:
    elements = 14336 * 4096
    groups = elements // 128
    assert integer_groups(4, 128, zeros=False).size_bytes(14336, 4096) == elements // 2 + 2 * groups
    assert integer_groups(4, 128, zeros=True).size_bytes(14336, 4096) == elements // 2 + 2 * groups + groups // 2
    assert fp8_tiles().size_bytes(14336, 4096) == elements + 4 * (14336 // 128) * (4096 // 128)
    assert FP8_CHANNEL.size_bytes(14336, 4096) == elements + 4 * 14336
    assert FP8_TENSOR.size_bytes(14336, 4096) == elements + 8
    assert MXFP4.size_bytes(2880, 2880) == 2880 * 2880 // 2 + 2880 * 90
    assert NVFP4.size_bytes(768, 2048) == 768 * 2048 // 2 + 768 * 128 + 8
    assert NF4.size_bytes(64, 64) == round(64 * 64 / 2 + 64 * (1 + 4 / 256))


def test_tiles_that_overhang_have_a_scale_of_their_own() -> None:
    assert fp8_tiles().size_bytes(129, 129) == 129 * 129 + 4 * 2 * 2


@pytest.mark.parametrize(
    ("found", "linear", "experts"),
    [
        (AWQ, integer_groups(4, 128, zeros=True), integer_groups(4, 128, zeros=True)),
        (GPTQ, integer_groups(4, 128, zeros=False), integer_groups(4, 128, zeros=False)),
        ({**GPTQ, "sym": False}, integer_groups(4, 128, zeros=True), integer_groups(4, 128, zeros=True)),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, fp8_tiles(), fp8_tiles()),
        ({"quant_method": "fp8", "activation_scheme": "static"}, FP8_TENSOR, FP8_TENSOR),
        ({"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}, None, MXFP4),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, NF4, NF4),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, INT8_CHANNEL, INT8_CHANNEL),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, NVFP4, NVFP4),
        ({"quantization": {"quant_algo": "FP8"}}, FP8_TENSOR, FP8_TENSOR),
    ],
)  # fmt: skip
def test_dialects(found: dict[str, Any], linear: Scheme | None, experts: Scheme | None) -> None:
    read = of(found)
    assert (read.linear, read.experts, read.vague) == (linear, experts, False)


def test_compressed_tensors_by_group() -> None:
    weights = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32, "symmetric": True}
    found = {
        "quant_method": "compressed-tensors",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}},
        "ignore": ["lm_head"],
    }
    read = of(found)
    assert read.linear == integer_groups(4, 32, zeros=False)
    assert read.scheme_of(HEAD) == [(None, 1)]
    channels = {"num_bits": 8, "type": "float", "strategy": "channel"}
    found["config_groups"] = {"group_0": {"targets": ["Linear"], "weights": channels}}
    assert of(found).linear == FP8_CHANNEL


def test_what_a_quantizer_never_touches() -> None:
    read = of(AWQ)
    assert read.scheme_of(NORM, LAYERS) == [(None, 32)]
    assert read.scheme_of(HEAD) == [(None, 1)]
    assert read.scheme_of(PROJECTION, LAYERS) == [(read.linear, 32)]
    assert read.scheme_of(PROJECTION, LAYERS, tower=True) == [(None, 32)], "towers stay"


@pytest.mark.parametrize(
    "pattern",
    [
        "model.layers.{}.mlp.up_proj", "layers.{}.mlp.up_proj", "model.language_model.layers.{}.mlp", "mlp",
        "model.layers.{}.mlp*", "*.mlp.*", "re:.*mlp.*", "re:.*mlp\\.(gate|up)_proj$",
    ],
)  # fmt: skip
def test_every_way_to_name_a_module(pattern: str) -> None:
    if "{}" in pattern:
        ignored = [pattern.replace("{}", str(layer)) for layer in (3, 17)]
        assert of({**GPTQ, "ignore": ignored}).scheme_of(PROJECTION, LAYERS) == [(None, 2), (of(GPTQ).linear, 30)]
    else:
        assert of({**GPTQ, "ignore": [pattern]}).scheme_of(PROJECTION, LAYERS) == [(None, 32)]


@pytest.mark.parametrize("pattern", ["up", "layers.{}.mlp.up", "re:mlp", "mlp*", "re:[", "re:(a+)+$", ""])
def test_other_modules_and_nonsense_name_nothing(pattern: str) -> None:
    ignored = [pattern.replace("{}", "3")]
    assert of({**GPTQ, "ignore": ignored}).scheme_of(PROJECTION, LAYERS) == [(of(GPTQ).linear, 32)]


def test_the_first_rule_decides() -> None:
    layers = {
        "model.layers.0.mlp.experts.0.up_proj": {"quant_algo": "NVFP4"},
        "model.layers.0.mlp.experts.1.up_proj": {"quant_algo": "NVFP4"},
        "model.layers.1.mlp.experts.0.up_proj": {"quant_algo": "FP8"},
        "model.layers.0.mlp.up_proj": {"quant_algo": "FP8"},
    }
    found = {"quant_method": "modelopt", "quantized_layers": layers, "exclude_modules": ["model.layers.2.mlp*"]}
    read = of(found)
    assert sorted(read.scheme_of(ROUTED, (0, 1, 2)), key=str) == sorted(
        [(None, 1), (NVFP4, 1), (FP8_TENSOR, 1)], key=str
    )
    assert read.scheme_of(PROJECTION, (0, 1)) == [(FP8_TENSOR, 1), (None, 1)], "what is not listed is not quantized"


def test_tens_of_thousands_of_experts_fold_into_a_few_rules() -> None:
    names = [f"model.layers.{layer}.mlp.experts.{at}.up_proj" for layer in range(60) for at in range(200)]
    listed = {name: {"quant_algo": "NVFP4"} for name in names}
    read = of({"quant_method": "modelopt", "quantized_layers": listed})
    assert len(read.rules) == 1
    assert read.scheme_of(ROUTED, tuple(range(61))) == [(NVFP4, 60), (None, 1)]


def test_what_was_asked_of_a_plain_checkpoint() -> None:
    assert read_quantization({}, "fp8").linear == FP8_TENSOR
    assert read_quantization({}, "bitsandbytes").linear == NF4
    assert read_quantization({}, None).linear is None
    assert read_quantization({"quantization_config": AWQ}, "fp8").linear == of(AWQ).linear, "the checkpoint's own wins"


def test_unknown_methods_are_read_by_their_words_and_said_to_be_vague() -> None:
    read = of({"quant_method": "novel", "bits": 3})
    assert read.vague
    assert read.linear is not None
    assert read.linear.bits == 3


@pytest.mark.parametrize("junk", [[], "x", 7, {"quant_method": 5}, {"ignore": {"a": 1}}, {"config_groups": [1]}])
def test_junk_raises_nothing(junk: Any) -> None:
    read_quantization({"quantization_config": junk})


def test_llama_in_four_bits_as_printed() -> None:
    """5.3494 GiB for symmetric GPTQ; AWQ's zero points are half a byte for 128 weights more: 5.3748."""
    plain = read_model({**LLAMA_8B, "quantization_config": GPTQ}).quantization.linear
    zeros = read_model({**LLAMA_8B, "quantization_config": AWQ}).quantization.linear
    assert plain is not None
    assert zeros is not None
    shapes = ((4096, 4096), (1024, 4096), (1024, 4096), (4096, 4096), (14336, 4096), (14336, 4096), (4096, 14336))
    more = 32 * sum(zeros.size_bytes(*shape) - plain.size_bytes(*shape) for shape in shapes)
    assert more / GiB == pytest.approx(5.3748 - 5.3494, abs=0.0001)
