"""ZAYA: attention over a compressed, convolved space, experts behind a router with a memory, scaled residuals."""

from collections.abc import Mapping

from heliosd.estimation.families.assembly import LAYER, decoder
from heliosd.estimation.families.family import Family, Head
from heliosd.estimation.families.mamba import convolution
from heliosd.estimation.families.mlp import mixture
from heliosd.estimation.families.sizes import divided, heads_of, hidden_of, layers_of, positive
from heliosd.estimation.fields import Fields
from heliosd.estimation.layout import Kind, Layout, Split, Tensor, linear, norm


def _family(fields: Fields, head: Head) -> Layout:
    hidden, layers = hidden_of(fields), layers_of(fields)

    def layer(first: bool) -> tuple[Tensor, ...]:
        return (
            *_attention(fields),
            *_experts(fields, remembers=not first),
            *norm(f"{LAYER}.input_layernorm", hidden),
            *norm(f"{LAYER}.post_attention_layernorm", hidden),
            *_scales(f"{LAYER}.post_attention_residual_scale", hidden),
            *_scales(f"{LAYER}.post_mlp_residual_scale", hidden),
        )

    entry = (
        Tensor("model.input_hidden_states_scale", hidden),
        Tensor("model.input_hidden_states_bias", hidden),
    )
    kinds = [index == 0 for index in range(layers)]
    return decoder(fields, head, kinds, layer, also_first=entry, output_bias=fields.flag("lm_head_bias"))


def _attention(fields: Fields) -> tuple[Tensor, ...]:
    """Values come from this token and from the one before, half each; queries and keys pass two convolutions."""
    heads, bias, where = heads_of(fields), fields.flag("attention_bias"), f"{LAYER}.self_attn"
    queries, keys = heads.query * heads.dim, heads.kv * heads.dim
    half = divided(keys, 2, "the width of the values", "head_dim")
    both, inside = queries + keys, f"{where}.qkv_proj"
    wide = positive(fields, "cca_time1") * heads.dim
    return (
        *linear(f"{inside}.q_proj", queries, heads.hidden, Split.ROWS, bias=bias),
        *linear(f"{inside}.k_proj", keys, heads.hidden, Split.HEADS, bias=bias, heads=heads.kv),
        *linear(f"{inside}.v_proj_current", half, heads.hidden, Split.HEADS, bias=bias, heads=heads.kv),
        *linear(f"{inside}.v_proj_delayed", half, heads.hidden, Split.HEADS, bias=bias, heads=heads.kv),
        *convolution(f"{inside}.conv_qk_depthwise", both, positive(fields, "cca_time0"), bias=True),
        *convolution(f"{inside}.conv_qk_grouped", both, wide, bias=True),
        Tensor(f"{where}.qk_norm.temp", heads.kv, 1, Kind.PLAIN, Split.HEADS, heads=heads.kv),
        *linear(f"{where}.o_proj", heads.hidden, queries, Split.COLUMNS, bias=bias),
    )


def _experts(fields: Fields, *, remembers: bool) -> tuple[Tensor, ...]:
    """The router is a small network; one of its classes skips the experts."""
    hidden, narrow, gate = hidden_of(fields), positive(fields, "router_hidden_size"), f"{LAYER}.mlp.gate"
    width, count = positive(fields, "moe_intermediate_size"), positive(fields, "num_experts")
    return (
        *linear(f"{gate}.down_proj", narrow, hidden, bias=True),
        *norm(f"{gate}.router_mlp.norm", narrow),
        *linear(f"{gate}.router_mlp.fc1", narrow, narrow, bias=True),
        *linear(f"{gate}.router_mlp.fc2", narrow, narrow, bias=True),
        *linear(f"{gate}.router_mlp.out_proj", count + 1, narrow),
        *((Tensor(f"{gate}.router_states_scale", narrow),) if remembers else ()),
        *mixture(f"{LAYER}.mlp", hidden, width, count, router=""),
    )


def _scales(where: str, hidden: int) -> tuple[Tensor, ...]:
    names = ("hidden_states_scale", "hidden_states_bias", "residual_scale", "residual_bias")
    return tuple(Tensor(f"{where}.{name}", hidden) for name in names)


FAMILIES: Mapping[str, Family] = {"zaya": _family}
