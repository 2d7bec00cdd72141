"""Mixtures of experts whose layers differ in their attention too: heads, sinks and indexers by layer."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from heliosd.estimation.families.assembly import LAYER, decoder
from heliosd.estimation.families.attention import attention
from heliosd.estimation.families.choice import dense_first, listed, one_dense
from heliosd.estimation.families.family import Family, Head
from heliosd.estimation.families.sizes import contradiction, heads_of, hidden_of, layers_of, positive
from heliosd.estimation.families.standard import Sparse, Standard
from heliosd.estimation.fields import Fields
from heliosd.estimation.layout import Layout, Split, Tensor, linear, norm

WIDE = ("intermediate_size",)
NARROW = ("moe_intermediate_size",)


def laguna(fields: Fields, head: Head) -> Layout:
    """Heads differ from layer to layer and are gated, each by one number or each element of its own."""
    layers = layers_of(fields)
    feeds = one_dense(fields, layers)
    per_layer = fields.items("num_attention_heads_per_layer")
    if per_layer and (len(per_layer) < layers or not all(isinstance(one, int) and one > 0 for one in per_layer)):
        raise contradiction("it does not tell the heads of each layer", "num_attention_heads_per_layer")
    usual = heads_of(fields)
    style = Standard(
        mlp_bias=False, qk_norm="head",
        sparse=Sparse(
            width=NARROW, shared_width=("shared_expert_intermediate_size",), correction="gate.e_score_correction_bias"
        ),
    )  # fmt: skip
    told = fields.get("gating")
    whole_gate = not (told is True or told == "per-head" or told is None)

    def layer(kind: tuple[str, int]) -> tuple[Tensor, ...]:
        feed, query = kind
        if query % usual.kv:
            raise contradiction(f"{query} heads cannot share {usual.kv} evenly", "num_attention_heads_per_layer")
        heads = replace(usual, query=query)
        gate = linear(f"{LAYER}.self_attn.g_proj", query * heads.dim if whole_gate else query, heads.hidden, Split.ROWS)
        return style.layer(fields, heads, feed) + gate

    queries = per_layer[:layers] or [usual.query] * layers
    return decoder(fields, head, list(zip(feeds, queries, strict=True)), layer)


def mimo_v2(fields: Fields, head: Head) -> Layout:
    """Full and sliding layers with heads of their own; values narrower than keys; sinks where the window slides."""
    layers = layers_of(fields)
    feeds = one_dense(fields, layers)
    windows = _sliding(fields, layers)
    usual = replace(heads_of(fields), value_dim=positive(fields, "v_head_dim"))
    sliding = replace(
        usual,
        query=fields.whole("swa_num_attention_heads", default=usual.query),
        kv=fields.whole("swa_num_key_value_heads", default=2 * usual.kv),
        dim=fields.whole("swa_head_dim", default=usual.dim),
        value_dim=fields.whole("swa_v_head_dim", default=usual.value),
    )
    style = Standard(mlp_bias=False, sparse=Sparse(width=NARROW, shared_count=("n_shared_experts",)))

    def layer(kind: tuple[str, bool]) -> tuple[Tensor, ...]:
        feed, slides = kind
        sinks = fields.flag("add_swa_attention_sink_bias" if slides else "add_full_attention_sink_bias", default=slides)
        return (
            *attention(
                f"{LAYER}.self_attn", sliding if slides else usual, qkv_bias=fields.flag("attention_bias"), sinks=sinks
            ),
            *style.feed(fields, feed),
            *norm(f"{LAYER}.input_layernorm", usual.hidden),
            *norm(f"{LAYER}.post_attention_layernorm", usual.hidden),
        )

    return decoder(fields, head, list(zip(feeds, windows, strict=True)), layer)


def _sliding(fields: Fields, layers: int) -> Sequence[bool]:
    """Which layers of MiMo V2 slide: by name, by `hybrid_layer_pattern` of ones and zeros, or all but the first and
    every sixth."""
    told = listed(fields, layers, "layer_types")
    if told is not None:
        return [word == "sliding_attention" for word in told]
    pattern = fields.items("hybrid_layer_pattern")
    if pattern:
        if len(pattern) < layers:
            raise contradiction(f"it tells {len(pattern)} layers of {layers}", "hybrid_layer_pattern")
        return [bool(one) for one in pattern[:layers]]
    return [index > 0 and (index + 1) % 6 != 0 for index in range(layers)]


def minimax_m3(fields: Fields, head: Head) -> Layout:
    """Norms of each head; layers with sparse attention choose their tokens by an indexer of their own."""
    layers, hidden = layers_of(fields), hidden_of(fields)
    feeds = dense_first(fields, layers)
    sparse = fields.part("sparse_attention_config")
    told = listed(fields, layers, "layer_types")
    frequency = sparse.items("sparse_attention_freq") if sparse is not None else []
    if told is not None:
        indexed = [word == "minimax_m3_sparse" for word in told]
    elif frequency:
        if len(frequency) < layers:
            raise contradiction(f"it tells {len(frequency)} layers of {layers}", "sparse_attention_freq")
        indexed = [bool(one) for one in frequency[:layers]]
    else:
        indexed = [False] * layers
    inner = sparse if sparse is not None else fields
    count = inner.whole("sparse_num_index_heads", default=fields.whole("index_n_heads", default=4))
    dim = inner.whole("sparse_index_dim", default=fields.whole("index_head_dim", default=128))
    style = Standard(
        qkv_bias=False, out_bias=False, mlp_bias=False, qk_norm="head", width=("dense_intermediate_size",),
        sparse=Sparse(width=WIDE, shared_width=("shared_intermediate_size",)),
    )  # fmt: skip
    heads = heads_of(fields)

    def layer(kind: tuple[str, bool]) -> tuple[Tensor, ...]:
        feed, has_indexer = kind
        where = f"{LAYER}.self_attn.indexer"
        more: tuple[Tensor, ...] = ()
        if has_indexer:
            more = (
                *linear(f"{where}.q_proj", count * dim, hidden),
                *linear(f"{where}.k_proj", dim, hidden),
                *norm(f"{where}.q_norm", dim),
                *norm(f"{where}.k_norm", dim),
            )
        return style.layer(fields, heads, feed) + more

    return decoder(fields, head, list(zip(feeds, indexed, strict=True)), layer)


FAMILIES: Mapping[str, Family] = {
    "laguna": laguna,
    "mimo_v2_flash": mimo_v2,
    "minimax_m3": minimax_m3,
    "minimax_m3_vl_text": minimax_m3,
}
