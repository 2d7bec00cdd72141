"""How many KV heads a layer has, and how large: under the names in use, with what a class derives when it is silent."""

from collections.abc import Mapping
from typing import Any

from heliosd.estimation.fields import Fields
from heliosd.estimation.kv_kinds import Keeps

CONSTANT_HEAD_DIM = frozenset({"qwen3", "qwen3_moe", "qwen3_next", "gpt_oss", "smollm3", "ministral3", "glm4_moe"})
"""Classes whose default head_dim holds for any hidden size, though it equals the quotient of their defaults."""
NO_LATENT = frozenset({"minicpm3"})
"""Low-rank projections, but ordinary keys and values in the cache."""
KV_HEADS = (
    "n_head_kv", "num_kv_heads", "num_key_value_heads", "multi_query_group_num", "num_attention_groups", "kv_n_heads",
    "n_kv_heads",
)  # fmt: skip
HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_attention_heads", "encoder_attention_heads")
HEAD_DIM = ("head_dim", "hidden_size_per_head", "attention_head_dim", "kv_channels")
HIDDEN = ("hidden_size", "n_embd", "d_model", "model_dim")


def head_sizes(text: Fields, kind: Keeps, listed: int | None) -> tuple[int, int, int]:
    """(KV heads in all, head_dim of keys, of values) of a layer of this kind."""
    heads = _heads(text)
    kv_heads = listed if listed is not None else _kv_heads(text, heads)
    dim = _head_dim(text, heads)
    dim_v = text.whole("v_head_dim", default=0) if text.given("v_head_dim") else 0
    if text.model_type in NO_LATENT:
        dim, kv_heads, dim_v = text.whole("qk_nope_head_dim") + text.whole("qk_rope_head_dim"), heads, 0
    if kind is Keeps.SLIDING:
        kv_heads = text.optional("swa_num_key_value_heads") or kv_heads
        dim = text.optional("swa_head_dim") or dim
        dim_v = text.optional("swa_v_head_dim") or dim_v
    elif text.get("global_head_dim") is not None:
        dim = text.whole("global_head_dim")
        if text.flag("attention_k_eq_v"):
            kv_heads = text.optional("num_global_key_value_heads") or kv_heads
    elif text.model_type.startswith("gemma4") and not text.given("per_layer_config"):
        dim = 512
    return kv_heads, dim, dim_v or dim


def _heads(text: Fields) -> int:
    first = ("decoder_attention_heads",) if text.flag("is_encoder_decoder") else ()
    return text.whole(*first, *HEADS, default=0) or 1


def _kv_heads(text: Fields, heads: int) -> int:
    nested = text.get("attn_config")
    if isinstance(nested, Mapping) and isinstance(nested.get("kv_n_heads"), int):
        return int(nested["kv_n_heads"])
    if text.model_type in ("falcon", "gpt_bigcode", "RefinedWeb", "RefinedWebModel"):
        if text.flag("multi_query") and not text.flag("new_decoder_architecture"):
            return 1
        if text.model_type == "gpt_bigcode":
            return heads
    if text.null(*KV_HEADS):
        return heads
    if text.given(*KV_HEADS) and not isinstance(text.get(*KV_HEADS), list | tuple):
        return text.whole(*KV_HEADS, default=heads) or heads
    defaults = Fields({}, text.model_type)
    usual = defaults.get(*KV_HEADS)
    # A default that repeats the default number of heads means "as many as heads".
    return usual if isinstance(usual, int) and usual != defaults.get(*HEADS) and usual > 0 else heads


def _head_dim(text: Fields, heads: int) -> int:
    hidden = text.whole(*HIDDEN, default=0)
    if text.given(*HEAD_DIM) and not text.null(*HEAD_DIM):
        given = text.optional(*HEAD_DIM)
        if given:
            return given
    defaults = Fields({}, text.model_type)
    usual = defaults.get("head_dim", "attention_head_dim")
    if isinstance(usual, int) and usual > 0:
        quotient = (defaults.get(*HIDDEN) or 0) // (defaults.get(*HEADS) or 1)
        if (usual != quotient and not text.null(*HEAD_DIM)) or text.model_type in CONSTANT_HEAD_DIM or not hidden:
            return usual
    return hidden // heads


def single_layers(text: Fields) -> dict[int, tuple[int | None, int | None]]:
    """(KV heads, head_dim) of single layers where they differ from the model's: `{"05": {"head_dim": 512}}`."""
    found = {}
    listed = text.get("per_layer_config")
    for place, sizes in listed.items() if isinstance(listed, Mapping) else ():
        if isinstance(sizes, Mapping) and str(place).isdigit():
            own = Fields(sizes)
            found[int(place)] = (own.optional("num_key_value_heads"), own.optional("head_dim"))
    return found


def listed_heads(text: Fields) -> tuple[list[Any], ...]:
    """KV heads given layer by layer; 0 for a layer without attention."""
    found = [text.items(name) for name in (*KV_HEADS, "num_key_value_heads_per_layer")]
    blocks = text.items("block_configs")
    if blocks:
        found.append([_block_heads(block, _heads(text)) for block in blocks])
    return tuple(values for values in found if values)


def _block_heads(block: Any, heads: int) -> int:
    attention = block.get("attention") if isinstance(block, Mapping) else None
    shared = attention.get("n_heads_in_group") if isinstance(attention, Mapping) else None
    return heads // shared if isinstance(shared, int) and shared > 0 else 0
