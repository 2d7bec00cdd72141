"""Finds the family of a configuration by its `model_type`, then by its architecture's name."""

import functools
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from heliosd.estimation.families.family import Family, Head
from heliosd.estimation.fields import Fields
from heliosd.estimation.layout import Layout


@functools.cache
def families() -> Mapping[str, Family]:
    """All families by `model_type`."""
    from heliosd.estimation.families import decoders, encoders, hybrids, multimodal, seq2seq

    found: dict[str, Family] = {}
    for module in (decoders, hybrids, encoders, seq2seq, multimodal):
        twice = found.keys() & module.FAMILIES.keys()
        if twice:
            raise AssertionError(f"two families claim {sorted(twice)}")
        found.update(module.FAMILIES)
    return found


def layout_of(config: Mapping[str, Any]) -> Layout | None:
    """The tensors of the model that `config` describes; None when it does not tell enough.

    An architecture that no family knows is taken for a plain gated decoder, and `Layout.guessed` says so. Raises
    BadRequest, naming the field, when the configuration contradicts itself.
    """
    fields = Fields(config)
    family = families().get(fields.model_type)
    if family is not None:
        return family(fields, head_of(config))
    return _like_llama(fields, head_of(config))


def _like_llama(fields: Fields, head: Head) -> Layout | None:
    from heliosd.estimation.families.standard import Sparse, Standard
    from heliosd.estimation.families.vision import unknown_encoders

    text = fields.language()
    needed = (
        ("num_hidden_layers", "n_layer"),
        ("hidden_size", "n_embd"),
        ("vocab_size",),
        ("num_attention_heads", "n_head"),
    )
    if not all(text.optional(*names) for names in needed):
        return None
    experts = text.optional("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
    found = Standard(sparse=Sparse(shared_count=("n_shared_experts",)) if experts else None)(text, head)
    guessed = (*found.guessed, f"layers of {fields.model_type or 'an unnamed architecture'}")
    towers = unknown_encoders(fields, text.whole("hidden_size", "n_embd"))
    return replace(found, towers=towers, guessed=(*guessed, "encoders") if towers else guessed)


_GENERATING = ("LMHeadModel", "InternVLChatModel", "ChatGLMModel", "UltravoxModel", "NVLM_D_Model", "Qwen2_5OmniModel")
"""Endings of names that generate though they end like those that only encode."""


def head_of(config: Mapping[str, Any]) -> Head:
    """By the ending of the first architecture's name; a vocabulary where there is none."""
    names = config.get("architectures")
    name = names[0] if isinstance(names, list) and names and isinstance(names[0], str) else ""
    if name.endswith("ForSequenceClassification"):
        return Head.CLASSES
    if name.endswith("Model") and not name.endswith(_GENERATING):
        return Head.NONE
    return Head.VOCABULARY
