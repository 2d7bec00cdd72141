"""Hybrids: published models' counts, how ranks share what is not attention, patterns, drafts, contradictions."""

from typing import Any

import pytest

from heliosd.errors import BadRequest
from heliosd.estimation.families.hybrids import FAMILIES
from heliosd.estimation.families.registry import layout_of
from heliosd.estimation.layout import Kind, Layout, Split, Tensor

NEMOTRON_9B = {
    "model_type": "nemotron_h", "architectures": ["NemotronHForCausalLM"], "hidden_size": 4480,
    "num_hidden_layers": 56, "hybrid_override_pattern": "M-M-M-MM-M-M-M*-M-M-M*-M-M-M-M*-M-M-M-M*-M-MM-M-M-M-M-M-",
    "num_attention_heads": 40, "num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 15680,
    "mamba_num_heads": 128, "mamba_head_dim": 80, "ssm_state_size": 128, "n_groups": 8, "vocab_size": 131072,
}  # fmt: skip
LFM2_1B = {
    "model_type": "lfm2", "hidden_size": 2048, "num_hidden_layers": 16, "block_ff_dim": 12288,
    "num_attention_heads": 32, "num_key_value_heads": 8, "full_attn_idxs": [2, 5, 8, 10, 12, 14], "conv_L_cache": 3,
    "vocab_size": 65536, "block_auto_adjust_ff_dim": True, "block_ffn_dim_multiplier": 1.0, "block_multiple_of": 256,
    "tie_embedding": True,
}  # fmt: skip
GRANITE_TINY = {
    "model_type": "granitemoehybrid", "hidden_size": 1536, "num_hidden_layers": 40, "num_attention_heads": 12,
    "num_key_value_heads": 4, "intermediate_size": 512, "num_local_experts": 64, "shared_intermediate_size": 1024,
    "mamba_n_heads": 48, "mamba_d_head": 64, "mamba_d_state": 128, "mamba_n_groups": 1, "vocab_size": 100352,
    "tie_word_embeddings": True, "layer_types": ["attention" if i % 10 == 5 else "mamba" for i in range(40)],
}  # fmt: skip
MAMBA_130M = {"model_type": "mamba", "hidden_size": 768, "num_hidden_layers": 24, "vocab_size": 50280}
QWEN_NEXT = {"model_type": "qwen3_next", "architectures": ["Qwen3NextForCausalLM"]}
QWEN_27B = {
    "model_type": "qwen3_5_text", "hidden_size": 5120, "intermediate_size": 17408, "num_hidden_layers": 64,
    "num_attention_heads": 24, "num_key_value_heads": 4, "head_dim": 256, "linear_num_key_heads": 16,
    "linear_num_value_heads": 48, "vocab_size": 248320, "mtp_num_hidden_layers": 1,
}  # fmt: skip
KIMI = {
    "model_type": "kimi_linear", "num_hidden_layers": 27,
    "linear_attn_config": {"full_attn_layers": [4, 8, 12, 16, 20, 24, 27], "num_heads": 32, "head_dim": 128,
                           "short_conv_kernel_size": 4},
}  # fmt: skip
KIMI_CORRECTIONS = 26 * 256
"""The checkpoint's count includes the routers' corrections, which are no parameters."""


RING = {
    "model_type": "bailing_hybrid", "vocab_size": 1024, "hidden_size": 256, "num_hidden_layers": 6,
    "num_attention_heads": 8, "num_key_value_heads": 8, "head_dim": 32, "layer_group_size": 4,
    "first_k_dense_replace": 1, "num_experts": 4, "num_shared_experts": 1, "moe_intermediate_size": 128,
    "moe_shared_expert_intermediate_size": 128, "intermediate_size": 512, "q_lora_rank": 96, "kv_lora_rank": 64,
    "qk_nope_head_dim": 32, "qk_rope_head_dim": 16, "v_head_dim": 32, "use_qk_norm": True,
    "moe_router_enable_expert_bias": True, "short_conv_kernel_size": 4,
}  # fmt: skip


def laid_out(config: dict[str, Any]) -> Layout:
    layout = layout_of(config)
    assert layout is not None
    return layout


def tensors(layout: Layout, ending: str) -> list[Tensor]:
    return [tensor for block in layout.blocks for tensor in block.tensors if tensor.name.endswith(ending)]


@pytest.mark.parametrize(
    ("config", "published"),
    [
        (NEMOTRON_9B, 8_888_227_328),
        (LFM2_1B, 1_170_340_608),
        (GRANITE_TINY, 6_939_037_248),
        (MAMBA_130M, 129_135_360),
        (KIMI, 49_122_681_728 - KIMI_CORRECTIONS),
    ],
)
def test_a_published_model_has_the_parameters_its_checkpoint_has(config: dict[str, Any], published: int) -> None:
    assert laid_out(config).parameters == published


@pytest.mark.parametrize(
    ("architecture", "in_vllm", "attending"),
    [("BailingMoeV2_5ForCausalLM", 5_203_956, 1), ("BailingMoeV3ForCausalLM", 5_120_620, 3)],
)
def test_ring_has_the_parameters_that_vllm_gives_it(architecture: str, in_vllm: int, attending: int) -> None:
    """The unfinished last group attends linearly in generation 2.5 and in full in generation 3."""
    layout = laid_out({**RING, "architectures": [architecture]})
    assert layout.parameters == in_vllm
    latent = [block for block in layout.blocks for tensor in block.tensors if tensor.name.endswith("kv_b_proj.weight")]
    assert sum(len(block.layers) for block in latent) == attending


def test_what_predicts_further_tokens_is_in_the_checkpoint_and_not_among_the_parameters() -> None:
    layout = laid_out(QWEN_NEXT)
    drafts = sum(tensor.elements for tensor in layout.drafts)
    assert layout.parameters + drafts == 81_324_862_720
    assert drafts == 1_650_471_424


def test_no_drafts_where_the_configuration_says_so_or_no_words_follow() -> None:
    assert not laid_out({**QWEN_27B, "mtp_num_hidden_layers": 0}).drafts
    assert not laid_out({**QWEN_27B, "architectures": ["Qwen3_5TextForSequenceClassification"]}).drafts


def test_a_list_of_layers_and_an_interval_say_the_same() -> None:
    kinds = ["full_attention" if index % 4 == 3 else "linear_attention" for index in range(64)]
    listed = laid_out({**QWEN_27B, "layer_types": kinds})
    spaced = laid_out({**QWEN_27B, "full_attention_interval": 4})
    assert listed == spaced
    assert [len(block.layers) for block in listed.blocks] == [48, 16]


def test_letters_and_words_say_the_same() -> None:
    words = {"M": "linear_attention", "*": "full_attention", "-": "mlp", "E": "moe"}
    pattern = NEMOTRON_9B["hybrid_override_pattern"]
    assert isinstance(pattern, str)
    spelled = {key: value for key, value in NEMOTRON_9B.items() if key != "hybrid_override_pattern"}
    spelled["layers_block_type"] = [words[letter] for letter in pattern]
    assert laid_out(spelled) == laid_out(NEMOTRON_9B)


def test_a_state_space_is_divided_by_channels_and_its_shared_rows_by_groups() -> None:
    layout = laid_out(GRANITE_TINY)
    by_channels, shared = tensors(layout, "mamba.in_proj.weight")
    assert (by_channels.rows, by_channels.split) == (2 * 3072 + 48, Split.ROWS)
    assert (shared.rows, shared.split, shared.heads) == (2 * 128, Split.HEADS, 1)
    (out,) = tensors(layout, "mamba.out_proj.weight")
    assert (out.split, out.kind) == (Split.COLUMNS, Kind.LINEAR)
    assert {tensor.kind for tensor in tensors(layout, "conv1d.weight")} == {Kind.PLAIN}


def test_decays_are_kept_in_float32_and_divided_by_heads() -> None:
    for config in (GRANITE_TINY, MAMBA_130M, QWEN_27B, KIMI):
        decays = tensors(laid_out(config), "A_log")
        assert decays
        assert {(tensor.dtype, tensor.split) for tensor in decays} == {("float32", Split.ROWS)}


def test_a_step_projection_reads_divided_channels() -> None:
    (step,) = tensors(laid_out(MAMBA_130M), "mixer.x_proj.weight")
    assert (step.rows, step.columns, step.split) == (48 + 2 * 16, 1536, Split.COLUMNS)


def test_routed_experts_count_for_expert_parallelism() -> None:
    routed = [tensor for block in laid_out(QWEN_NEXT).blocks for tensor in block.tensors if tensor.kind is Kind.EXPERT]
    assert {tensor.copies for tensor in routed} == {512}


def test_a_gated_attention_has_queries_twice_as_tall() -> None:
    (queries,) = tensors(laid_out(QWEN_27B), "self_attn.q_proj.weight")
    assert queries.rows == 2 * 24 * 256


def test_a_tied_projection_is_not_counted_twice() -> None:
    free = laid_out({**LFM2_1B, "tie_embedding": False})
    assert free.parameters - laid_out(LFM2_1B).parameters == 65536 * 2048
    assert laid_out(LFM2_1B).tied
    assert not free.tied


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({**GRANITE_TINY, "mamba_n_heads": 47}, "mamba_n_heads"),
        ({**GRANITE_TINY, "mamba_d_head": 32}, "mamba_n_heads"),
        ({**GRANITE_TINY, "layer_types": ["mamba"] * 3}, "layer_types"),
        ({**GRANITE_TINY, "num_hidden_layers": 0}, "num_hidden_layers"),
        ({**NEMOTRON_9B, "hybrid_override_pattern": "M-X"}, "hybrid_override_pattern"),
        ({**NEMOTRON_9B, "hybrid_override_pattern": None}, "hybrid_override_pattern"),
        ({**QWEN_27B, "linear_num_key_heads": 7}, "linear_num_key_heads"),
        ({**QWEN_27B, "hidden_size": -5}, "hidden_size"),
        ({**LFM2_1B, "block_ffn_dim_multiplier": -1}, "block_ffn_dim_multiplier"),
        ({"model_type": "jamba", "attn_layer_offset": 9}, "attn_layer_offset"),
        ({"model_type": "recurrent_gemma", "num_attention_heads": 7}, "num_attention_heads"),
    ],
)
def test_a_contradiction_names_its_field(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(BadRequest, match=r"^cannot ") as caught:
        layout_of(changes)
    assert (caught.value.code, caught.value.param) == ("bad_config", field)


@pytest.mark.parametrize("model_type", sorted(FAMILIES.keys() - {"qwen4_exp_text", "bailing_hybrid"}))
def test_more_layers_are_never_less(model_type: str) -> None:
    """Every family answers for its class's defaults, and grows with its depth."""
    pattern = {"hybrid_override_pattern": "ME*-"} if model_type == "nemotron_h" else {}
    deeper = {"hybrid_override_pattern": "ME*-" * 2} if model_type == "nemotron_h" else {}
    few = laid_out({"model_type": model_type, "num_hidden_layers": 8, **pattern})
    many = laid_out({"model_type": model_type, "num_hidden_layers": 16, **deeper})
    assert 0 < few.parameters < many.parameters
    assert many.layers == 2 * few.layers
