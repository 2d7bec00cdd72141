"""Hybrids' layouts against `transformers` itself where sizes, patterns, tying and switches differ from the defaults."""

from typing import Any

import pytest

from heliosd.estimation.families.registry import layout_of
from tests.estimation.architectures import Architecture, instantiate, parameters

pytestmark = pytest.mark.slow

SMALL = {"vocab_size": 1000, "pad_token_id": 0, "hidden_size": 256, "num_hidden_layers": 6}
HEADS = {"num_attention_heads": 8, "num_key_value_heads": 2}
MIXED = ["linear_attention", "linear_attention", "full_attention"] * 2
FALCON = {**SMALL, **HEADS, "mamba_n_heads": 16, "mamba_n_groups": 4, "mamba_d_state": 32}

VARIED: list[tuple[str, str, dict[str, Any]]] = [
    ("mamba", "MambaForCausalLM", {**SMALL, "expand": 3, "use_bias": True, "conv_kernel": 3, "state_size": 8}),
    ("mamba", "MambaModel", {**SMALL, "time_step_rank": 24, "use_conv_bias": False}),
    ("falcon_mamba", "FalconMambaForCausalLM", {**SMALL, "tie_word_embeddings": False}),
    ("mamba2", "Mamba2ForCausalLM",
     {**SMALL, "num_heads": 16, "head_dim": 32, "n_groups": 2, "state_size": 32, "use_bias": True,
      "tie_word_embeddings": True}),
    ("jamba", "JambaForCausalLM",
     {**SMALL, **HEADS, "intermediate_size": 512, "num_experts": 4, "attn_layer_period": 3, "attn_layer_offset": 1,
      "expert_layer_period": 3, "expert_layer_offset": 2, "mamba_proj_bias": True}),
    ("jamba", "JambaForSequenceClassification",
     {**SMALL, **HEADS, "intermediate_size": 512, "num_experts": 1, "mamba_d_conv": 6, "num_labels": 5}),
    ("bamba", "BambaForCausalLM",
     {**SMALL, **HEADS, "intermediate_size": 300, "attn_layer_indices": [1, 4], "mamba_n_heads": 16,
      "mamba_d_head": "auto", "mamba_n_groups": 2, "mlp_bias": True, "attention_bias": True, "mamba_conv_bias": False}),
    ("falcon_h1", "FalconH1ForCausalLM",
     {**FALCON, "mamba_d_ssm": None, "mamba_d_head": "auto", "mamba_rms_norm": True, "projectors_bias": True}),
    ("falcon_h1", "FalconH1ForCausalLM",
     {**FALCON, "mamba_d_ssm": 320, "mamba_d_head": 20, "head_dim": 64, "mamba_proj_bias": True,
      "tie_word_embeddings": True}),
    ("granitemoehybrid", "GraniteMoeHybridForCausalLM",
     {**SMALL, **HEADS, "layer_types": MIXED, "num_local_experts": 0, "shared_intermediate_size": 700,
      "mamba_n_heads": 8, "mamba_d_head": "auto"}),
    ("granitemoehybrid", "GraniteMoeHybridForCausalLM",
     {**SMALL, **HEADS, "layer_types": MIXED, "num_local_experts": 3, "intermediate_size": 96, "mamba_n_heads": 8,
      "mamba_d_head": 64, "mamba_proj_bias": True, "tie_word_embeddings": True}),
    ("zamba", "ZambaForCausalLM",
     {**SMALL, "num_hidden_layers": 11, "num_attention_heads": 8, "num_key_value_heads": 8, "intermediate_size": 500,
      "attn_layer_period": 4, "attn_layer_offset": 1, "n_mamba_heads": 4}),
    ("zamba2", "Zamba2ForCausalLM",
     {**SMALL, "num_attention_heads": 8, "num_key_value_heads": 4, "intermediate_size": 500, "num_mem_blocks": 2,
      "layers_block_type": ["linear_attention", "hybrid"] * 3, "use_shared_attention_adapter": True,
      "adapter_rank": 16, "add_bias_linear": True, "n_mamba_heads": 4, "mamba_ngroups": 2}),
    ("nemotron_h", "NemotronHForCausalLM",
     {**HEADS, "vocab_size": 1000, "hidden_size": 256, "hybrid_override_pattern": "M-M*-EME", "intermediate_size": 512,
      "mamba_num_heads": 12, "mamba_head_dim": 16, "n_groups": 4, "n_routed_experts": 5, "moe_intermediate_size": 48,
      "moe_shared_expert_intermediate_size": 80, "moe_latent_size": 64, "use_bias": True, "mlp_bias": True}),
    ("qwen3_next", "Qwen3NextForCausalLM",
     {**SMALL, **HEADS, "head_dim": 64, "linear_num_key_heads": 4, "linear_num_value_heads": 8, "num_experts": 4,
      "linear_key_head_dim": 16, "linear_value_head_dim": 32, "full_attention_interval": 3, "mlp_only_layers": [1],
      "intermediate_size": 320, "moe_intermediate_size": 64, "attention_bias": True, "linear_conv_kernel_dim": 3}),
    ("qwen3_next", "Qwen3NextForSequenceClassification",
     {**SMALL, **HEADS, "decoder_sparse_step": 2, "num_experts": 4, "intermediate_size": 64, "num_labels": 1}),
    ("qwen3_5_text", "Qwen3_5ForCausalLM", {**SMALL, **HEADS, "layer_types": MIXED, "tie_word_embeddings": True}),
    ("qwen3_5_moe_text", "Qwen3_5MoeForCausalLM",
     {**SMALL, **HEADS, "num_experts": 6, "shared_expert_intermediate_size": 32, "moe_intermediate_size": 48}),
    ("olmo_hybrid", "OlmoHybridForCausalLM",
     {**SMALL, "num_attention_heads": 8, "intermediate_size": 300, "linear_value_head_dim": 40,
      "linear_num_value_heads": 16}),
    ("minimax", "MiniMaxForCausalLM",
     {**SMALL, **HEADS, "head_dim": 48, "num_local_experts": 3, "intermediate_size": 100, "layer_types": MIXED}),
    ("kimi_linear", "KimiLinearForCausalLM",
     {**SMALL, **HEADS, "num_experts": 5, "moe_intermediate_size": 40, "intermediate_size": 300, "kv_lora_rank": 64,
      "num_shared_experts": 2, "first_k_dense_replace": 2,
      "linear_attn_config": {"num_heads": 6, "head_dim": 24, "short_conv_kernel_size": 3,
                             "full_attn_layers": [2, 6], "kda_layers": [1, 3, 4, 5]}}),
    ("kimi_linear", "KimiLinearForCausalLM",
     {**SMALL, **HEADS, "num_experts": 4, "moe_intermediate_size": 40, "q_lora_rank": 96, "linear_num_heads": 4}),
    ("lfm2", "Lfm2ForCausalLM",
     {**SMALL, **HEADS, "full_attn_idxs": [2, 5], "conv_bias": True, "block_ffn_dim_multiplier": 1.3,
      "block_multiple_of": 32, "intermediate_size": 500, "tie_word_embeddings": False}),
    ("lfm2", "Lfm2Model", {**SMALL, **HEADS, "block_auto_adjust_ff_dim": False, "intermediate_size": 333}),
    ("lfm2_moe", "Lfm2MoeForCausalLM",
     {**SMALL, **HEADS, "layer_types": ["conv", "full_attention"] * 3, "num_experts": 4, "num_dense_layers": 1}),
    ("recurrent_gemma", "RecurrentGemmaForCausalLM",
     {**SMALL, **HEADS, "lru_width": 320, "block_types": ["recurrent", "attention"], "attention_bias": True,
      "intermediate_size": 700}),
    ("rwkv", "RwkvForCausalLM", {**SMALL, "attention_hidden_size": 192, "tie_word_embeddings": True}),
    ("xlstm", "xLSTMForCausalLM", {**SMALL, "num_heads": 4, "use_bias": True, "qk_dim_factor": 0.75}),
    ("zaya", "ZayaForCausalLM",
     {**SMALL, **HEADS, "head_dim": 32, "num_experts": 4, "moe_intermediate_size": 64, "cca_time0": 3,
      "layer_types": ["hybrid"] * 6, "attention_bias": True, "router_hidden_size": 24}),
    ("inkling_text", "InklingForCausalLM",
     {**SMALL, **HEADS, "head_dim": 32, "swa_num_attention_heads": 4, "swa_num_key_value_heads": 4, "swa_head_dim": 16,
      "sliding_window_size": 64, "n_routed_experts": 4, "moe_intermediate_size": 40, "dense_mlp_idx": 2,
      "intermediate_size": 300}),
    ("qwen4_exp_text", "Qwen4ExpForCausalLM",
     {**SMALL, **HEADS, "num_experts": 12, "moe_intermediate_size": 40, "indexer_n_heads": 4, "indexer_kv_heads": 1,
      "indexer_head_dim": 256, "indexer_budget": 64, "indexer_compress_ratio": 4, "hc_lowrank": 20,
      "shared_expert_intermediate_size": 30}),
]  # fmt: skip


@pytest.mark.parametrize(("model_type", "name", "changes"), VARIED)
def test_a_varied_hybrid_is_counted_exactly(model_type: str, name: str, changes: dict[str, Any]) -> None:
    config, model = instantiate(Architecture("causal", model_type, name), **changes)
    layout = layout_of(config)
    assert layout is not None, f"no family knows {model_type}"
    assert layout.parameters == parameters(model)
