"""What one rank holds of a hybrid, in bytes, against the modules that vLLM builds on the meta device.

Left out, because vLLM builds them on GPUs only: Nemotron H (experts without gates), OLMo hybrid and Kimi Linear.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from heliosd.estimation.families.registry import layout_of
from heliosd.estimation.layout import Layout, Split, Tensor
from tests.estimation.kv_truth import a_pretended_group
from tests.estimation.offline import no_hub

pytestmark = pytest.mark.slow

SMALL = {"vocab_size": 1024, "hidden_size": 256, "num_hidden_layers": 4, "pad_token_id": 0, "bos_token_id": 0,
         "eos_token_id": 0}  # fmt: skip
HEADS = {"num_attention_heads": 8, "num_key_value_heads": 2}
MIXED = ["linear_attention", "full_attention"] * 2
CORRECTIONS = {"lfm2_moe": 2 * 4 * 4}
"""Bytes of the routers' corrections, which are no parameters of the model."""

CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "mamba": ("MambaConfig", "MambaForCausalLM", {**SMALL}),
    "mamba2": ("Mamba2Config", "Mamba2ForCausalLM",
               {**SMALL, "num_heads": 16, "head_dim": 32, "n_groups": 4, "state_size": 32}),
    "mamba2_one_group": ("Mamba2Config", "Mamba2ForCausalLM",
                         {**SMALL, "num_heads": 16, "head_dim": 32, "n_groups": 1, "state_size": 32}),
    "jamba": ("JambaConfig", "JambaForCausalLM",
              {**SMALL, **HEADS, "intermediate_size": 512, "num_experts": 4, "attn_layer_period": 2,
               "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1}),
    "falcon_h1": ("FalconH1Config", "FalconH1ForCausalLM",
                  {**SMALL, **HEADS, "intermediate_size": 512, "mamba_d_ssm": 256, "mamba_n_heads": 16,
                   "mamba_d_head": 16, "mamba_d_state": 32, "head_dim": 32}),
    "granitemoehybrid": ("GraniteMoeHybridConfig", "GraniteMoeHybridForCausalLM",
                         {**SMALL, **HEADS, "intermediate_size": 128, "num_local_experts": 4,
                          "shared_intermediate_size": 256, "mamba_n_heads": 16, "mamba_d_head": 32,
                          "mamba_d_state": 32, "layer_types": ["mamba", "attention"] * 2}),
    "zamba2": ("Zamba2Config", "Zamba2ForCausalLM",
               {**SMALL, "num_attention_heads": 8, "num_key_value_heads": 8, "intermediate_size": 512,
                "layers_block_type": ["mamba", "hybrid"] * 2, "n_mamba_heads": 8, "mamba_ngroups": 1}),
    "qwen3_next": ("Qwen3NextConfig", "Qwen3NextForCausalLM",
                   {**SMALL, **HEADS, "head_dim": 32, "layer_types": MIXED, "linear_num_key_heads": 4,
                    "linear_num_value_heads": 8, "linear_key_head_dim": 32, "linear_value_head_dim": 32,
                    "num_experts": 4, "moe_intermediate_size": 128, "shared_expert_intermediate_size": 128}),
    "lfm2": ("Lfm2Config", "Lfm2ForCausalLM",
             {**SMALL, **HEADS, "intermediate_size": 512, "full_attn_idxs": [1, 3], "conv_dim": 256, "block_dim": 256}),
    "lfm2_moe": ("Lfm2MoeConfig", "Lfm2MoeForCausalLM",
                 {**SMALL, **HEADS, "intermediate_size": 512, "layer_types": ["conv", "full_attention"] * 2,
                  "num_experts": 4, "moe_intermediate_size": 128}),
}  # fmt: skip


def on_a_rank(tensor: Tensor, ranks: int) -> int:
    """Bytes that one of `ranks` holds, by the documented meaning of `Split`."""
    size = 4 if tensor.dtype == "float32" else 2
    match tensor.split:
        case Split.WHOLE:
            return tensor.elements * size
        case Split.ROWS | Split.COLUMNS:
            return tensor.elements // ranks * size
        case Split.HEADS:
            return tensor.elements // tensor.heads * max(1, tensor.heads // ranks) * size
        case Split.VOCABULARY:
            return -(-tensor.rows // 64) * 64 // ranks * tensor.columns * size


def predicted(layout: Layout, ranks: int) -> int:
    outside = sum(on_a_rank(tensor, ranks) for tensor in (*layout.first, *layout.last))
    return outside + sum(
        len(block.layers) * sum(on_a_rank(tensor, ranks) for tensor in block.tensors) for block in layout.blocks
    )


def built(directory: Path, ranks: int) -> int:
    """Bytes of the parameters that vLLM gives one of `ranks`."""
    import torch
    from vllm.engine.arg_utils import EngineArgs
    from vllm.model_executor.model_loader.utils import initialize_model
    from vllm.utils.torch_utils import set_default_torch_dtype

    arguments = EngineArgs(
        model=str(directory), skip_tokenizer_init=True, load_format="dummy", enforce_eager=True, max_model_len=64
    )
    config = arguments.create_engine_config()
    config.parallel_config.tensor_parallel_size = ranks
    with (
        a_pretended_group(config, ranks),
        set_default_torch_dtype(config.model_config.dtype),
        torch.device("meta"),
    ):
        model = initialize_model(vllm_config=config)
    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("name", list(CASES))
def test_a_rank_holds_what_vllm_gives_it(name: str, ranks: int, tmp_path: Path) -> None:
    import transformers

    config_class, architecture, sizes = CASES[name]
    config = getattr(transformers, config_class)(**sizes)
    config.architectures = [architecture]
    config.dtype = "bfloat16"
    config.save_pretrained(tmp_path)
    layout = layout_of(json.loads((tmp_path / "config.json").read_text(encoding="utf-8")))
    assert layout is not None
    with no_hub():
        assert predicted(layout, ranks) + CORRECTIONS.get(name, 0) == built(tmp_path, ranks)
