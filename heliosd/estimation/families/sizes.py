"""Sizes that every family reads, checked: layers, heads, labels. A contradiction names its field.

Class defaults hold for the class's own other sizes only where the class derives them (`head_dim` from the hidden size,
`num_key_value_heads` from the heads), so those two are read here and not with `Fields.get`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from heliosd.errors import BadRequest
from heliosd.estimation.fields import Fields, class_defaults

MOST_LAYERS = 4096
"""Real models have a few hundred at most; a configuration beyond this is refused before anything is built for it."""
HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads")
KV_HEADS = ("num_key_value_heads", "num_kv_heads", "n_head_kv", "multi_query_group_num")
HIDDEN = ("hidden_size", "n_embd", "d_model")
LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
WIDTH = ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size", "d_ff")
# fmt: off
_FIXED_HEAD_DIM = frozenset((
    "afmoe", "canary_decoder", "cohere2_moe", "cosmos3_edge_text", "cwm", "dia_decoder", "gemma3n_text",
    "gemma4_vision", "glm", "glm4", "helium", "higgs_audio_v2", "hrm_text", "kosmos_2_5_vision_model", "llama4_text",
    "ministral3", "nemotron_h", "neomme", "pe_audio_encoder", "qwen2_5_omni_dit", "qwen2_5_omni_talker", "qwen3",
    "qwen3_5_text", "qwen3_vl_text",
))
# fmt: on
"""Classes whose default width of a head is a constant that happens to equal hidden size / heads."""


def contradiction(why: str, param: str) -> BadRequest:
    """The error for a configuration that cannot be: `raise contradiction("it has no layers", "num_hidden_layers")`."""
    return BadRequest(f"cannot read the configuration: {why}", code="bad_config", param=param)


def positive(fields: Fields, *names: str, default: int | None = None) -> int:
    """A count or size that must not be zero, under the first name that is there."""
    value = fields.whole(*names, default=default)
    if value < 1:
        raise contradiction(f"{_said(fields, names)} is 0", _said(fields, names))
    return value


def layers_of(fields: Fields, *names: str) -> int:
    """How many layers the decoder has: 1 to MOST_LAYERS."""
    names = names or LAYERS
    count = positive(fields, *names)
    if count > MOST_LAYERS:
        raise contradiction(f"{count} layers is more than any model has ({MOST_LAYERS})", _said(fields, names))
    return count


def hidden_of(fields: Fields) -> int:
    return positive(fields, *HIDDEN)


def divided(whole: int, parts: int, what: str, param: str) -> int:
    """`whole / parts`; raises BadRequest naming `param` when that leaves a rest."""
    if parts < 1 or whole % parts:
        raise contradiction(f"{what} {whole} does not divide by {parts}", param)
    return whole // parts


@dataclass(frozen=True, slots=True)
class Heads:
    """Attention's sizes: `query` heads share `kv` key-value heads, each `dim` wide (`value_dim` for values)."""

    hidden: int
    query: int
    kv: int
    dim: int
    value_dim: int = 0
    """0: as wide as `dim`."""

    @property
    def value(self) -> int:
        return self.value_dim or self.dim


def heads_of(fields: Fields, *, dim: int | None = None, kv: int | None = None) -> Heads:
    """From `hidden_size`, `num_attention_heads`, `num_key_value_heads`, `head_dim` under their usual names.

    `dim` and `kv` override what the fields say. Without `num_key_value_heads` every head has its own keys and values;
    without `head_dim` the heads divide the hidden size. Raises BadRequest when they do not divide.
    """
    hidden = hidden_of(fields)
    query = positive(fields, *HEADS)
    shared = kv if kv is not None else kv_heads_of(fields, query)
    if shared < 1 or query % shared:
        raise contradiction(f"{query} heads cannot share {shared} key-value heads evenly", _said(fields, KV_HEADS))
    return Heads(hidden, query, shared, dim if dim is not None else head_dim_of(fields, hidden, query))


def kv_heads_of(fields: Fields, query: int) -> int:
    """Explicit; else the class's own number where it groups heads by default, else as many as `query`."""
    if fields.explicit(*KV_HEADS) is not None:
        return positive(fields, *KV_HEADS)
    own = class_defaults().get(fields.model_type, {})
    kv, heads = _first(own, KV_HEADS), _first(own, HEADS)
    return query if kv is None or kv == heads else int(kv)


def head_dim_of(fields: Fields, hidden: int, query: int) -> int:
    """Explicit; else the class's constant where it has one, else `hidden / query`."""
    if fields.explicit("head_dim") is not None:
        return positive(fields, "head_dim")
    own = class_defaults().get(fields.model_type, {})
    constant, size, heads = own.get("head_dim"), _first(own, HIDDEN), _first(own, HEADS)
    fixed = fields.model_type in _FIXED_HEAD_DIM or not heads or not size or constant != size // heads
    if constant and fixed:
        return int(constant)
    return divided(hidden, query, "the hidden size", "num_attention_heads")


def labels_of(fields: Fields) -> int:
    """Classes of a score head: `num_labels`, else the entries of `id2label`, else the two that are assumed."""
    labels = fields.get("id2label")
    if isinstance(labels, dict) and labels:
        return len(labels)
    return positive(fields, "num_labels", default=2)


def _first(own: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    found = next((own[name] for name in names if own.get(name) is not None), None)
    return found if isinstance(found, int) else None


def _said(fields: Fields, names: tuple[str, ...]) -> str:
    return next((name for name in names if fields.given(name)), names[0])
