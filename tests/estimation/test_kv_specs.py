from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heliosd.errors import BadRequest
from heliosd.estimation.fields import Fields
from heliosd.estimation.kv_kinds import Keeps
from heliosd.estimation.kv_pages import kv_pages
from heliosd.estimation.kv_specs import CacheLaunch, LayerSpec, kv_specs
from tests.effort import examples

LLAMA = {
    "model_type": "llama",
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
}
DEEPSEEK = {
    "model_type": "deepseek_v3",
    "hidden_size": 7168,
    "num_hidden_layers": 61,
    "num_attention_heads": 128,
    "kv_lora_rank": 512,
    "qk_rope_head_dim": 64,
}


def specs(config: dict[str, Any], **launch: Any) -> tuple[LayerSpec, ...]:
    return kv_specs(Fields(config), CacheLaunch(**launch))


def counts(config: dict[str, Any], **launch: Any) -> dict[Keeps, int]:
    found: dict[Keeps, int] = {}
    for spec in specs(config, **launch):
        found[spec.keeps] = found.get(spec.keeps, 0) + len(spec.layers)
    return found


def test_a_dense_model_keeps_keys_and_values_of_every_layer() -> None:
    (spec,) = specs(LLAMA)
    assert (spec.keeps, len(spec.layers), spec.heads, spec.head_dim) == (Keeps.FULL, 32, 8, 128)
    assert spec.token_bytes == 2 * 8 * 128 * 2


@pytest.mark.parametrize(("ranks", "heads"), [(1, 8), (2, 4), (8, 1), (16, 1)])
def test_ranks_share_heads_and_repeat_the_last_one(ranks: int, heads: int) -> None:
    (spec,) = specs(LLAMA, tensor_parallel=ranks)
    assert spec.heads == heads


@pytest.mark.parametrize(
    ("dtype", "size"),
    [
        ("auto", 512),
        ("float32", 1024),
        ("fp8", 256),
        ("fp8_e4m3", 256),
        ("int8_per_token_head", 264),
        ("int4_per_token_head", 136),
        ("nvfp4", 144),
    ],
)
def test_each_kv_dtype_has_its_bytes_for_a_head_and_token(dtype: str, size: int) -> None:
    (spec,) = specs(LLAMA, kv_cache_dtype=dtype)
    assert spec.entry_bytes == size


def test_a_heads_size_is_divided_out_where_the_configuration_is_silent() -> None:
    (spec,) = specs({**LLAMA, "hidden_size": 2048})
    assert spec.head_dim == 64


def test_as_many_kv_heads_as_heads_where_the_configuration_is_silent() -> None:
    config = {name: value for name, value in LLAMA.items() if name != "num_key_value_heads"}
    (spec,) = specs({**config, "num_attention_heads": 64})
    assert spec.heads == 64


def test_latent_attention_is_one_vector_on_every_rank() -> None:
    (spec,) = specs(DEEPSEEK, tensor_parallel=8)
    assert (spec.token_bytes, spec.latent) == (576 * 2, True)


def test_sparse_attention_keeps_packed_rows_and_an_indexer_in_its_own_layers() -> None:
    sparse = {
        **DEEPSEEK,
        "model_type": "glm_moe_dsa",
        "num_hidden_layers": 78,
        "index_topk": 2048,
        "index_head_dim": 128,
    }
    rows, indexer = specs({**sparse, "index_topk_freq": 4, "index_skip_topk_offset": 3}, kv_cache_dtype="fp8")
    assert (rows.token_bytes, len(rows.layers)) == (656, 78)
    assert (indexer.token_bytes, len(indexer.layers)) == (132, 21)


def test_packed_types_of_latent_attention() -> None:
    assert specs(DEEPSEEK, kv_cache_dtype="fp8_ds_mla")[0].token_bytes == 656
    assert specs(DEEPSEEK, kv_cache_dtype="nvfp4_ds_mla")[0].token_bytes == 352


@pytest.mark.parametrize(
    ("changes", "full", "sliding"),
    [
        ({"model_type": "gemma3_text"}, 5, 27),
        ({"model_type": "gemma2"}, 16, 16),
        ({"model_type": "gpt_oss"}, 16, 16),
        ({"model_type": "cohere2"}, 8, 24),
        ({"model_type": "exaone4", "sliding_window": 4096, "sliding_window_pattern": "LLLG"}, 8, 24),
        ({"sliding_window": 512, "layer_types": "8 full + 24 sliding (3:1)"}, 8, 24),
        ({"sliding_window": 512, "layer_types": ["sliding_attention", "full_attention"] * 16}, 16, 16),
        ({"model_type": "mistral", "sliding_window": 4096}, 0, 32),
        ({"model_type": "mistral", "sliding_window": None}, 32, 0),
        ({"model_type": "qwen2", "sliding_window": 4096, "use_sliding_window": False}, 32, 0),
    ],
)
def test_layers_with_a_window_are_found_however_they_are_told(changes: dict[str, Any], full: int, sliding: int) -> None:
    found = counts({**LLAMA, "head_dim": 128, **changes})
    assert (found.get(Keeps.FULL, 0), found.get(Keeps.SLIDING, 0)) == (full, sliding)


def test_a_sentence_that_does_not_add_up_is_passed_over() -> None:
    assert counts({**LLAMA, "layer_types": "somehow 3 full and 5 sliding"}) == {Keeps.FULL: 32}


def test_chunked_layers_are_told_by_the_layers_with_positions() -> None:
    marks = [1, 1, 1, 0] * 8
    config = {**LLAMA, "model_type": "llama4_text", "attention_chunk_size": 8192, "no_rope_layers": marks}
    assert counts(config) == {Keeps.CHUNKED: 24, Keeps.FULL: 8}


def test_full_layers_of_gemma4_have_their_own_heads() -> None:
    config = {
        "model_type": "gemma4_text", "hidden_size": 2816, "num_hidden_layers": 30, "num_attention_heads": 16,
        "num_key_value_heads": 8, "head_dim": 256, "num_global_key_value_heads": 2, "global_head_dim": 512,
        "attention_k_eq_v": True, "sliding_window": 1024,
    }  # fmt: skip
    sliding, full = specs(config)
    assert (sliding.heads, sliding.head_dim, len(sliding.layers)) == (8, 256, 25)
    assert (full.heads, full.head_dim, len(full.layers)) == (2, 512, 5)


def test_single_layers_may_differ() -> None:
    config = {**LLAMA, "per_layer_config": {"03": {"head_dim": 256, "num_key_value_heads": 2}}}
    usual, odd = specs(config)
    assert (len(usual.layers), odd.layers, odd.heads, odd.head_dim) == (31, (3,), 2, 256)


def test_layers_that_share_another_ones_cache_keep_nothing() -> None:
    assert counts({**LLAMA, "num_kv_shared_layers": 10}) == {Keeps.FULL: 22}


def test_heads_listed_by_layer_and_layers_without_attention() -> None:
    found = specs({**LLAMA, "num_key_value_heads": None, "num_kv_heads": [2] * 16 + [0] * 4 + [4] * 12})
    assert [(spec.heads, len(spec.layers)) for spec in found] == [(2, 16), (4, 12)]


def test_recurrent_layers_keep_a_state_that_ranks_divide() -> None:
    config = {
        "model_type": "qwen3_next", "hidden_size": 2048, "num_hidden_layers": 48, "num_attention_heads": 16,
        "num_key_value_heads": 2, "head_dim": 256, "full_attention_interval": 4, "linear_num_key_heads": 16,
        "linear_num_value_heads": 32, "linear_key_head_dim": 128, "linear_value_head_dim": 128,
        "linear_conv_kernel_dim": 4,
    }  # fmt: skip
    state, full = specs(config)
    assert (len(state.layers), len(full.layers)) == (36, 12)
    assert state.state_bytes == 8192 * 3 * 2 + 32 * 128 * 128 * 2
    assert specs(config, tensor_parallel=2)[0].state_bytes * 2 == state.state_bytes
    wider = specs(config, mamba_ssm_cache_dtype="float32")[0]
    assert wider.state_bytes == 8192 * 3 * 2 + 32 * 128 * 128 * 4


def test_layers_side_by_side_keep_both() -> None:
    config = {
        **LLAMA, "model_type": "falcon_h1", "mamba_d_ssm": 4096, "mamba_n_heads": 64, "mamba_d_head": 64,
        "mamba_d_state": 128, "mamba_n_groups": 1, "mamba_d_conv": 4,
    }  # fmt: skip
    assert counts(config) == {Keeps.STATE: 32, Keeps.FULL: 32}


def test_encoders_keep_nothing() -> None:
    assert specs({"model_type": "bert", "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}) == ()


def test_the_language_part_of_a_multimodal_model_counts() -> None:
    (spec,) = specs({"model_type": "llava", "text_config": LLAMA, "vision_config": {"num_hidden_layers": 24}})
    assert len(spec.layers) == 32


def test_a_checkpoint_that_declares_an_fp8_cache_gets_one() -> None:
    scheme = {"quant_method": "compressed-tensors", "kv_cache_scheme": {"num_bits": 8, "type": "float"}}
    assert specs({**LLAMA, "quantization_config": scheme})[0].entry_bytes == 256
    assert specs({**LLAMA, "quantization_config": scheme}, kv_cache_dtype="bfloat16")[0].entry_bytes == 512


def test_drafters_layers_follow_the_models() -> None:
    (spec,) = specs(LLAMA, draft_layers=2)
    assert spec.layers[-2:] == (32, 33)


def test_what_is_missing_is_named() -> None:
    with pytest.raises(BadRequest, match="num_hidden_layers"):
        specs({"model_type": "unknown", "hidden_size": 64})


def test_compressed_layers_keep_rows_a_window_and_states() -> None:
    found = specs({"model_type": "deepseek_v4", "num_hidden_layers": 43})
    by_role = {(spec.role, spec.tokens_per_entry): len(spec.layers) for spec in found}
    assert by_role["window", 1] == 43
    assert by_role["rows", 4] == 21
    assert by_role["rows", 128] == 20
    assert by_role["indexer", 4] == 21


def test_a_decoder_behind_an_encoder_keeps_its_own_tokens_and_the_encoders() -> None:
    own, crossed = specs({
        "model_type": "whisper", "is_encoder_decoder": True, "d_model": 1280, "decoder_layers": 4, "encoder_layers": 32,
        "decoder_attention_heads": 20, "encoder_attention_heads": 20, "max_source_positions": 1500,
    })  # fmt: skip
    assert (len(own.layers), own.token_bytes) == (4, 2 * 1280 * 2)
    assert (len(crossed.layers), crossed.role, crossed.window) == (4, "cross", 1500)


def test_version_0_kept_latent_attention_in_its_own_ways() -> None:
    assert specs({**DEEPSEEK, "head_dim": 192}, version=(0, 6, 6), legacy=True)[0].token_bytes == 128 * 512 * 2
    assert specs(DEEPSEEK, version=(0, 7, 3), legacy=True)[0].token_bytes == 1280
    assert specs(DEEPSEEK, version=(0, 8, 1), legacy=True)[0].token_bytes == 1152


NAMES = [
    "num_hidden_layers", "hidden_size", "num_attention_heads", "num_key_value_heads", "head_dim", "sliding_window",
    "layer_types", "kv_lora_rank", "qk_rope_head_dim", "model_type", "num_kv_shared_layers", "attention_chunk_size",
    "no_rope_layers", "hybrid_override_pattern", "attn_layer_period", "full_attention_interval", "layers_block_type",
    "linear_attn_config", "linear_num_value_heads", "conv_L_cache", "mamba_d_state", "index_topk", "block_configs",
    "per_layer_config", "quantization_config", "text_config", "layer_counts", "architectures", "attn_config",
    "hybrid_layer_pattern", "num_attention_groups", "v_head_dim", "is_encoder_decoder", "max_window_layers",
    "sliding_window_pattern", "attn_type_list", "compress_ratios", "index_topk_pattern", "global_head_dim",
]  # fmt: skip
TYPES = [
    "llama", "gemma3_text", "gemma4_text", "qwen3_next", "jamba", "mamba", "mamba2", "deepseek_v4", "llama4_text",
    "whisper", "kimi_linear", "falcon", "lfm2", "nemotron_h", "gpt_oss",
]  # fmt: skip
LEAVES = (
    st.none() | st.booleans() | st.integers(-2, 300) | st.floats(allow_nan=False) | st.sampled_from([*TYPES, "M*-E"])
)
KEYS = st.sampled_from([*NAMES, "kda_layers", "3"])
JUNK = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=6
)


@settings(max_examples=examples(400))
@given(junk=st.dictionaries(st.sampled_from(NAMES), JUNK, max_size=6), model_type=st.sampled_from(TYPES))
def test_mangled_configurations_are_answered_or_refused(junk: dict[str, Any], model_type: str) -> None:
    launch = CacheLaunch(max_model_len=4096, tensor_parallel=2)
    try:
        found = kv_specs(Fields({**LLAMA, "model_type": model_type, **junk}), launch)
    except BadRequest:
        return
    made = kv_pages(found, launch)
    assert made.tokens_in(2**30) >= 0
    assert made.bytes_for(100) >= 0
