"""Breaks configurations in every way that a hurried person, a broken tool or an attacker would."""

import copy
import random
from typing import Any

from heliosd.estimation.fields import class_defaults

Config = dict[str, Any]


def nested(depth: int) -> Config:
    found: Config = {}
    for _ in range(depth):
        found = {"a": found}
    return found


JUNK: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3, 7, 63, 1e12, 10**12, 10**18, -(10**9), 10**400, 2**40 - 1, 100_000, 1.5, -0.5,
    float("inf"), float("nan"), "", "x", "full_attention", "12 full + 36 sliding", "MMM*", "re:(a+)+$", "é" * 50,
    [], [1], [1, 2, 3], [None], [[1]], [{}], ["full_attention"], ["sliding_attention"] * 40, [0] * 100, [10**12] * 70,
    [1e12, "x", None, {}], [8] * 4096, ["re:(x+x+)+y", "re:[", "*" * 50, "model.layers.99999999999999999999.x", "a.*"],
    {}, {"a": 1}, {"rope_type": "linear", "factor": 1e300}, {"num_hidden_layers": 10**9}, nested(150),
)  # fmt: skip
ADDED = (
    "quantization_config", "text_config", "vision_config", "audio_config", "sliding_window", "num_experts",
    "kv_lora_rank", "layer_types", "rope_scaling", "num_key_value_heads", "head_dim", "model_type", "architectures",
    "per_layer_config", "block_configs", "index_topk", "num_nextn_predict_layers", "linear_attn_config",
    "mamba_n_heads", "compress_ratios", "num_kv_shared_layers", "attn_layer_period", "hybrid_override_pattern",
    "sliding_window_pattern", "torch_dtype", "id2label", "attn_layer_indices", "mtp_layers_block_type",
    "full_attn_idxs",
)  # fmt: skip


def mutated(config: Config, chance: random.Random) -> Config:
    """One to a dozen things wrong with it."""
    found = copy.deepcopy(config)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 6, 12))):
        part = chance.choice(_parts(found, 4))
        _break(part, chance)
        if chance.random() < 0.03:
            found["model_type"] = chance.choice(sorted(class_defaults()))
    return found


def _parts(config: Config, depth: int) -> list[Config]:
    inner = [value for value in config.values() if isinstance(value, dict)] if depth else []
    return [config, *(part for each in inner for part in _parts(each, depth - 1))]


def _break(part: Config, chance: random.Random) -> None:
    names, what = list(part), chance.random()
    lists = [name for name in names if isinstance(part[name], list) and part[name]]
    if not names or what < 0.1:
        part[chance.choice(ADDED)] = copy.deepcopy(chance.choice(JUNK))
    elif what < 0.3 and lists:
        name = chance.choice(lists)
        values = list(part[name])
        values[chance.randrange(len(values))] = copy.deepcopy(chance.choice(JUNK))
        part[name] = values if chance.random() < 0.7 else values[: chance.randrange(len(values) + 1)]
    elif what < 0.45:
        del part[chance.choice(names)]
    elif what < 0.9:
        part[chance.choice(names)] = copy.deepcopy(chance.choice(JUNK))
    else:
        name = chance.choice(names)
        if isinstance(part[name], int) and not isinstance(part[name], bool):
            part[name] = part[name] * chance.choice((0, 2, 3, 1000, 10**6)) + chance.choice((-1, 0, 1))
