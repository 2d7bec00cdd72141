"""Small but complete models, as bytes and as folders. Equal arguments make equal bytes."""

import json
import random
from array import array
from pathlib import Path


def safetensors(size_bytes: int = 4096, seed: int = 0, name: str = "model.embed_tokens.weight") -> bytes:
    """A file with one BF16 tensor of `size_bytes` random bytes."""
    header = {name: {"dtype": "BF16", "shape": [size_bytes // 2], "data_offsets": [0, size_bytes]}}
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + random.Random(seed).randbytes(size_bytes)


def config(**more: object) -> bytes:
    known = {
        "architectures": ["LlamaForCausalLM"],
        "num_hidden_layers": 2,
        "hidden_size": 64,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "vocab_size": 128,
        "max_position_embeddings": 512,
    }
    return json.dumps(known | more).encode()


def model_files(size_bytes: int = 4096, seed: int = 0) -> dict[str, bytes]:
    return {
        "config.json": config(),
        "tokenizer.json": b'{"version": "1.0"}',
        "model.safetensors": safetensors(size_bytes, seed),
    }


def write_folder(folder: Path, files: dict[str, bytes]) -> Path:
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder


TINY_SIDES = {"self_attn.q_proj": (64, 64), "self_attn.v_proj": (64, 32), "mlp.down_proj": (128, 64)}
"""Inputs and outputs of projections of the tiny Llama of `tests/conftest.py`."""


def adapter_config(base: str | None = "org/m", rank: int = 8, **more: object) -> bytes:
    known = {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": 2 * rank,
        "target_modules": ["q_proj", "v_proj", "down_proj"],
    }
    return json.dumps(known | {"bias": "none", "base_model_name_or_path": base} | more).encode()


def adapter_files(base: str | None = "org/m", rank: int = 8, seed: int = 0, **more: object) -> dict[str, bytes]:
    """A LoRA for the tiny Llama, as PEFT writes it, strong enough to change what the model says."""
    rng = random.Random(seed)
    header: dict[str, object] = {}
    data = bytearray()
    for layer in range(2):
        for name, (inputs, outputs) in TINY_SIDES.items():
            for side, shape in (("lora_A", (rank, inputs)), ("lora_B", (outputs, rank))):
                begin = len(data)
                data += array("f", (rng.gauss(0, 0.5) for _ in range(shape[0] * shape[1]))).tobytes()
                tensor = f"base_model.model.model.layers.{layer}.{name}.{side}.weight"
                header[tensor] = {"dtype": "F32", "shape": list(shape), "data_offsets": [begin, len(data)]}
    text = json.dumps(header).encode()
    return {
        "adapter_config.json": adapter_config(base, rank, **more),
        "adapter_model.safetensors": len(text).to_bytes(8, "little") + text + bytes(data),
    }
