"""Small but complete models, as bytes and as folders. Equal arguments make equal bytes."""

import json
import random
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
