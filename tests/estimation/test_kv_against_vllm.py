"""What Helios says of the KV cache against what the installed vLLM makes of the same configuration: exactly the same.

Models are built with empty weights, on one rank; the tensor-parallel size is pretended.
"""

import collections
import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from heliosd.estimation.fields import Fields
from heliosd.estimation.kv_kinds import Keeps
from heliosd.estimation.kv_pages import kv_pages, layer_pages
from heliosd.estimation.kv_specs import CacheLaunch, kv_specs
from tests.estimation.offline import no_hub

pytestmark = pytest.mark.slow

ROOM = 3 * 2**30
LENGTH = 2048
SMALL: dict[str, Any] = {
    "hidden_size": 256,
    "intermediate_size": 256,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "vocab_size": 512,
}
DEEPSEEK: dict[str, Any] = {
    **SMALL,
    "num_key_value_heads": 8,
    "q_lora_rank": 64,
    "kv_lora_rank": 512,
    "qk_rope_head_dim": 64,
    "v_head_dim": 32,
    "qk_nope_head_dim": 32,
    "n_routed_experts": 4,
    "n_group": 1,
    "topk_group": 1,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 64,
    "first_k_dense_replace": 1,
    "n_shared_experts": 1,
}
DELTA: dict[str, Any] = {
    **SMALL,
    "head_dim": 64,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 64,
    "shared_expert_intermediate_size": 64,
    "linear_num_key_heads": 4,
    "linear_num_value_heads": 8,
    "linear_key_head_dim": 32,
    "linear_value_head_dim": 64,
}
MOE: dict[str, Any] = {"num_experts_per_tok": 2, "moe_intermediate_size": 64, "num_experts": 4, "num_local_experts": 4}


@dataclass(frozen=True)
class Case:
    config_class: str
    architecture: str
    sizes: dict[str, Any]
    launch: dict[str, Any]


def case(config_class: str, architecture: str, launch: dict[str, Any] | None = None, **sizes: Any) -> Case:
    return Case(config_class, architecture, sizes, launch or {})


CASES = {
    "llama": case("LlamaConfig", "LlamaForCausalLM", **SMALL, num_hidden_layers=3),
    "llama-tp2": case("LlamaConfig", "LlamaForCausalLM", {"tp": 2}, **SMALL, num_hidden_layers=3),
    "llama-tp8": case("LlamaConfig", "LlamaForCausalLM", {"tp": 8}, **SMALL, num_hidden_layers=3),
    "llama-fp32": case("LlamaConfig", "LlamaForCausalLM", {"dtype": "float32"}, **SMALL, num_hidden_layers=3),
    "qwen2": case("Qwen2Config", "Qwen2ForCausalLM", **SMALL, num_hidden_layers=3),
    "qwen3": case("Qwen3Config", "Qwen3ForCausalLM", **SMALL, num_hidden_layers=3),
    "qwen3-moe": case("Qwen3MoeConfig", "Qwen3MoeForCausalLM", **SMALL, **MOE, num_hidden_layers=3),
    "mistral-sliding": case("MistralConfig", "MistralForCausalLM", **SMALL, num_hidden_layers=3, sliding_window=256),
    "mixtral": case("MixtralConfig", "MixtralForCausalLM", **SMALL, num_local_experts=4, num_hidden_layers=3),
    "gemma": case("GemmaConfig", "GemmaForCausalLM", **SMALL, head_dim=64, num_hidden_layers=3),
    "gemma2": case("Gemma2Config", "Gemma2ForCausalLM", **SMALL, head_dim=64, num_hidden_layers=6, sliding_window=512),
    "gemma3": case(
        "Gemma3TextConfig", "Gemma3ForCausalLM", **SMALL, head_dim=64, num_hidden_layers=14, sliding_window=512
    ),
    "gemma3n": case(
        "Gemma3nTextConfig",
        "Gemma3nForCausalLM",
        **{**SMALL, "intermediate_size": [256] * 10},
        head_dim=64,
        num_hidden_layers=10,
        num_kv_shared_layers=4,
        sliding_window=512,
        hidden_size_per_layer_input=32,
        vocab_size_per_layer_input=512,
        activation_sparsity_pattern=[0.0] * 10,
    ),
    "gemma4": case(
        "Gemma4TextConfig",
        "Gemma4ForCausalLM",
        **SMALL,
        head_dim=64,
        global_head_dim=128,
        num_hidden_layers=12,
        sliding_window=512,
        hidden_size_per_layer_input=0,
    ),
    "gemma4-k-is-v": case(
        "Gemma4TextConfig",
        "Gemma4ForCausalLM",
        **SMALL,
        head_dim=64,
        global_head_dim=128,
        num_global_key_value_heads=2,
        attention_k_eq_v=True,
        num_hidden_layers=12,
        sliding_window=512,
        hidden_size_per_layer_input=0,
    ),
    "phi3": case("Phi3Config", "Phi3ForCausalLM", **SMALL, num_hidden_layers=3, pad_token_id=0),
    "gpt2": case("GPT2Config", "GPT2LMHeadModel", n_positions=2048, n_embd=256, n_head=8, n_layer=3, vocab_size=512),
    "opt": case(
        "OPTConfig",
        "OPTForCausalLM",
        hidden_size=256,
        ffn_dim=256,
        num_attention_heads=8,
        num_hidden_layers=3,
        vocab_size=512,
        word_embed_proj_dim=256,
    ),
    "gpt-neox": case(
        "GPTNeoXConfig",
        "GPTNeoXForCausalLM",
        hidden_size=256,
        intermediate_size=256,
        num_attention_heads=8,
        num_hidden_layers=3,
        vocab_size=512,
    ),
    "falcon": case(
        "FalconConfig", "FalconForCausalLM", hidden_size=256, num_attention_heads=8, num_hidden_layers=3, vocab_size=512
    ),
    "falcon-groups": case(
        "FalconConfig",
        "FalconForCausalLM",
        hidden_size=256,
        num_attention_heads=8,
        num_kv_heads=2,
        new_decoder_architecture=True,
        num_hidden_layers=3,
        vocab_size=512,
    ),
    "bloom": case("BloomConfig", "BloomForCausalLM", hidden_size=256, n_head=8, n_layer=3, vocab_size=512),
    "starcoder2": case("Starcoder2Config", "Starcoder2ForCausalLM", **SMALL, num_hidden_layers=3),
    "deepseek-v2": case("DeepseekV2Config", "DeepseekV2ForCausalLM", **DEEPSEEK, num_hidden_layers=3),
    "deepseek-v3": case("DeepseekV3Config", "DeepseekV3ForCausalLM", **DEEPSEEK, num_hidden_layers=3),
    "deepseek-v3-tp2": case("DeepseekV3Config", "DeepseekV3ForCausalLM", {"tp": 2}, **DEEPSEEK, num_hidden_layers=3),
    "gpt-oss": case(
        "GptOssConfig", "GptOssForCausalLM", **{**SMALL, "head_dim": 32}, num_local_experts=4, num_hidden_layers=8
    ),
    "llama4": case(
        "Llama4TextConfig",
        "Llama4ForCausalLM",
        **SMALL,
        num_hidden_layers=8,
        num_local_experts=2,
        attention_chunk_size=256,
        intermediate_size_mlp=256,
        head_dim=32,
    ),
    "cohere": case("CohereConfig", "CohereForCausalLM", **SMALL, num_hidden_layers=3),
    "cohere2": case("Cohere2Config", "Cohere2ForCausalLM", **SMALL, num_hidden_layers=8, sliding_window=512),
    "olmo2": case("Olmo2Config", "Olmo2ForCausalLM", **SMALL, num_hidden_layers=3),
    "olmo3": case("Olmo3Config", "Olmo3ForCausalLM", **SMALL, num_hidden_layers=8, sliding_window=512),
    "exaone4": case("Exaone4Config", "Exaone4ForCausalLM", **SMALL, num_hidden_layers=8, sliding_window=512),
    "granite": case("GraniteConfig", "GraniteForCausalLM", **SMALL, num_hidden_layers=3),
    "granite-hybrid": case(
        "GraniteMoeHybridConfig",
        "GraniteMoeHybridForCausalLM",
        **SMALL,
        num_hidden_layers=8,
        layer_types=["mamba", "mamba", "mamba", "attention"] * 2,
        mamba_n_heads=16,
        mamba_n_groups=1,
        mamba_d_head=32,
        mamba_d_state=64,
        num_local_experts=0,
        shared_intermediate_size=128,
    ),
    "jamba": case("JambaConfig", "JambaForCausalLM", **SMALL, num_hidden_layers=8, num_experts=2),
    "mamba": case("MambaConfig", "MambaForCausalLM", hidden_size=256, num_hidden_layers=3, vocab_size=512),
    "mamba2": case(
        "Mamba2Config",
        "Mamba2ForCausalLM",
        hidden_size=256,
        num_hidden_layers=3,
        vocab_size=512,
        num_heads=8,
        head_dim=64,
        n_groups=2,
        state_size=64,
    ),
    "falcon-mamba": case(
        "FalconMambaConfig", "FalconMambaForCausalLM", hidden_size=256, num_hidden_layers=3, vocab_size=512
    ),
    "falcon-h1": case(
        "FalconH1Config",
        "FalconH1ForCausalLM",
        **SMALL,
        num_hidden_layers=3,
        mamba_d_ssm=512,
        mamba_n_heads=16,
        mamba_d_head=32,
        mamba_d_state=64,
        mamba_n_groups=1,
    ),
    "nemotron-h": case(
        "NemotronHConfig",
        "NemotronHForCausalLM",
        **SMALL,
        head_dim=32,
        layers_block_type=["mamba", "mlp", "mamba", "attention", "mamba", "mlp", "mamba", "attention"],
        mamba_num_heads=16,
        mamba_head_dim=32,
        n_groups=2,
        ssm_state_size=64,
        n_routed_experts=4,
        moe_intermediate_size=64,
    ),
    "zamba2": case(
        "Zamba2Config",
        "Zamba2ForCausalLM",
        **{**SMALL, "num_key_value_heads": 8},
        num_hidden_layers=6,
        layers_block_type=["mamba", "hybrid"] * 3,
        mamba_headdim=32,
        n_mamba_heads=16,
        mamba_d_state=64,
        mamba_ngroups=1,
        attention_head_dim=64,
        num_mem_blocks=1,
    ),
    "qwen3-next": case("Qwen3NextConfig", "Qwen3NextForCausalLM", **DELTA, num_hidden_layers=8),
    "qwen3-next-tp2": case("Qwen3NextConfig", "Qwen3NextForCausalLM", {"tp": 2}, **DELTA, num_hidden_layers=8),
    "qwen3-next-without-prefixes": case(
        "Qwen3NextConfig", "Qwen3NextForCausalLM", {"enable_prefix_caching": False}, **DELTA, num_hidden_layers=8
    ),
    "lfm2": case(
        "Lfm2Config",
        "Lfm2ForCausalLM",
        **SMALL,
        num_hidden_layers=6,
        full_attn_idxs=[2, 5],
        block_ff_dim=256,
        conv_dim=256,
        block_dim=256,
        block_multiple_of=64,
        block_auto_adjust_ff_dim=False,
    ),
    "minimax-m2": case(
        "MiniMaxM2Config",
        "MiniMaxM2ForCausalLM",
        **SMALL,
        rotary_dim=16,
        scoring_func="sigmoid",
        num_local_experts=4,
        head_dim=32,
        num_hidden_layers=3,
    ),
    "glm4": case("Glm4Config", "Glm4ForCausalLM", **SMALL, head_dim=32, num_hidden_layers=3),
    "smollm3": case("SmolLM3Config", "SmolLM3ForCausalLM", **SMALL, num_hidden_layers=4, pad_token_id=0),
    "laguna": case(
        "LagunaConfig",
        "LagunaForCausalLM",
        **SMALL,
        **MOE,
        head_dim=32,
        num_hidden_layers=8,
        sliding_window=256,
        shared_expert_intermediate_size=64,
        num_attention_heads_per_layer=[8] * 8,
    ),
    "afmoe": case(
        "AfmoeConfig",
        "AfmoeForCausalLM",
        **SMALL,
        score_func="sigmoid",
        route_norm=True,
        route_scale=1.0,
        num_shared_experts=1,
        n_group=1,
        topk_group=1,
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=64,
        head_dim=32,
        num_hidden_layers=8,
        sliding_window=256,
    ),
    "apertus": case("ApertusConfig", "ApertusForCausalLM", **SMALL, num_hidden_layers=3),
    "minicpm3": case("MiniCPM3Config", "MiniCPM3ForCausalLM", **SMALL, num_hidden_layers=3),
    "gemma3-tp2": case(
        "Gemma3TextConfig",
        "Gemma3ForCausalLM",
        {"tp": 2},
        **SMALL,
        head_dim=64,
        num_hidden_layers=14,
        sliding_window=512,
    ),
    "gemma3-two-stages": case(
        "Gemma3TextConfig",
        "Gemma3ForCausalLM",
        {"pp": 2},
        **SMALL,
        head_dim=64,
        num_hidden_layers=14,
        sliding_window=512,
    ),
    "gemma3-all-full": case(
        "Gemma3TextConfig",
        "Gemma3ForCausalLM",
        {"disable_hybrid_kv_cache_manager": True},
        **SMALL,
        head_dim=64,
        num_hidden_layers=14,
        sliding_window=512,
    ),
    "llama-three-stages": case("LlamaConfig", "LlamaForCausalLM", {"pp": 3}, **SMALL, num_hidden_layers=8),
    "llama-small-blocks": case("LlamaConfig", "LlamaForCausalLM", {"block_size": 32}, **SMALL, num_hidden_layers=3),
    "llama-shared-context": case("LlamaConfig", "LlamaForCausalLM", {"tp": 8, "dcp": 2}, **SMALL, num_hidden_layers=3),
    "jamba-tp2": case("JambaConfig", "JambaForCausalLM", {"tp": 2}, **SMALL, num_hidden_layers=8, num_experts=2),
    "mamba2-tp4": case(
        "Mamba2Config",
        "Mamba2ForCausalLM",
        {"tp": 4},
        hidden_size=256,
        num_hidden_layers=3,
        vocab_size=512,
        num_heads=8,
        head_dim=64,
        n_groups=1,
        state_size=64,
    ),
    "qwen3-next-small-blocks": case(
        "Qwen3NextConfig", "Qwen3NextForCausalLM", {"block_size": 32}, **DELTA, num_hidden_layers=8
    ),
    "qwen3-next-two-stages": case("Qwen3NextConfig", "Qwen3NextForCausalLM", {"pp": 2}, **DELTA, num_hidden_layers=8),
    "gpt-oss-uneven": case(
        "GptOssConfig", "GptOssForCausalLM", **{**SMALL, "head_dim": 32}, num_local_experts=4, num_hidden_layers=7
    ),
    "qwen2-last-layers-sliding": case(
        "Qwen2Config", "Qwen2ForCausalLM", **SMALL, num_hidden_layers=3, use_sliding_window=False, sliding_window=512
    ),
    "ernie": case("Ernie4_5Config", "Ernie4_5ForCausalLM", **SMALL, num_hidden_layers=3, head_dim=32),
    "stablelm": case("StableLmConfig", "StableLmForCausalLM", **SMALL, num_hidden_layers=3),
    "nemotron": case("NemotronConfig", "NemotronForCausalLM", **SMALL, num_hidden_layers=3),
    "phi": case("PhiConfig", "PhiForCausalLM", **{**SMALL, "num_key_value_heads": 8}, num_hidden_layers=3),
    "gptj": case("GPTJConfig", "GPTJForCausalLM", n_embd=256, n_head=4, n_layer=3, vocab_size=512, rotary_dim=32),
    "gpt-bigcode": case(
        "GPTBigCodeConfig", "GPTBigCodeForCausalLM", n_embd=256, n_head=8, n_layer=3, vocab_size=512, n_positions=2048
    ),
    "glm4-moe": case(
        "Glm4MoeConfig",
        "Glm4MoeForCausalLM",
        **SMALL,
        head_dim=32,
        num_hidden_layers=3,
        n_routed_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=64,
        n_group=1,
        topk_group=1,
    ),
    "seed-oss": case("SeedOssConfig", "SeedOssForCausalLM", **SMALL, num_hidden_layers=3, head_dim=32),
    "arcee": case("ArceeConfig", "ArceeForCausalLM", **SMALL, num_hidden_layers=3),
    "olmoe": case(
        "OlmoeConfig", "OlmoeForCausalLM", **SMALL, num_hidden_layers=3, num_experts=4, num_experts_per_tok=2
    ),
    "granite-moe": case(
        "GraniteMoeConfig",
        "GraniteMoeForCausalLM",
        **SMALL,
        num_hidden_layers=3,
        num_local_experts=4,
        num_experts_per_tok=2,
    ),
    "mimo-v2": case(
        "MiMoV2FlashConfig",
        "MiMoV2FlashForCausalLM",
        **SMALL,
        hybrid_layer_pattern=[0, 1, 1, 1] * 2,
        moe_layer_freq=[0, 1] * 4,
        hybrid_block_size=None,
        swa_rope_theta=10000.0,
        layernorm_epsilon=1e-5,
        add_swa_attention_sink_bias=False,
        add_full_attention_sink_bias=False,
        attention_value_scale=None,
        n_group=1,
        topk_group=1,
        routed_scaling_factor=1.0,
        scoring_func="sigmoid",
        norm_topk_prob=True,
        topk_method="noaux_tc",
        partial_rotary_factor=1.0,
        rope_theta=10000.0,
        attention_bias=False,
        num_hidden_layers=8,
        head_dim=64,
        v_head_dim=32,
        swa_head_dim=64,
        swa_v_head_dim=32,
        swa_num_attention_heads=8,
        swa_num_key_value_heads=8,
        sliding_window=256,
        sliding_window_size=256,
        attention_chunk_size=128,
        n_routed_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=64,
    ),
    "ministral3": case("Ministral3Config", "MistralForCausalLM", **SMALL, num_hidden_layers=3, head_dim=32),
    "ministral": case(
        "MinistralConfig",
        "MinistralForCausalLM",
        **SMALL,
        num_hidden_layers=8,
        head_dim=32,
        sliding_window=256,
        layer_types=["sliding_attention", "full_attention"] * 4,
    ),
    "llama-patterned": case(
        "LlamaConfig",
        "LlamaForCausalLM",
        **SMALL,
        num_hidden_layers=8,
        sliding_window=256,
        layer_types=["sliding_attention", "full_attention"] * 4,
    ),
    "exaone-moe": case(
        "ExaoneMoeConfig",
        "ExaoneMoEForCausalLM",
        **SMALL,
        num_hidden_layers=8,
        head_dim=32,
        sliding_window=256,
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=64,
        n_group=1,
        topk_group=1,
    ),
    "longcat": case(
        "LongcatFlashConfig",
        "LongcatFlashForCausalLM",
        **{
            **DEEPSEEK,
            "ffn_hidden_size": 128,
            "expert_ffn_hidden_size": 64,
            "num_layers": 2,
            "num_hidden_layers": 4,
            "zero_expert_num": 2,
            "mla_scale_q_lora": True,
            "mla_scale_kv_lora": True,
            "zero_expert_type": "identity",
            "moe_topk": 2,
        },
    ),
    "hunyuan": case("HunYuanDenseV1Config", "HunYuanDenseV1ForCausalLM", **SMALL, num_hidden_layers=3, head_dim=32),
    "dots1": case(
        "Dots1Config",
        "Dots1ForCausalLM",
        **SMALL,
        n_shared_experts=1,
        num_hidden_layers=3,
        n_routed_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=64,
        n_group=1,
        topk_group=1,
        head_dim=32,
    ),
    "glm4-moe-lite": case("Glm4MoeLiteConfig", "Glm4MoeLiteForCausalLM", **DEEPSEEK, num_hidden_layers=3),
    "cohere2-moe": case(
        "Cohere2MoeConfig",
        "Cohere2MoeForCausalLM",
        **SMALL,
        num_hidden_layers=8,
        head_dim=32,
        num_experts=4,
        num_experts_per_tok=2,
        sliding_window=256,
    ),
    "qwen2-moe": case(
        "Qwen2MoeConfig", "Qwen2MoeForCausalLM", **SMALL, **MOE, num_hidden_layers=3, shared_expert_intermediate_size=64
    ),
    "dbrx": case(
        "DbrxConfig",
        "DbrxForCausalLM",
        d_model=256,
        n_heads=8,
        n_layers=3,
        vocab_size=512,
        attn_config={"kv_n_heads": 2, "clip_qkv": 8, "rope_theta": 10000.0},
        ffn_config={"ffn_hidden_size": 128, "moe_num_experts": 4, "moe_top_k": 2},
    ),
    "vaultgemma": case(
        "VaultGemmaConfig", "Gemma2ForCausalLM", **SMALL, head_dim=64, num_hidden_layers=6, sliding_window=512
    ),
    "lfm2-moe": case(
        "Lfm2MoeConfig",
        "Lfm2MoeForCausalLM",
        **SMALL,
        num_hidden_layers=6,
        layer_types=["conv", "conv", "full_attention"] * 2,
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=64,
    ),
}


@dataclass(frozen=True)
class Truth:
    pages: "collections.Counter[tuple[str, int, int]]"
    """How many layers have (kind, tokens, bytes) of a block, before unification."""
    blocks: int
    groups: int
    block_tokens: int
    tokens: int
    concurrency: float
    batches: int
    batched_tokens: int
    state_dtype: str
    prefixes: bool


@contextlib.contextmanager
def a_pretended_group(config: Any, ranks: int) -> Iterator[None]:
    import torch
    from vllm.config import set_current_vllm_config
    from vllm.distributed import parallel_state

    with set_current_vllm_config(config):
        torch.distributed.init_process_group(backend="gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
        parallel_state.init_distributed_environment(
            world_size=1, rank=0, local_rank=0, backend="gloo", distributed_init_method="file:///nonexistent"
        )
        parallel_state.initialize_model_parallel(1, backend="gloo")
        group: Any = parallel_state._TP
        group.world_size = ranks
        try:
            yield
        finally:
            parallel_state.destroy_model_parallel()
            parallel_state.destroy_distributed_environment()


def truth(directory: Path, launch: dict[str, Any]) -> Truth:
    """What vLLM makes of the configuration in `directory`: its specs, its blocks and its tokens in `ROOM` bytes."""
    from vllm.config.vllm import get_layers_from_vllm_config
    from vllm.engine.arg_utils import EngineArgs
    from vllm.model_executor.layers.attention_layer_base import AttentionLayerBase
    from vllm.model_executor.model_loader.utils import initialize_model
    from vllm.platforms import current_platform
    from vllm.utils.torch_utils import set_default_torch_dtype
    from vllm.v1.core import kv_cache_utils
    from vllm.v1.engine.core import register_all_kvcache_specs

    ranks = launch.get("tp", 1)
    rest = {name: value for name, value in launch.items() if name not in ("tp", "pp", "dcp")}
    arguments = EngineArgs(
        model=str(directory),
        skip_tokenizer_init=True,
        load_format="dummy",
        enforce_eager=True,
        max_model_len=LENGTH,
        **rest,
    )
    config = arguments.create_engine_config()
    config.parallel_config.tensor_parallel_size = ranks
    config.parallel_config.decode_context_parallel_size = launch.get("dcp", 1)
    with a_pretended_group(config, ranks):
        with set_default_torch_dtype(config.model_config.dtype):
            initialize_model(vllm_config=config)
        current_platform.update_block_size_for_backend(config)
        specs = {}
        for name, layer in get_layers_from_vllm_config(config, AttentionLayerBase).items():
            if getattr(layer, "kv_sharing_target_layer_name", None):
                continue
            spec = layer.get_kv_cache_spec(config)
            if spec is not None:
                specs[name] = spec
        pages = collections.Counter(
            (type(spec).__name__, spec.block_size, spec.page_size_bytes) for spec in specs.values()
        )
        config.cache_config.kv_cache_layout = "LBHNC"
        register_all_kvcache_specs(config)
        stages = staged(specs, config.model_config.get_total_num_hidden_layers(), launch.get("pp", 1))
        made = kv_cache_utils.get_kv_cache_configs(config, stages, [ROOM] * len(stages))[0]
        tokens, concurrency = kv_cache_utils.get_kv_cache_capacity(config, made)
        return Truth(
            pages,
            made.num_blocks,
            len(made.kv_cache_groups),
            config.cache_config.block_size,
            tokens,
            concurrency,
            config.max_concurrent_batches,
            config.scheduler_config.max_num_batched_tokens,
            config.cache_config.mamba_ssm_cache_dtype,
            config.cache_config.enable_prefix_caching,
        )


def staged(specs: dict[str, Any], layers: int, stages: int) -> list[dict[str, Any]]:
    """The specs of each pipeline stage, by the layers that vLLM gives it."""
    from vllm.distributed.utils import get_pp_indices
    from vllm.model_executor.models.utils import extract_layer_index

    if stages == 1:
        return [specs]
    bounds = [get_pp_indices(layers, stage, stages) for stage in range(stages)]
    return [
        {name: spec for name, spec in specs.items() if start <= extract_layer_index(name) < stop}
        for start, stop in bounds
    ]


NAMES = {
    Keeps.FULL: "FullAttentionSpec",
    Keeps.SLIDING: "SlidingWindowSpec",
    Keeps.CHUNKED: "ChunkedLocalAttentionSpec",
    Keeps.STATE: "MambaSpec",
}


@pytest.mark.parametrize("name", CASES)
def test_pages_blocks_and_tokens_are_vllms_own(name: str, tmp_path: Path) -> None:
    import transformers

    chosen = CASES[name]
    config_class = getattr(transformers, chosen.config_class, None)
    if config_class is None:
        pytest.skip(f"this transformers has no {chosen.config_class}")
    made = config_class(**chosen.sizes)
    made.architectures = [chosen.architecture]
    made.dtype = "bfloat16"
    made.save_pretrained(tmp_path)
    with no_hub():
        expected = truth(tmp_path, chosen.launch)

    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    launch = CacheLaunch(
        version=(0, 32),
        platform="cpu",
        tensor_parallel=chosen.launch.get("tp", 1),
        pipeline_parallel=chosen.launch.get("pp", 1),
        decode_context_parallel=chosen.launch.get("dcp", 1),
        block_size=chosen.launch.get("block_size"),
        hybrid=not chosen.launch.get("disable_hybrid_kv_cache_manager", False),
        dtype=chosen.launch.get("dtype", "bfloat16"),
        enable_prefix_caching=expected.prefixes,
        mamba_ssm_cache_dtype=expected.state_dtype,
        max_model_len=LENGTH,
        max_num_batched_tokens=expected.batched_tokens,
        batches_in_flight=expected.batches,
    )
    specs = kv_specs(Fields(config), launch)
    pages = kv_pages(specs, launch)
    assert pages.block_tokens == expected.block_tokens
    asked: collections.Counter[tuple[str, int, int]] = collections.Counter()
    for page in layer_pages(specs, pages.block_tokens, launch):
        name = "MLAAttentionSpec" if page.spec.latent else NAMES[page.spec.keeps]
        asked[name, page.block_tokens, page.page_bytes] += len(page.spec.layers)
    assert asked == expected.pages
    assert len(pages.groups) == expected.groups
    assert pages.blocks(ROOM) == expected.blocks
    assert pages.max_concurrency(LENGTH, ROOM) == expected.concurrency
    assert pages.tokens_in(ROOM) == expected.tokens
