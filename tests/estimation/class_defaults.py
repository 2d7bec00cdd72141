"""Writes `heliosd/estimation/class_defaults.json`: what each configuration class of `transformers` assumes.

`python -m tests.estimation.class_defaults` after a change of the engine's release; a test compares.
"""

import json
from pathlib import Path
from typing import Any

import heliosd.estimation

TARGET = Path(heliosd.estimation.__file__).with_name("class_defaults.json")
_NOISE = (
    "dropout", "token_id", "_act", "activation", "initializer", "transformers_version", "label", "_eps", "dtype",
    "output_attentions", "output_hidden", "return_dict", "problem_type", "chunk_size_feed", "_name_or_path",
    "architectures", "_coef", "use_cache", "rope_theta", "_loss", "_std", "_prob", "scale_", "clip",
)  # fmt: skip
_MAX_LIST = 16
"""Longer ones tell layer by layer what a pattern gives, and hold for the class's own number of layers only."""
_KEPT = ("num_hidden_layers", "v_head_dim")
"""Derived in one class or another, and better than nothing where a configuration is silent."""
_PER_LAYER = ("layer_types", "layers_block_type", "mlp_layer_types", "block_types")


def useful(config: dict[str, Any]) -> dict[str, Any]:
    """Sizes, counts, switches and names; no probabilities, token ids or labels."""
    kept: dict[str, Any] = {}
    for name, value in sorted(config.items()):
        if name in _PER_LAYER or (name != "mamba_ssm_dtype" and any(noise in name for noise in _NOISE)):
            continue
        if isinstance(value, dict):
            inner = useful(value)
            if "model_type" in inner:
                kept[name] = inner
        elif isinstance(value, bool | int | str):
            kept[name] = value
        elif isinstance(value, list | tuple) and 0 < len(value) <= _MAX_LIST:
            flat = [list(item) if isinstance(item, list | tuple) else item for item in value]
            if all(isinstance(item, bool | int | str | list) for item in flat):
                kept[name] = flat
    return kept


def collect() -> dict[str, dict[str, Any]]:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING, CONFIG_MAPPING_NAMES

    found: dict[str, dict[str, Any]] = {}
    for model_type in CONFIG_MAPPING_NAMES:
        try:
            made = useful(CONFIG_MAPPING[model_type]().to_dict())
        except Exception:  # a class that needs its parts given, or a library that is not here, has no defaults to tell
            continue
        for name in derived(CONFIG_MAPPING[model_type], made):
            made.pop(name, None)
        found[model_type] = made
    return found


def derived(cls: Any, made: dict[str, Any]) -> set[str]:
    """Fields that the class calculates from others (`head_dim` from the hidden size): they move when another does.

    They hold for the class's own sizes only, so they are no defaults.
    """
    moved: set[str] = set()
    for name, value in made.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            continue
        try:
            other = useful(cls(**{name: value * 2}).to_dict())
        except Exception:  # the class refuses the doubled size: it says nothing of what is derived
            continue
        moved |= {key for key, before in made.items() if key != name and other.get(key, before) != before}
    return {name for name in moved if not isinstance(made[name], dict) and name not in _KEPT}


def render(found: dict[str, dict[str, Any]]) -> str:
    rows = (f"{json.dumps(name)}: {json.dumps(found[name], separators=(',', ':'))}" for name in sorted(found))
    return "{\n" + ",\n".join(rows) + "\n}\n"


if __name__ == "__main__":
    TARGET.write_text(render(collect()), encoding="utf-8")
