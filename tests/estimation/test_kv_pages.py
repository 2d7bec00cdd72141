from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliosd.estimation.fields import Fields
from heliosd.estimation.kv_groups import Group
from heliosd.estimation.kv_kinds import Keeps
from heliosd.estimation.kv_pages import KvPages, block_tokens, kv_pages, stage_bounds
from heliosd.estimation.kv_specs import CacheLaunch, kv_specs

GIB = 2**30
QWEN = {
    "model_type": "qwen2", "hidden_size": 3584, "num_hidden_layers": 28, "num_attention_heads": 28,
    "num_key_value_heads": 4, "use_sliding_window": False,
}  # fmt: skip
GEMMA3 = {
    "model_type": "gemma3_text", "hidden_size": 5376, "num_hidden_layers": 62, "num_attention_heads": 32,
    "num_key_value_heads": 16, "head_dim": 128, "sliding_window": 1024,
}  # fmt: skip
GPT_OSS = {
    "model_type": "gpt_oss", "num_hidden_layers": 36, "num_attention_heads": 64, "num_key_value_heads": 8,
    "head_dim": 64, "sliding_window": 128,
}  # fmt: skip
QWEN_NEXT = {
    "model_type": "qwen3_next", "hidden_size": 2048, "num_hidden_layers": 48, "num_attention_heads": 16,
    "num_key_value_heads": 2, "head_dim": 256, "full_attention_interval": 4, "linear_num_key_heads": 16,
    "linear_num_value_heads": 32, "linear_key_head_dim": 128, "linear_value_head_dim": 128, "linear_conv_kernel_dim": 4,
}  # fmt: skip
QWEN_35 = {
    **QWEN_NEXT, "model_type": "qwen3_5_text", "hidden_size": 5120, "num_hidden_layers": 64, "num_attention_heads": 24,
    "num_key_value_heads": 4, "linear_num_value_heads": 48, "mamba_ssm_dtype": "float32",
}  # fmt: skip
GEMMA4 = {
    "model_type": "gemma4_text", "hidden_size": 2816, "num_hidden_layers": 30, "num_attention_heads": 16,
    "num_key_value_heads": 8, "head_dim": 256, "num_global_key_value_heads": 2, "global_head_dim": 512,
    "attention_k_eq_v": True, "sliding_window": 1024,
}  # fmt: skip
MODELS = {"dense": QWEN, "windows": GEMMA3, "alternating": GPT_OSS, "states": QWEN_NEXT, "two pages": GEMMA4}


def pages(config: dict[str, Any], **launch: Any) -> KvPages:
    chosen = CacheLaunch(**launch)
    return kv_pages(kv_specs(Fields(config), chosen), chosen)


def layers_of(groups: tuple[Group, ...]) -> list[int]:
    return [group.layers for group in groups]


def test_tokens_as_printed_on_an_h100() -> None:
    # Qwen2.5-7B under 0.19: 58.53 GiB printed as 1,096,000 tokens; the bytes are rounded to a hundredth.
    printed = pages(QWEN, version=(0, 19)).tokens_in(int(58.53 * GIB))
    assert printed == pytest.approx(1_096_000, rel=2e-4)


def test_sliding_and_full_layers_take_turns_in_groups_of_the_scarcer_kind() -> None:
    # Gemma-3-27B: 10 full and 52 sliding layers make 7 groups, the sliding ones with 8 layers of padding.
    made = pages(GEMMA3, version=(0, 19))
    assert layers_of(made.groups)[-1] == 10
    assert len(made.groups) == 7
    assert made.tokens_in(int(19.53 * GIB)) == pytest.approx(36_560, rel=1e-3)


def test_what_the_new_engines_print_is_the_concurrency_at_full_length() -> None:
    made = pages(GEMMA4, version=(0, 25, 1), max_model_len=262_144, max_num_batched_tokens=2496)
    room = int(83.89 * GIB)
    assert made.tokens_in(room) == pytest.approx(3_875_400, rel=1e-3)
    assert made.max_concurrency(262_144, room) == pytest.approx(14.78, abs=0.01)


@pytest.mark.parametrize(
    ("config", "launch", "tokens"),
    [
        (QWEN_NEXT, {"tensor_parallel": 2}, 544),
        (QWEN_NEXT, {"tensor_parallel": 2, "kv_cache_dtype": "fp8"}, 1072),
        (QWEN_35, {}, 784),
        (QWEN_35, {"kv_cache_dtype": "fp8"}, 1568),
    ],
)
def test_blocks_of_hybrids_are_as_large_as_their_states(
    config: dict[str, Any], launch: dict[str, Any], tokens: int
) -> None:
    assert pages(config, **launch).block_tokens == tokens


def test_states_take_a_block_more_in_the_prefix_cache() -> None:
    aligned = pages(QWEN_35, max_model_len=4096).request_blocks(4096)
    without = pages(QWEN_35, max_model_len=4096, enable_prefix_caching=False).request_blocks(4096)
    assert (aligned, without) == (6 + 3 * 2, 6 + 3 * 1)


def test_without_the_hybrid_allocator_windows_save_nothing() -> None:
    made = pages(GEMMA3, hybrid=False, max_model_len=65_536)
    assert len(made.groups) == 1
    assert made.request_blocks(65_536) == 65_536 // 16


def test_version_0_counts_all_layers_alike() -> None:
    # Gemma-3-27B on 4 A100 under 0.8: 18.03 GiB printed as 9,526 blocks.
    made = pages(GEMMA3, version=(0, 8), legacy=True, tensor_parallel=4)
    assert made.blocks(int(18.03 * GIB)) == pytest.approx(9526, rel=1e-3)
    assert made.tokens_of(9526) == 9526 * 16


def test_stages_get_the_rest_before_the_last() -> None:
    assert stage_bounds(10, 4) == [(0, 2), (2, 5), (5, 8), (8, 10)]
    assert stage_bounds(8, 2) == [(0, 4), (4, 8)]


def test_the_scarcest_stage_decides() -> None:
    made = pages(QWEN, pipeline_parallel=3)
    assert len(made.stage_block_bytes) == 3
    assert made.blocks([GIB, GIB, GIB // 2]) == (GIB // 2) // made.stage_block_bytes[2]
    assert sum(made.stage_block_bytes) == pages(QWEN).block_bytes


def test_context_parallel_ranks_multiply_tokens() -> None:
    one, two = pages(QWEN, max_model_len=4096), pages(QWEN, max_model_len=4096, decode_context_parallel=2)
    assert two.tokens_in(GIB) == 2 * one.tokens_in(GIB)
    old = pages(QWEN, version=(0, 19), decode_context_parallel=2)
    assert old.tokens_in(GIB) == 2 * pages(QWEN, version=(0, 19)).tokens_in(GIB)


def test_models_that_keep_nothing_need_nothing() -> None:
    made = pages({"model_type": "bert", "num_hidden_layers": 12, "num_attention_heads": 12, "hidden_size": 768})
    assert (made.tokens_in(GIB), made.bytes_for(1000), made.block_bytes) == (0, 0, 0)
    assert made.max_concurrency(512, GIB) == float("inf")


def test_the_block_size_is_the_platforms_unless_given() -> None:
    specs = kv_specs(Fields(QWEN), CacheLaunch())
    assert block_tokens(specs, CacheLaunch()) == 16
    assert block_tokens(specs, CacheLaunch(platform="cpu")) == 128
    assert block_tokens(specs, CacheLaunch(block_size=64)) == 64


def test_pages_of_two_sizes_are_made_equal() -> None:
    made = pages(GEMMA4)
    assert len({group.first.page_bytes for group in made.groups}) == 1
    by_kind = {group.first.spec.keeps: group.first.block_tokens for group in made.groups}
    assert by_kind == {Keeps.SLIDING: 16, Keeps.FULL: 32}


@given(
    name=st.sampled_from(sorted(MODELS)),
    version=st.sampled_from([(0, 19), (0, 25), (0, 32)]),
    tokens=st.integers(1, 2_000_000),
    ranks=st.sampled_from([1, 2, 4]),
)
def test_bytes_for_tokens_are_just_enough(name: str, version: tuple[int, ...], tokens: int, ranks: int) -> None:
    made = pages(MODELS[name], version=version, tensor_parallel=ranks, max_model_len=8192)
    needed = made.bytes_for(tokens)
    assert made.tokens_in(needed) >= tokens
    assert made.tokens_in(needed - 1) < tokens


@given(
    name=st.sampled_from(sorted(MODELS)),
    room=st.integers(0, 64 * GIB),
    more=st.integers(0, GIB),
    length=st.integers(1, 200_000),
    longer=st.integers(0, 10_000),
)
def test_more_room_holds_more_and_longer_requests_need_more(
    name: str, room: int, more: int, length: int, longer: int
) -> None:
    made = pages(MODELS[name], max_model_len=8192)
    assert made.tokens_in(room + more) >= made.tokens_in(room)
    assert made.request_blocks(length + longer) >= made.request_blocks(length)
    assert made.max_concurrency(length, room) >= made.max_concurrency(length + longer, room)


@given(name=st.sampled_from(sorted(MODELS)), length=st.integers(1, 100_000), requests=st.integers(1, 50))
def test_the_room_for_requests_holds_them(name: str, length: int, requests: int) -> None:
    made = pages(MODELS[name], max_model_len=8192)
    room = made.bytes_for_requests(requests, length)
    assert made.max_concurrency(length, room - made.block_bytes) >= requests


@given(name=st.sampled_from(sorted(MODELS)), ranks=st.sampled_from([2, 4, 8]), room=st.integers(GIB, 32 * GIB))
def test_more_ranks_never_hold_less(name: str, ranks: int, room: int) -> None:
    one, many = (pages(MODELS[name], tensor_parallel=count, max_model_len=8192) for count in (1, ranks))
    assert many.tokens_in(room) >= one.tokens_in(room) * 0.97  # padding of blocks may take a little
