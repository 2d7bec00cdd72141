"""Decoders' layouts against `transformers` itself: at the classes' defaults, and where sizes, patterns, tying and
switches differ from them; from whole configurations and from the short ones that are published."""

from typing import Any

import pytest

from heliosd.errors import HeliosError
from heliosd.estimation.families import decoders
from heliosd.estimation.families.registry import layout_of
from tests.estimation.architectures import GROUPS, Architecture, architectures, instantiate, parameters

pytestmark = pytest.mark.slow

INEXACT = {
    "longcat_flash": "transformers has gates even for experts that compute nothing; checkpoints have none, nor have we"
}
NO_DEFAULT = {"cohere_compass_text", "dbrx", "dots1", "hunyuan_v1_dense", "hunyuan_v1_moe", "ministral", "nemotron"}
"""Their classes' defaults do not instantiate; `VARIED` has sizes with which they do."""
FEW = {"vocab_size": 1000, "num_hidden_layers": 5, "pad_token_id": 0}
SMALL = {**FEW, "hidden_size": 256, "intermediate_size": 384, "num_attention_heads": 8, "num_key_value_heads": 2}
UNTIED = {"tie_word_embeddings": False}
TIED = {"tie_word_embeddings": True}
ALL_HEADS = {"num_key_value_heads": 8}
LATENT = {
    **FEW, "hidden_size": 256, "intermediate_size": 384, "num_attention_heads": 8, "num_key_value_heads": 8,
    "q_lora_rank": 48, "kv_lora_rank": 40, "qk_nope_head_dim": 24, "qk_rope_head_dim": 8, "v_head_dim": 20,
}  # fmt: skip
EXPERTS = {"moe_intermediate_size": 96}
INDEXED = {"index_n_heads": 4, "index_head_dim": 16}
TYPES = ["sliding_attention", "full_attention", "sliding_attention", "sliding_attention", "full_attention"]
ROPE = {"rope_type": "default", "rope_theta": 10_000.0}
ROPES = {"rope_parameters": {"full_attention": ROPE, "sliding_attention": ROPE}}

VARIED: list[tuple[str, dict[str, Any]]] = [
    ("llama", {**SMALL, **TIED}),
    ("llama", {**SMALL, "head_dim": 48, "attention_bias": True, "mlp_bias": True}),
    ("mistral", {**SMALL, "head_dim": 40}),
    ("ministral", {**SMALL, "head_dim": 40}),
    ("qwen2", {**SMALL, **TIED}),
    ("qwen3", {**SMALL, "head_dim": 64, "attention_bias": True}),
    ("qwen2_moe", {**SMALL, **EXPERTS, "num_experts": 6, "shared_expert_intermediate_size": 100, "qkv_bias": False}),
    ("qwen3_moe",
     {**SMALL, **EXPERTS, "num_experts": 6, "decoder_sparse_step": 2, "mlp_only_layers": [3], "head_dim": 64}),
    ("mixtral", {**SMALL, "num_local_experts": 3, **TIED}),
    ("gemma2", {**SMALL, "head_dim": 48, **UNTIED}),
    ("gemma3_text", {**SMALL, "head_dim": 48, "attention_bias": True}),
    ("gemma3n_text",
     {**SMALL, "intermediate_size": [100, 100, 200, 200, 300], "num_kv_shared_layers": 2, "altup_num_inputs": 3,
      "laurel_rank": 8, "hidden_size_per_layer_input": 16, "vocab_size_per_layer_input": 900, "layer_types": TYPES}),
    ("gemma4_text",
     {**SMALL, "head_dim": 32, "global_head_dim": 64, "num_global_key_value_heads": 1, "attention_k_eq_v": True,
      "layer_types": TYPES, "hidden_size_per_layer_input": 0, "enable_moe_block": True, "num_experts": 4,
      "top_k_experts": 2, **EXPERTS}),
    ("gemma4_text",
     {**SMALL, "head_dim": 32, "layer_types": TYPES, "num_kv_shared_layers": 3, "use_double_wide_mlp": True,
      "hidden_size_per_layer_input": 16, "vocab_size_per_layer_input": 900}),
    ("phi3", SMALL),
    ("phi", {**SMALL, "qk_layernorm": True}),
    ("phimoe", {**SMALL, "num_local_experts": 3, "lm_head_bias": True}),
    ("olmo2", {**SMALL, **TIED}),
    ("olmo3", {**SMALL, "attention_bias": True}),
    ("cohere", {**SMALL, "use_qk_norm": True, **UNTIED}),
    ("cohere2_moe",
     {**SMALL, "head_dim": 32, "num_experts": 3, "num_shared_experts": 2, "first_k_dense_replace": 2,
      "prefix_dense_intermediate_size": 500}),
    ("glm4", {**SMALL, "head_dim": 40, "attention_bias": False}),
    ("glm4_moe",
     {**SMALL, **EXPERTS, "n_routed_experts": 4, "n_shared_experts": 2, "first_k_dense_replace": 2, "use_qk_norm": True,
      "head_dim": 64}),
    ("dots1", {**SMALL, **EXPERTS, "n_routed_experts": 4, "n_shared_experts": 2, "first_k_dense_replace": 1}),
    ("gpt_oss", {**SMALL, "head_dim": 32, "num_local_experts": 4}),
    ("granitemoeshared", {**SMALL, "num_local_experts": 4, "shared_intermediate_size": 80}),
    ("ernie4_5_moe",
     {**SMALL, **EXPERTS, "moe_num_experts": 4, "moe_num_shared_experts": 1, "moe_layer_start_index": 1,
      "moe_layer_end_index": 3, "moe_layer_interval": 2, "use_bias": True}),
    ("exaone4", {**SMALL, **TIED}),
    ("llama4_text",
     {**SMALL, "head_dim": 32, "num_local_experts": 3, "interleave_moe_layer_step": 2, "intermediate_size_mlp": 500}),
    ("llama4_text", {**SMALL, "head_dim": 32, "num_local_experts": 3, "moe_layers": [0, 3]}),
    ("minimax_m2", {**SMALL, "head_dim": 48, "num_local_experts": 3}),
    ("minimax_m3_vl_text",
     {**SMALL, "head_dim": 32, "num_local_experts": 3, "dense_intermediate_size": 500, "shared_intermediate_size": 64,
      "mlp_layer_types": ["dense", "sparse", "sparse", "dense", "sparse"],
      "layer_types": ["full_attention", *["minimax_m3_sparse"] * 4]}),
    ("mimo_v2_flash",
     {**SMALL, **EXPERTS, "head_dim": 32, "v_head_dim": 24, "n_routed_experts": 4, "layer_types": TYPES}),
    ("laguna",
     {**SMALL, **EXPERTS, "head_dim": 32, "num_experts": 4, "shared_expert_intermediate_size": 50,
      "gating": "per-element", "num_attention_heads_per_layer": [8, 4, 8, 4, 6]}),
    ("deepseek_v2", {**LATENT, **EXPERTS, "n_routed_experts": 4, "first_k_dense_replace": 1, "q_lora_rank": None}),
    ("deepseek_v3", {**LATENT, **EXPERTS, "n_routed_experts": 8, "first_k_dense_replace": 2, "attention_bias": True}),
    ("deepseek_v32", {**LATENT, **EXPERTS, **INDEXED, "n_routed_experts": 8, "first_k_dense_replace": 2}),
    ("deepseek_v4",
     {**FEW, **EXPERTS, **INDEXED, "hidden_size": 256, "num_attention_heads": 8, "head_dim": 32, "q_lora_rank": 48,
      "o_groups": 4, "o_lora_rank": 24, "n_routed_experts": 4, "hc_mult": 2,
      "layer_types": ["sliding_attention", *["compressed_sparse_attention", "heavily_compressed_attention"] * 2]}),
    ("glm_moe_dsa",
     {**LATENT, **EXPERTS, **INDEXED, "n_routed_experts": 8, "first_k_dense_replace": 2, "index_topk_freq": 2,
      "index_skip_topk_offset": 3}),
    ("hy_v4", {**LATENT, **EXPERTS, **INDEXED, "n_routed_experts": 8, "hc_mult": 2}),
    ("minicpm3", LATENT),
    ("bloom", {"vocab_size": 1000, "hidden_size": 256, "n_head": 8, "n_layer": 3, **UNTIED}),
    ("falcon", {"vocab_size": 1000, "hidden_size": 256, "num_attention_heads": 8, "num_hidden_layers": 3,
                "new_decoder_architecture": True, "num_kv_heads": 2, "bias": True}),
    ("falcon", {"vocab_size": 1000, "hidden_size": 256, "num_attention_heads": 8, "num_hidden_layers": 3,
                "multi_query": False, "parallel_attn": False}),
    ("gpt2", {"vocab_size": 1000, "n_embd": 256, "n_head": 8, "n_layer": 3, "n_inner": 300, "n_positions": 77}),
    ("gpt_neox", {**SMALL, **ALL_HEADS, "attention_bias": False, **TIED}),
    ("opt", {**FEW, "hidden_size": 256, "num_attention_heads": 8, "ffn_dim": 300, "word_embed_proj_dim": 64}),
    ("opt", {**FEW, "hidden_size": 256, "num_attention_heads": 8, "ffn_dim": 300, "do_layer_norm_before": False,
             "enable_bias": False}),
    ("dbrx", {"d_model": 256, "n_heads": 8, "n_layers": 3, "vocab_size": 1000, "attn_config": {"kv_n_heads": 2, **ROPE},
              "ffn_config": {"ffn_hidden_size": 100, "moe_num_experts": 3}}),
    ("cohere_compass_text", {**SMALL, "hidden_size": 1024, **ROPES}),
    ("hunyuan_v1_dense", {**SMALL, "head_dim": 40}),
    ("hunyuan_v1_moe", {**SMALL, "head_dim": 40, "num_experts": 3}),
    ("nemotron", {**SMALL, "head_dim": 40}),
]  # fmt: skip


def architecture(model_type: str) -> Architecture:
    return next(one for one in architectures("causal") if one.model_type == model_type)


def ours(group: str) -> list[Architecture]:
    return [one for one in architectures(group) if one.model_type in decoders.FAMILIES]


@pytest.mark.parametrize("case", range(len(VARIED)), ids=[f"{index}-{one[0]}" for index, one in enumerate(VARIED)])
def test_counts_what_the_class_builds(case: int) -> None:
    model_type, changes = VARIED[case]
    config, model = instantiate(architecture(model_type), **changes)
    true = parameters(model)
    layout = layout_of(config)
    assert layout is not None and layout.parameters == true
    short = {**model.config.to_diff_dict(), "architectures": config["architectures"], "model_type": model_type}
    layout = layout_of(short)
    assert layout is not None and layout.parameters == true, "the short form is read differently"


@pytest.mark.parametrize("group", ["causal", "classes"])
def test_defaults_are_exact(group: str) -> None:
    assert group in GROUPS
    wrong, absent = [], set()
    for one in ours(group):
        try:
            config, model = instantiate(one)
        except Exception:  # the class's own defaults contradict themselves
            absent.add(one.model_type)
            continue
        try:
            layout = layout_of(config)
        except HeliosError as error:
            wrong.append(f"{one.model_type}: {error}")
            continue
        if one.model_type in INEXACT:
            continue
        if layout is None or layout.parameters != parameters(model):
            wrong.append(f"{one.model_type}: {layout and layout.parameters} instead of {parameters(model)}")
    assert not wrong
    assert absent <= NO_DEFAULT


def test_scores_of_several_classes() -> None:
    one = next(entry for entry in architectures("classes") if entry.model_type == "qwen3")
    config, model = instantiate(one, **SMALL, num_labels=5)
    layout = layout_of(config)
    assert layout is not None and layout.parameters == parameters(model)
