"""Decoders with mixtures of experts and ordinary attention."""

from collections.abc import Mapping
from dataclasses import replace

from heliosd.estimation.families.assembly import LAYER, decoder
from heliosd.estimation.families.choice import between, dense_first, indices, one_dense, stepped
from heliosd.estimation.families.drafts import drafts_of, next_token
from heliosd.estimation.families.family import Family, Head
from heliosd.estimation.families.mlp import mixture, mlp
from heliosd.estimation.families.sizes import HEADS as QUERIES
from heliosd.estimation.families.sizes import (
    Heads,
    contradiction,
    divided,
    heads_of,
    hidden_of,
    layers_of,
    positive,
)
from heliosd.estimation.families.standard import DENSE, SPARSE, Sparse, Standard
from heliosd.estimation.fields import Fields
from heliosd.estimation.layout import Layout, Split, Tensor, experts, linear, norm

AFTER = ("post_attention_layernorm", "post_feedforward_layernorm")
BLOCK = "block_sparse_moe"
NARROW = ("moe_intermediate_size",)
WIDE = ("intermediate_size",)
DEEPSEEK = Sparse(width=NARROW, shared_count=("n_shared_experts", "num_shared_experts"))
"""Narrow experts, and shared ones that every token passes."""
GRANITE = Sparse(width=WIDE, where=BLOCK, router="router")
GLM = Standard(out_bias=False, mlp_bias=False, sparse=DEEPSEEK, kinds=one_dense)


def _gate(fields: Fields, layer: str, kind: str) -> tuple[Tensor, ...]:
    heads = heads_of(fields)
    return linear(f"{layer}.self_attn.gate_proj", heads.query * heads.dim, heads.hidden, Split.ROWS)


def _shared_mlp(fields: Fields, layer: str, kind: str) -> tuple[Tensor, ...]:
    """Granite's shared network, whose gate and up projection are one matrix in the checkpoint."""
    width = fields.whole("shared_intermediate_size", default=0)
    names = ("input_linear", "input_linear", "output_linear")
    return mlp(f"{layer}.shared_mlp", hidden_of(fields), width, names=names) if width else ()


def rounded_heads(fields: Fields) -> Heads:
    """Their class rounds down where the heads do not divide the hidden size, as they do not by default."""
    told = fields.explicit("head_dim") is not None
    return heads_of(fields, dim=None if told else max(1, hidden_of(fields) // positive(fields, *QUERIES)))


def glm4_moe(fields: Fields, head: Head) -> Layout:
    """GLM 4.5 to 4.7, with the layer that drafts the token after next."""
    style = replace(GLM, qk_norm="head" if fields.flag("use_qk_norm") else "", sizes=rounded_heads)
    layout = style(fields, head)
    count = drafts_of(fields)
    if head is not Head.VOCABULARY or not count:
        return layout
    heads = rounded_heads(fields)
    return replace(layout, drafts=next_token(layout.layers, count, heads.hidden, style.layer(fields, heads, SPARSE)))


def cohere2_moe(fields: Fields, head: Head) -> Layout:
    """Shared experts as wide as routed ones, the dense layers' width of their own, one norm in a layer."""
    style = Standard(
        mlp_bias=False, norms=("input_layernorm",), width=("prefix_dense_intermediate_size", "intermediate_size"),
        sparse=Sparse(width=WIDE, shared_count=("num_shared_experts",)), kinds=dense_first,
    )  # fmt: skip
    return style(fields, head)


def llama4(fields: Fields, head: Head) -> Layout:
    """Every `interleave_moe_layer_step`-th layer routes to experts beside a shared one; the others are wider."""
    layers, hidden = layers_of(fields), hidden_of(fields)
    sparse = set(indices(fields, "moe_layers"))
    if not isinstance(fields.explicit("moe_layers"), list):
        step = max(1, fields.whole("interleave_moe_layer_step", default=1))
        sparse = set(range(step - 1, layers, step))
    style, heads = Standard(mlp_bias=False), heads_of(fields)
    width = positive(fields, "intermediate_size")

    def layer(kind: str) -> tuple[Tensor, ...]:
        where = f"{LAYER}.feed_forward"
        if kind == SPARSE:
            count = positive(fields, "num_local_experts")
            feed = mixture(where, hidden, width, count, router="router") + mlp(f"{where}.shared_expert", hidden, width)
        else:
            feed = mlp(where, hidden, positive(fields, "intermediate_size_mlp"))
        norms = norm(f"{LAYER}.input_layernorm", hidden) + norm(f"{LAYER}.post_attention_layernorm", hidden)
        return style.attend(fields, heads) + feed + norms

    return decoder(fields, head, [SPARSE if index in sparse else DENSE for index in range(layers)], layer)


def jetmoe(fields: Fields, head: Head) -> Layout:
    """Queries and outputs are experts too; keys and values are shared by them."""
    layers, hidden = layers_of(fields), hidden_of(fields)
    kv = positive(fields, "num_key_value_heads")
    rows, count = kv * positive(fields, "kv_channels"), positive(fields, "num_local_experts")
    width = positive(fields, "intermediate_size")

    def layer(kind: str) -> tuple[Tensor, ...]:
        attend, feed = f"{LAYER}.self_attention", f"{LAYER}.mlp"
        return (
            *linear(f"{attend}.kv_proj", rows, hidden, Split.HEADS, heads=kv),
            *linear(f"{attend}.kv_proj", rows, hidden, Split.HEADS, heads=kv),
            experts(f"{attend}.experts.input_linear", rows, hidden, Split.ROWS, count),
            experts(f"{attend}.experts.output_linear", hidden, rows, Split.COLUMNS, count),
            *linear(f"{attend}.experts.router.layer", count, hidden),
            Tensor(f"{attend}.experts.bias", hidden),
            experts(f"{feed}.input_linear", width, hidden, Split.ROWS, count),
            experts(f"{feed}.input_linear", width, hidden, Split.ROWS, count),
            experts(f"{feed}.output_linear", hidden, width, Split.COLUMNS, count),
            *linear(f"{feed}.router.layer", count, hidden),
            Tensor(f"{feed}.bias", hidden),
            *norm(f"{LAYER}.input_layernorm", hidden),
            *norm(f"{LAYER}.post_attention_layernorm", hidden),
        )

    return decoder(fields, head, [SPARSE] * layers, layer)


def dbrx(fields: Fields, head: Head) -> Layout:
    """Everything under a block's `norm_attn_norm` and `ffn`; sizes of both in configurations of their own."""
    inner, feed = fields.part("attn_config"), fields.part("ffn_config")
    hidden, query = hidden_of(fields), positive(fields, "n_heads", "num_attention_heads")
    kv = inner.whole("kv_n_heads", default=1) if inner is not None else 1
    width = feed.whole("ffn_hidden_size", default=3584) if feed is not None else 3584
    count = feed.whole("moe_num_experts", default=4) if feed is not None else 4
    dim = divided(hidden, query, "the hidden size", "n_heads")
    if kv < 1 or query % kv:
        raise contradiction(f"{query} heads cannot share {kv} key-value heads evenly", "kv_n_heads")
    block = "transformer.blocks.{}"

    def layer(kind: str) -> tuple[Tensor, ...]:
        attend, mix = f"{block}.norm_attn_norm.attn", f"{block}.ffn"
        return (
            *linear(f"{attend}.Wqkv", hidden, hidden, Split.ROWS),
            *linear(f"{attend}.Wqkv", kv * dim, hidden, Split.HEADS, heads=kv),
            *linear(f"{attend}.Wqkv", kv * dim, hidden, Split.HEADS, heads=kv),
            *linear(f"{attend}.out_proj", hidden, hidden, Split.COLUMNS),
            *norm(f"{block}.norm_attn_norm.norm_1", hidden),
            *norm(f"{block}.norm_attn_norm.norm_2", hidden),
            *mixture(mix, hidden, width, count, router="router.layer", inside="experts.mlp", names=("w1", "v1", "w2")),
        )

    return decoder(
        fields, head, [SPARSE] * layers_of(fields), layer, prefix="transformer.", embedding="wte",
        final=norm("transformer.norm_f", hidden),
    )  # fmt: skip


FAMILIES: Mapping[str, Family] = {
    "afmoe": Standard(
        mlp_bias=False,
        qk_norm="head",
        extra=_gate,
        kinds=one_dense,
        norms=("input_layernorm", "post_attention_layernorm", "pre_mlp_layernorm", "post_mlp_layernorm"),
        sparse=Sparse(
            width=NARROW, shared_count=("num_shared_experts",), router="router.gate", correction="expert_bias"
        ),
    ),
    "aria_text": Standard(
        sparse=Sparse(
            count=("moe_num_experts",),
            width=WIDE,
            shared_count=("moe_num_shared_experts",),
            router="router",
            shared_bias="mlp_bias",
        ),
    ),
    "cohere2_moe": cohere2_moe,
    "dbrx": dbrx,
    "dots1": Standard(mlp_bias=False, qk_norm="head", sparse=DEEPSEEK, kinds=dense_first),
    "ernie4_5_moe": Standard(
        output_bias="use_bias",
        qkv_bias="use_bias",
        out_bias="use_bias",
        mlp_bias="use_bias",
        kinds=between,
        sparse=Sparse(
            count=("moe_num_experts",),
            width=NARROW,
            shared_count=("moe_num_shared_experts",),
            shared_bias="use_bias",
            correction="moe_statics.e_score_correction_bias",
        ),
    ),
    "exaone_moe": Standard(
        qkv_bias=False,
        out_bias=False,
        mlp_bias=False,
        qk_norm="head",
        kinds=one_dense,
        sparse=Sparse(width=NARROW, shared_count=("num_shared_experts",)),
    ),
    "flex_olmo": Standard(mlp_bias=False, qk_norm="whole", norms=AFTER, sparse=Sparse(width=WIDE)),
    "glm4_moe": glm4_moe,
    "gpt_oss": Standard(sinks=True, sparse=Sparse(width=WIDE, router="router", router_bias=True, bias=True)),
    "granitemoe": Standard(sparse=GRANITE),
    "granitemoe_swa": Standard(sinks=True, sparse=GRANITE, extra=_shared_mlp),
    "granitemoeshared": Standard(sparse=GRANITE, extra=_shared_mlp),
    "hunyuan_v1_moe": Standard(
        qk_norm="head",
        qk_norm_names=("query_layernorm", "key_layernorm"),
        sparse=Sparse(width=WIDE, router="gate.wg", shared_width=WIDE, shared="shared_mlp"),
    ),
    "hy_v3": Standard(qk_norm="head", sparse=replace(DEEPSEEK, shared_bias="mlp_bias"), kinds=one_dense),
    "jetmoe": jetmoe,
    "llama4_text": llama4,
    "mellum": Standard(mlp_bias=False, qk_norm="head", sparse=Sparse(width=NARROW), kinds=dense_first),
    "minimax_m2": Standard(qkv_bias=False, out_bias=False, qk_norm="whole", sparse=Sparse(width=WIDE, where=BLOCK)),
    "mixtral": Standard(
        qkv_bias=False, out_bias=False, sparse=Sparse(width=WIDE, where=BLOCK, names=("w1", "w3", "w2"))
    ),
    "olmoe": Standard(mlp_bias=False, qk_norm="whole", sparse=Sparse(width=WIDE)),
    "phimoe": Standard(
        norm_bias=True,
        output_bias="lm_head_bias",
        sparse=Sparse(width=WIDE, where=BLOCK, names=("w1", "w3", "w2")),
    ),
    "qwen2_moe": Standard(
        qkv_bias="qkv_bias",
        out_bias=False,
        mlp_bias=False,
        kinds=stepped,
        sparse=Sparse(
            width=NARROW,
            shared_width=("shared_expert_intermediate_size",),
            shared="shared_expert",
            shared_gate="shared_expert_gate",
        ),
    ),
    "qwen3_moe": Standard(mlp_bias=False, qk_norm="head", sparse=Sparse(width=NARROW), kinds=stepped),
    "solar_open": Standard(out_bias=False, sparse=DEEPSEEK),
}
