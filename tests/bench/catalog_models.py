"""Many models for a catalog: each small on the disk, with the configuration and the tensors' names of a real kind."""

import json
from collections.abc import Iterator
from pathlib import Path

import sqlite_utils

from heliosd.core.names import ModelRef, parse_ref
from heliosd.state.database import Database
from heliosd.store.store import Store
from heliosd.store.stored import Addition

KINDS = {
    "llama": ("LlamaForCausalLM", {"rope_theta": 500000.0}),
    "qwen2": ("Qwen2ForCausalLM", {"sliding_window": None, "use_sliding_window": False}),
    "qwen3": ("Qwen3ForCausalLM", {"head_dim": 128}),
    "mistral": ("MistralForCausalLM", {"sliding_window": 4096}),
    "gemma2": ("Gemma2ForCausalLM", {"head_dim": 256, "query_pre_attn_scalar": 256, "sliding_window": 4096}),
    "phi3": ("Phi3ForCausalLM", {"original_max_position_embeddings": 4096}),
    "mixtral": ("MixtralForCausalLM", {"num_local_experts": 8, "num_experts_per_tok": 2}),
    "granite": ("GraniteForCausalLM", {"attention_multiplier": 0.0078125, "residual_multiplier": 0.22}),
}
PARTS = (
    "input_layernorm", "mlp.down_proj", "mlp.gate_proj", "mlp.up_proj", "post_attention_layernorm",
    "self_attn.k_proj", "self_attn.o_proj", "self_attn.q_proj", "self_attn.v_proj",
)  # fmt: skip


def names(count: int) -> Iterator[ModelRef]:
    """So many refs, of many organisations."""
    kinds = list(KINDS)
    for number in range(count):
        kind = kinds[number % len(kinds)]
        yield parse_ref(f"{kind}-lab-{number % 37}/{kind}-{1 + number % 70}B-instruct-{number:04d}")


def files(number: int) -> dict[str, bytes]:
    """The files of a model, none like those of another number."""
    kind = list(KINDS)[number % len(KINDS)]
    architecture, more = KINDS[kind]
    layers = (16, 24, 28, 32, 40, 48)[number % 6]
    config = {
        "architectures": [architecture],
        "model_type": kind,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": layers,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "max_position_embeddings": 32768,
        "vocab_size": 128000 + number,
        "torch_dtype": "bfloat16",
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
        **more,
    }
    tensors = ["lm_head.weight", "model.embed_tokens.weight", "model.norm.weight"]
    tensors += [f"model.layers.{layer}.{part}.weight" for layer in range(layers) for part in PARTS]
    header = {
        name: {"dtype": "BF16", "shape": [2, 2], "data_offsets": [8 * at, 8 * at + 8]}
        for at, name in enumerate(sorted(tensors))
    }
    text = json.dumps(header).encode()
    data = number.to_bytes(8, "little") * len(tensors)
    return {
        "config.json": json.dumps(config, indent=2).encode(),
        "generation_config.json": json.dumps({"eos_token_id": [number, 2], "temperature": 0.6}).encode(),
        "model.safetensors": len(text).to_bytes(8, "little") + text + data,
        "special_tokens_map.json": b'{"eos_token": "</s>"}',
        "tokenizer.json": json.dumps({"version": "1.0", "model": {"type": "BPE", "vocab": {}}, "at": number}).encode(),
        "tokenizer_config.json": json.dumps({"model_max_length": 32768, "tokenizer_class": kind}).encode(),
    }


async def fill(state: Path, count: int, scratch: Path) -> None:
    """Bring so many models into the store of a daemon whose state lies in `state`, unless they are there."""
    database = Database(state / "helios.db")
    await database.open()
    store = Store(state / "store", database)
    await store.open()
    await database.run(_carelessly)
    try:
        here = {model.ref for model in await store.models()}
        for number, ref in enumerate(names(count)):
            if ref in here:
                continue
            for path, content in files(number).items():
                (scratch / path).write_bytes(content)
            await store.add(Addition("directory", str(scratch), ref), lambda progress: None)
    finally:
        await store.close()
        await database.close()


def _carelessly(db: sqlite_utils.Database) -> None:
    """What a crash loses here is made again; waiting for the disk a thousand times tells nothing."""
    db.execute("commit")
    db.execute("pragma synchronous=off")
    db.execute("begin")
