"""Ling and Ring, 2.5 and 3: latent attention closes each group of layers, the others attend linearly.

Generation 2.5 has lightning attention (a fixed decay, grouped norm, output gate), generation 3 Kimi's delta attention
with gates of full rank. Their classes are published with the models; the shapes here follow the engine's modules.
"""

from collections.abc import Mapping
from dataclasses import replace

from heliosd.estimation.families.assembly import LAYER, decoder
from heliosd.estimation.families.choice import dense_first
from heliosd.estimation.families.encoding import architecture_of
from heliosd.estimation.families.family import Family, Head
from heliosd.estimation.families.mamba import STATE_DTYPE, convolution
from heliosd.estimation.families.mamba_hybrids import FULL, STATE
from heliosd.estimation.families.mla import Latent, latent
from heliosd.estimation.families.mlp import mixture, mlp
from heliosd.estimation.families.sizes import divided, hidden_of, layers_of, positive
from heliosd.estimation.families.standard import SPARSE
from heliosd.estimation.fields import Fields
from heliosd.estimation.layout import Kind, Layout, Split, Tensor, linear, norm

WHERE = f"{LAYER}.attention"


def _ring(fields: Fields, head: Head) -> Layout:
    layers, hidden = layers_of(fields), hidden_of(fields)
    third = "V3" in architecture_of(fields)
    kinds = list(zip(_mixers(fields, layers, third), dense_first(fields, layers), strict=True))

    def layer(kind: tuple[str, str]) -> tuple[Tensor, ...]:
        mixer, feed = kind
        linear_part = _delta if third else _lightning
        return (
            *(_latent(fields, third) if mixer == FULL else linear_part(fields)),
            *(_experts(fields, third) if feed == SPARSE else _feed(fields)),
            *norm(f"{LAYER}.input_layernorm", hidden),
            *norm(f"{LAYER}.post_attention_layernorm", hidden),
        )

    return decoder(fields, head, kinds, layer, embedding="word_embeddings")


def _mixers(fields: Fields, layers: int, third: bool) -> list[str]:
    """The last layer of each group attends in full; generation 3 also the layers of an unfinished last group."""
    group = positive(fields, "layer_group_size", default=1)
    whole = layers // group * group if third else layers
    return [FULL if (index + 1) % group == 0 or index >= whole else STATE for index in range(layers)]


def _heads(fields: Fields) -> tuple[int, int]:
    """How many, and how wide; the hidden size divided where the width is not said."""
    heads = positive(fields, "num_attention_heads")
    if fields.explicit("head_dim") is not None:
        return heads, positive(fields, "head_dim")
    return heads, divided(hidden_of(fields), heads, "the hidden size", "num_attention_heads")


def _latent(fields: Fields, third: bool) -> tuple[Tensor, ...]:
    sizes = Latent(
        hidden=hidden_of(fields),
        heads=positive(fields, "num_attention_heads"),
        queries=fields.whole("q_lora_rank", default=0),
        keys=positive(fields, "kv_lora_rank", default=512),
        plain=fields.whole("qk_nope_head_dim", default=128),
        rotated=fields.whole("qk_rope_head_dim", default=64),
        value=positive(fields, "v_head_dim", default=128),
    )
    made = latent(WHERE, sizes)
    gate = fields.text("gated_attention_proj_granularity_type") if third else ""
    rows = {"head_wise": sizes.heads, "element_wise": sizes.heads * sizes.value}.get(gate, 0)
    return made + (linear(f"{WHERE}.g_proj", rows, sizes.hidden, Split.ROWS) if rows else ())


def _lightning(fields: Fields) -> tuple[Tensor, ...]:
    hidden, (heads, dim) = hidden_of(fields), _heads(fields)
    inner, bias = heads * dim, fields.flag("use_bias")
    normed = fields.flag("use_qk_norm")
    return (
        *linear(f"{WHERE}.query_key_value", 3 * inner, hidden, Split.ROWS, bias=bias or fields.flag("use_qkv_bias")),
        *(norm(f"{WHERE}.query_layernorm", dim) if normed else ()),
        *(norm(f"{WHERE}.key_layernorm", dim) if normed else ()),
        *linear(f"{WHERE}.g_proj", inner, hidden, Split.ROWS),
        Tensor(f"{WHERE}.g_norm.weight", inner, 1, Kind.PLAIN, Split.ROWS),
        *linear(f"{WHERE}.dense", hidden, inner, Split.COLUMNS, bias=bias),
    )


def _delta(fields: Fields) -> tuple[Tensor, ...]:
    hidden, (heads, dim) = hidden_of(fields), _heads(fields)
    inner, kernel = heads * dim, positive(fields, "short_conv_kernel_size", default=4)
    names = ("q_proj", "k_proj", "v_proj", "f_proj", "g_proj")
    return (
        *(tensor for name in names for tensor in linear(f"{WHERE}.{name}", inner, hidden, Split.ROWS)),
        *linear(f"{WHERE}.b_proj", heads, hidden, Split.ROWS),
        *(t for name in "qkv" for t in convolution(f"{WHERE}.{name}_conv1d", inner, kernel, dtype=STATE_DTYPE)),
        Tensor(f"{WHERE}.A_log", heads, 1, Kind.PLAIN, Split.ROWS, dtype=STATE_DTYPE),
        Tensor(f"{WHERE}.dt_bias", inner, 1, Kind.PLAIN, Split.ROWS, dtype=STATE_DTYPE),
        *norm(f"{WHERE}.o_norm", dim),
        *linear(f"{WHERE}.o_proj", hidden, inner, Split.COLUMNS),
    )


def _feed(fields: Fields) -> tuple[Tensor, ...]:
    return mlp(f"{LAYER}.mlp", hidden_of(fields), positive(fields, "intermediate_size"))


def _experts(fields: Fields, third: bool) -> tuple[Tensor, ...]:
    hidden, where = hidden_of(fields), f"{LAYER}.mlp"
    width, count = positive(fields, "moe_intermediate_size"), positive(fields, "num_experts")
    one = fields.whole("moe_shared_expert_intermediate_size", default=width)
    shared = one * fields.whole("num_shared_experts", default=0)
    corrects = third or fields.flag("moe_router_enable_expert_bias")
    exact = third or fields.text("router_dtype", default="fp32") == "fp32"
    (gate,) = linear(f"{where}.gate", count, hidden)
    return (
        replace(gate, dtype=STATE_DTYPE) if exact else gate,
        *mixture(where, hidden, width, count, router=""),
        *((Tensor(f"{where}.gate.expert_bias", count, dtype=STATE_DTYPE),) if corrects else ()),
        *(mlp(f"{where}.shared_experts", hidden, shared) if shared else ()),
    )


FAMILIES: Mapping[str, Family] = {"bailing_hybrid": _ring}
