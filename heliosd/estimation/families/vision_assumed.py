"""What released models have where a configuration written by hand says nothing: encoders, and Gemma 4's switches.

Class defaults describe the smallest model of a family or none at all; these describe the published checkpoints. They
count only for what is absent; a null is a statement.
"""

from collections.abc import Mapping
from typing import Any

from heliosd.estimation.families.sizes import hidden_of
from heliosd.estimation.fields import Fields

_SO400M = {
    "model_type": "siglip_vision_model",
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "patch_size": 14,
    "vision_use_head": False,
}
ENCODERS: Mapping[tuple[str, str], Mapping[str, Any]] = {
    ("gemma3", "vision_config"): {**_SO400M, "image_size": 896},
    ("shieldgemma2", "vision_config"): {**_SO400M, "image_size": 896},
    ("cohere2_vision", "vision_config"): {**_SO400M, "patch_size": 16, "image_size": 512},
    ("aya_vision", "vision_config"): {**_SO400M, "image_size": 364},
    ("llama4", "vision_config"): {
        "hidden_size": 1408,
        "intermediate_size": 5632,
        "num_hidden_layers": 34,
        "image_size": 336,
        "vision_output_dim": 4096,
    },
    ("mllama", "vision_config"): {"image_size": 560},
    ("qwen2_5_vl", "vision_config"): {"hidden_size": 1280, "intermediate_size": 3420, "depth": 32, "num_heads": 16},
    ("qwen2_5_omni", "vision_config"): {"hidden_size": 1280, "intermediate_size": 3420, "depth": 32, "num_heads": 16},
}
"""Encoders that every released model of a class has."""
GEMMA4_LARGE = {
    "model_type": "gemma4_vision",
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "head_dim": 72,
}
_SMALL = 2560
"""The hidden size of the largest Gemma 4 that hears and has embeddings for each layer."""


def gemma4_language(fields: Fields, text: Fields) -> Fields:
    """The language part of a configuration that lists its sizes at the top: the large models have no embeddings for
    each layer, and who names a number of experts has them. Later releases save the full layers' heads in
    `per_layer_config`, by the layer's number; these are read as if they were told for all of them."""
    layers = text.explicit("per_layer_config")
    full = next((one for one in layers.values() if isinstance(one, Mapping)), {}) if isinstance(layers, Mapping) else {}
    for ours, theirs in (("global_head_dim", "head_dim"), ("num_global_key_value_heads", "num_key_value_heads")):
        if text.explicit(ours) is None and full.get(theirs) is not None:
            text = text.changed(**{ours: full[theirs]})
    if fields.given("text_config"):
        return text
    if hidden_of(text) > _SMALL and not text.given("hidden_size_per_layer_input"):
        text = text.changed(hidden_size_per_layer_input=0)
    if text.explicit("num_experts") and not text.given("enable_moe_block"):
        text = text.changed(enable_moe_block=True)
    return text


def gemma4_encoders(fields: Fields, text: int) -> Fields:
    """The configuration with the encoders of the released models where it is silent on them."""
    if not fields.given("vision_config"):
        large = text > _SMALL
        fields = fields.changed(vision_config=GEMMA4_LARGE if large else {"model_type": "gemma4_vision"})
        if not large and not fields.given("audio_config"):
            fields = fields.changed(audio_config={"model_type": "gemma4_audio"})
    return fields
