"""The configurations that estimates are timed on: real ones where the shared data lie beside the checkout, else what
the classes assume."""

import json
from collections.abc import Sequence
from typing import Any

from heliosd.estimation.fields import class_defaults
from tests.bench.truth_rows import DIRECTORY

STAND_INS = (
    "llama", "qwen2", "qwen3", "qwen3_moe", "mistral", "mixtral", "gemma3_text", "gpt_oss", "deepseek_v2", "phi3",
    "olmo3", "glm4_moe", "granite", "falcon", "opt", "gpt2", "cohere2", "starcoder2", "jamba", "mamba2",
)  # fmt: skip


def texts() -> tuple[list[str], str]:
    """Configurations as JSON, and what they are."""
    found = [path.read_text(encoding="utf-8") for path in sorted((DIRECTORY / "configs").glob("*.json"))]
    if found:
        return found, f"{len(found)} published configurations"
    classes = class_defaults()
    made = [json.dumps({"model_type": name, **classes[name]}) for name in STAND_INS if name in classes]
    return made, f"{len(made)} configurations of class defaults"


def varied(given: Sequence[str], count: int) -> list[dict[str, Any]]:
    """`count` configurations of which no two are equal: vocabularies and lengths grow from one round to the next."""
    found = []
    for number in range(count):
        config = json.loads(given[number % len(given)])
        inner = config.get("text_config")
        part = inner if isinstance(inner, dict) and "vocab_size" in inner else config
        grown = 64 * (number // len(given))
        part["vocab_size"] = int(part.get("vocab_size") or 32_000) + grown
        part["max_position_embeddings"] = int(part.get("max_position_embeddings") or 4096) + grown
        found.append(config)
    return found
