"""The models of a crowd: SmolLM2, and tiny Llamas that differ in nothing but their weights; adapters of those.

Written with numpy alone, in a second: torch would take longer to import.
"""

import json
import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

HIDDEN = 64
_INNER = 128
_LAYERS = 2
_HEAD = 32
_VOCABULARY = 49152
_SPREAD = 0.02
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json")

_CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "dtype": "bfloat16",
    "hidden_size": HIDDEN,
    "intermediate_size": _INNER,
    "num_hidden_layers": _LAYERS,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": _HEAD,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"},
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
    "vocab_size": _VOCABULARY,
    "bos_token_id": 1,
    "eos_token_id": 2,
}

_LAYER = {
    "self_attn.q_proj": (HIDDEN, HIDDEN),
    "self_attn.k_proj": (_HEAD, HIDDEN),
    "self_attn.v_proj": (_HEAD, HIDDEN),
    "self_attn.o_proj": (HIDDEN, HIDDEN),
    "mlp.gate_proj": (_INNER, HIDDEN),
    "mlp.up_proj": (_INNER, HIDDEN),
    "mlp.down_proj": (HIDDEN, _INNER),
}
"""Linear parts of a layer: (outputs, inputs)."""


def tiny_llama(folder: Path, tokenizer_of: Path, seed: int) -> Path:
    """Write a Llama of two layers with random weights and the tokenizer of another model: 10 MB of gibberish."""
    dice = np.random.default_rng(seed)
    weights = {"model.embed_tokens.weight": _random(dice, _VOCABULARY, HIDDEN), "model.norm.weight": _ones()}
    for number in range(_LAYERS):
        layer = f"model.layers.{number}"
        weights |= {f"{layer}.{part}.weight": _random(dice, *shape) for part, shape in _LAYER.items()}
        weights |= {f"{layer}.{norm}_layernorm.weight": _ones() for norm in ("input", "post_attention")}
    folder.mkdir(parents=True)
    _save(weights, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(_CONFIG, indent=1))
    for name in _TOKENIZER:
        shutil.copy(tokenizer_of / name, folder / name)
    return folder


def tiny_adapter(folder: Path, base: str, seed: int, rank: int = 4) -> Path:
    """Write a LoRA on the attention of the tiny Llama `base`, laid out as PEFT saves it."""
    dice = np.random.default_rng(seed)
    targets = ("q_proj", "v_proj")
    weights = {}
    for number in range(_LAYERS):
        for target in targets:
            part = f"self_attn.{target}"
            outputs, inputs = _LAYER[part]
            name = f"base_model.model.model.layers.{number}.{part}"
            weights[f"{name}.lora_A.weight"] = _random(dice, rank, inputs)
            weights[f"{name}.lora_B.weight"] = _random(dice, outputs, rank)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": 2 * rank,
        "lora_dropout": 0.0,
        "target_modules": list(targets),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }
    folder.mkdir(parents=True)
    _save(weights, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=1))
    return folder


def _random(dice: np.random.Generator, *shape: int) -> NDArray[np.float32]:
    return dice.standard_normal(shape, dtype=np.float32) * np.float32(_SPREAD)


def _ones() -> NDArray[np.float32]:
    return np.ones(HIDDEN, dtype=np.float32)


def _save(weights: dict[str, NDArray[np.float32]], file: Path) -> None:
    """As bfloat16, which numpy does not have: the upper half of a float32, cut off."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, each in weights.items():
        half = (each.view(np.uint32) >> 16).astype("<u2").tobytes()
        header[name] = {"dtype": "BF16", "shape": each.shape, "data_offsets": (len(data), len(data) + len(half))}
        data += half
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)  # tensors begin at a multiple of eight
    file.write_bytes(len(head).to_bytes(8, "little") + head + data)
