"""Weights of each rank and stage, as engines printed them ("Loading model weights took")."""

from dataclasses import replace
from typing import Any

import pytest

from heliosd.core.units import GiB, MiB
from heliosd.estimation.account import account
from heliosd.estimation.launch import Launch
from heliosd.estimation.layout import Kind, Split, Tensor
from heliosd.estimation.model import read_model
from heliosd.estimation.stored_tensors import StoredWeights, TensorGroup
from heliosd.estimation.weights import (
    Shares,
    WeightShare,
    adapter_room,
    merged_name,
    padded_vocabulary,
    shard,
    shares,
    stages,
    weight_shares,
)
from tests.estimation.logged_models import DEEPSEEK_LITE, GEMMA_27B, GPTQ, LLAMA_8B, MIXTRAL, QWEN_06B, QWEN_7B

OLD = Launch(version=(0, 6, 4), v0=True)


def gib(config: dict[str, Any], launch: Launch = OLD) -> list[float]:
    return [each.weights.likely_bytes / GiB for each in account(read_model(config, launch.quantization), launch)]


def parts(config: dict[str, Any], launch: Launch = OLD) -> list[WeightShare]:
    model = read_model(config)
    assert model.layout is not None
    return list(weight_shares(model.layout, model.quantization, launch, model.dtype))


@pytest.mark.parametrize(
    ("config", "launch", "printed"),
    [
        (LLAMA_8B, OLD, 14.9888),
        ({**LLAMA_8B, "max_position_embeddings": 8192}, OLD, 14.9595),
        (LLAMA_8B, replace(OLD, tensor_parallel=2), 7.5122),
        (LLAMA_8B, replace(OLD, tensor_parallel=4), 3.7710),
        (LLAMA_8B, replace(OLD, dtype="float32"), 29.9776),
        (QWEN_7B, OLD, 14.2487),
        (QWEN_06B, Launch(version=(0, 19, 0)), 1.12),
        (MIXTRAL, Launch(version=(0, 19, 0), tensor_parallel=2), 43.51),
        (MIXTRAL, Launch(version=(0, 19, 0), tensor_parallel=4), 21.76),
        ({**LLAMA_8B, "quantization_config": GPTQ}, replace(OLD, dtype="float16"), 5.3494),
        ({**LLAMA_8B, "max_position_embeddings": 8192, "quantization_config": {"quant_method": "fp8"}}, OLD, 8.4596),
    ],
)
def test_to_the_thousandth_of_what_was_printed(config: dict[str, Any], launch: Launch, printed: float) -> None:
    assert gib(config, launch)[0] == pytest.approx(printed, rel=0.001)


@pytest.mark.parametrize(
    ("config", "launch", "printed"),
    [
        (GEMMA_27B, Launch(version=(0, 8, 2), tensor_parallel=4), 13.1665),
        (DEEPSEEK_LITE, Launch(version=(0, 19, 0)), 29.43),
        (DEEPSEEK_LITE, Launch(version=(0, 19, 0), tensor_parallel=2), 14.83),
        (LLAMA_8B, replace(OLD, quantization="bitsandbytes"), 5.3421),
    ],
)
def test_to_the_half_of_a_hundredth(config: dict[str, Any], launch: Launch, printed: float) -> None:
    assert gib(config, launch)[0] == pytest.approx(printed, rel=0.005)


def test_the_first_and_last_stage_hold_the_vocabulary() -> None:
    found = gib(LLAMA_8B, replace(OLD, pipeline_parallel=4))
    assert found[0] == pytest.approx(4.2599, rel=0.001)
    assert found[1] == found[2] < found[0]
    both = parts({**LLAMA_8B, "tie_word_embeddings": True}, replace(OLD, pipeline_parallel=2))
    assert both[0].embeddings_bytes == both[1].embeddings_bytes > 0, "a tied embedding is on both ends"


def test_qwens_rounding_is_57_mib() -> None:
    """28 layers x (129.5 MiB in 130, 259 in 260, ...) as the allocator's rules have it; the log agrees."""
    assert parts(QWEN_7B)[0].rounding_bytes == 57 * MiB
    assert parts(LLAMA_8B)[0].rounding_bytes == 0, "its matrices are whole segments"


def test_the_sum_is_of_all_parts() -> None:
    each = WeightShare(1, 2, 4, 8, 16, 32, 64, 128, 256)
    assert each.total_bytes == 511


def test_stages_leave_the_rest_to_those_before_the_last() -> None:
    assert [len(each) for each in stages(61, 4)] == [15, 15, 16, 15]
    assert [len(each) for each in stages(32, 1)] == [32]
    assert [len(each) for each in stages(62, 4)] == [15, 16, 16, 15]
    assert [index for each in stages(61, 4) for index in each] == list(range(61))


def test_how_a_tensor_is_divided() -> None:
    two, eight = Shares(2, 1, 2), Shares(8, 1, 8)
    assert shard(Tensor("a", 10, 6, Kind.LINEAR, Split.ROWS), two) == (5, 6, 1)
    assert shard(Tensor("a", 10, 6, Kind.LINEAR, Split.COLUMNS), two) == (10, 3, 1)
    assert shard(Tensor("a", 10, 6), two) == (10, 6, 1)
    keys = Tensor("k", 4 * 128, 6, Kind.LINEAR, Split.HEADS, heads=4)
    assert shard(keys, two) == (256, 6, 1)
    assert shard(keys, eight) == (128, 6, 1), "fewer heads than ranks: each holds one"
    words = Tensor("e", 32001, 6, Kind.EMBEDDING, Split.VOCABULARY)
    assert shard(words, two) == (32064 // 2, 6, 1)
    assert padded_vocabulary(32000) == 32000


def test_experts_are_dealt_out_or_cut_up() -> None:
    routed = Tensor("x", 1408, 2048, Kind.EXPERT, Split.ROWS, 64)
    cut = shares(Launch(tensor_parallel=4))
    dealt = shares(Launch(tensor_parallel=4, expert_parallel=True))
    assert shard(routed, cut) == (352, 2048, 64)
    assert shard(routed, dealt) == (1408, 2048, 16)
    wide = shares(Launch(tensor_parallel=4, data_parallel=2, expert_parallel=True))
    assert shard(routed, wide) == (1408, 2048, 8)


def test_engines_fuse_what_reads_the_same_input() -> None:
    layer = "model.layers.{}."
    assert merged_name(layer + "self_attn.k_proj.weight") == merged_name(layer + "self_attn.q_proj.weight")
    assert merged_name(layer + "mlp.gate_proj.weight") == merged_name(layer + "mlp.up_proj.weight")
    assert merged_name(layer + "mlp.down_proj.weight") != merged_name(layer + "mlp.up_proj.weight")


def test_latent_attention_keeps_its_absorbed_projections() -> None:
    assert parts(DEEPSEEK_LITE, Launch(version=(0, 19, 0)))[0].copies_bytes == 27 * 16 * 256 * 512 * 2
    assert parts(LLAMA_8B)[0].copies_bytes == 0


LLAMA_8B_SIDES = 32 * (2 * 8192 + 2 * (4096 + 1024) + 3 * (4096 + 14336))
"""Of all projections: inputs and outputs."""


@pytest.mark.parametrize("ranks", [1, 2])
def test_room_for_adapters_is_two_matrices_for_each_projection_and_end_of_the_vocabulary(ranks: int) -> None:
    launch = Launch(max_loras=4, max_lora_rank=16, tensor_parallel=ranks)
    model = read_model(LLAMA_8B)
    assert model.layout is not None
    [room] = adapter_room(model.layout, launch, "bfloat16")
    ends = 2 * (128256 + 4096)
    if ranks == 1:
        assert room == 4 * 16 * 2 * (LLAMA_8B_SIDES + ends)
    else:  # of each pair one matrix is divided, the other whole
        assert 4 * 16 * 2 * (LLAMA_8B_SIDES / 2 + ends) < room < 4 * 16 * 2 * (LLAMA_8B_SIDES + ends)
    bare, roomy = (parts(LLAMA_8B, each)[0] for each in (replace(launch, max_loras=0), launch))
    assert roomy.copies_bytes - bare.copies_bytes == room


def test_stages_share_the_room_for_adapters() -> None:
    model = read_model(LLAMA_8B)
    assert model.layout is not None
    whole = adapter_room(model.layout, Launch(max_loras=1), "bfloat16")
    assert sum(adapter_room(model.layout, Launch(max_loras=1, pipeline_parallel=4), "bfloat16")) == sum(whole)


def test_every_expert_has_room_for_adapters_since_0_11_1() -> None:
    model = read_model(MIXTRAL)
    assert model.layout is not None
    old, new = (
        adapter_room(model.layout, Launch(version=version, max_loras=1), "bfloat16")[0]
        for version in ((0, 11, 0), (0, 32, 0))
    )
    assert new - old == 16 * 2 * 32 * 8 * 3 * (4096 + 14336)


def test_a_model_whose_headers_were_read_has_the_room_too() -> None:
    model = read_model(LLAMA_8B)
    assert model.layout is not None
    stored = StoredWeights((TensorGroup("model.layers.{}.w.weight", "BF16", (64, 32), (0, 1), 2),), 1)
    bare, roomy = (
        account(model, Launch(version=(0, 32, 0), max_loras=each), GiB, stored)[0].weights for each in (0, 4)
    )
    assert roomy.likely_bytes - bare.likely_bytes == sum(adapter_room(model.layout, Launch(max_loras=4), "bfloat16"))
    assert "of room for adapters" in roomy.why
    unknown = replace(model, layout=None)
    guessed = account(unknown, Launch(version=(0, 32, 0), max_loras=4), GiB, stored)[0].weights
    assert guessed.likely_bytes - bare.likely_bytes == 4 * 16 * 2 * 2 * (64 + 32)


def test_scales_of_nf4_are_unpacked_from_0_9_2_on() -> None:
    """Three bytes more for each 64 of Llama's 6.98 billion projected weights."""
    config = {**LLAMA_8B, "quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}
    before, after = (gib(config, Launch(version=version))[0] for version in ((0, 9, 1), (0, 9, 2)))
    assert (after - before) * GiB == pytest.approx(6_979_321_856 / 64 * (3 - 4 / 256), rel=0.05)


def test_towers_are_quantized_online_too() -> None:
    """Qwen2.5-VL-7B with `--quantization fp8` printed 8.90 GiB: its encoder is halved as well."""
    plain, online = (read_model(GEMMA_27B, asked).quantization.towers for asked in (None, "fp8"))
    assert (plain, online) == (False, True)


def test_towers_stay_out_when_only_language_is_served() -> None:
    served = parts(GEMMA_27B, Launch(language_only=True))[0]
    assert served.towers_bytes == 0
    assert parts(GEMMA_27B)[0].towers_bytes > 0.7 * GiB
