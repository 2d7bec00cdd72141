"""Recurrences and short convolutions: LFM2, RecurrentGemma, RWKV, xLSTM."""

from collections.abc import Mapping

from heliosd.estimation.families.assembly import LAYER, decoder
from heliosd.estimation.families.attention import attention
from heliosd.estimation.families.choice import dense_first, indices
from heliosd.estimation.families.family import Family, Head
from heliosd.estimation.families.mamba import STATE_DTYPE, convolution
from heliosd.estimation.families.mamba_hybrids import FULL, told
from heliosd.estimation.families.mlp import mixture, mlp
from heliosd.estimation.families.sizes import Heads, contradiction, divided, heads_of, hidden_of, layers_of, positive
from heliosd.estimation.families.standard import SPARSE
from heliosd.estimation.fields import Fields
from heliosd.estimation.layout import Kind, Layout, Split, Tensor, linear, norm

CONV = "conv"
_LFM_NAMES = ("w1", "w3", "w2")
_LARGEST_FACTOR = 1024
"""Of a width by another; real ones are below ten."""


def _lfm(*, sparse: bool) -> Family:
    """A gated short convolution in most layers, attention in the others."""

    def family(fields: Fields, head: Head) -> Layout:
        layers, hidden = layers_of(fields), hidden_of(fields)
        feeds = dense_first(fields, layers) if sparse else ["dense"] * layers
        kinds = list(zip(_lfm_kinds(fields, layers), feeds, strict=True))

        def layer(kind: tuple[str, str]) -> tuple[Tensor, ...]:
            mixer, feed = kind
            return (
                *(_lfm_attention(fields) if mixer == FULL else _short_conv(fields)),
                *(_lfm_experts(fields) if feed == SPARSE else _lfm_feed(fields, adjusted=not sparse)),
                *norm(f"{LAYER}.operator_norm", hidden),
                *norm(f"{LAYER}.ffn_norm", hidden),
            )

        final = norm("model.embedding_norm", hidden)
        told_tied = fields.explicit("tie_embedding")
        tied = None if told_tied is None else bool(told_tied)
        return decoder(fields, head, kinds, layer, final=final, tied=tied)

    return family


def _lfm_kinds(fields: Fields, layers: int) -> list[str]:
    words = told(fields, layers)
    if words is not None:
        return words
    attending = fields.explicit("full_attn_idxs")
    chosen = indices(fields, "full_attn_idxs") if isinstance(attending, list) else set(range(layers))
    return [FULL if index in chosen else CONV for index in range(layers)]


def _lfm_attention(fields: Fields) -> tuple[Tensor, ...]:
    names = ("q_proj", "k_proj", "v_proj", "out_proj")
    norms = ("q_layernorm", "k_layernorm")
    return attention(f"{LAYER}.self_attn", heads_of(fields), norm_per_head=True, names=names, norms=norms)


def _short_conv(fields: Fields) -> tuple[Tensor, ...]:
    """One projection makes the input and both gates; the convolution is depthwise."""
    hidden, bias, where = hidden_of(fields), fields.flag("conv_bias"), f"{LAYER}.conv"
    return (
        *linear(f"{where}.in_proj", 3 * hidden, hidden, Split.ROWS, bias=bias),
        *convolution(f"{where}.conv", hidden, positive(fields, "conv_L_cache"), bias=bias),
        *linear(f"{where}.out_proj", hidden, hidden, Split.COLUMNS, bias=bias),
    )


def _lfm_feed(fields: Fields, *, adjusted: bool) -> tuple[Tensor, ...]:
    """Two thirds of the width that is said, times a factor, rounded up; or the width as it is said."""
    width = positive(fields, "block_ff_dim", "intermediate_size")
    if adjusted and fields.flag("block_auto_adjust_ff_dim", default=True):
        width = 2 * width // 3
        if fields.get("block_ffn_dim_multiplier") is not None:
            step = positive(fields, "block_multiple_of", default=256)
            width = -(-int(_factor(fields, "block_ffn_dim_multiplier", 1.0) * width) // step) * step
    return mlp(f"{LAYER}.feed_forward", hidden_of(fields), width, names=_LFM_NAMES)


def _lfm_experts(fields: Fields) -> tuple[Tensor, ...]:
    width, count = positive(fields, "moe_intermediate_size"), positive(fields, "num_experts")
    return mixture(f"{LAYER}.feed_forward", hidden_of(fields), width, count, names=_LFM_NAMES)


def _recurrent_gemma(fields: Fields, head: Head) -> Layout:
    layers, hidden = layers_of(fields), hidden_of(fields)
    pattern = [word for word in fields.items("block_types", "_block_types") if isinstance(word, str)]
    pattern = pattern or ["recurrent", "recurrent", "attention"]
    kinds = [pattern[index % len(pattern)] for index in range(layers)]
    block = f"{LAYER}.temporal_block"
    width = divided(positive(fields, "intermediate_size"), 2, "the width", "intermediate_size")

    def layer(kind: str) -> tuple[Tensor, ...]:
        bias = fields.flag("attention_bias")
        mixer = attention(block, _square_heads(fields), qkv_bias=bias, out_bias=True) if kind == "attention" else None
        return (
            *(_gated_recurrence(fields, block) if mixer is None else mixer),
            *mlp(f"{LAYER}.mlp_block", hidden, width, bias=True),
            *norm(f"{LAYER}.temporal_pre_norm", hidden),
            *norm(f"{LAYER}.channel_pre_norm", hidden),
        )

    return decoder(fields, head, kinds, layer, final=norm("model.final_norm", hidden))


def _square_heads(fields: Fields) -> Heads:
    """Heads always divide the hidden size here; a stated width is not read."""
    heads = positive(fields, "num_attention_heads")
    return heads_of(fields, dim=divided(hidden_of(fields), heads, "the hidden size", "num_attention_heads"))


def _gated_recurrence(fields: Fields, where: str) -> tuple[Tensor, ...]:
    """Griffin's recurrent block (arXiv 2402.19427): gates are block-diagonal, a block for each head."""
    hidden, heads = hidden_of(fields), positive(fields, "num_attention_heads")
    width = positive(fields, "lru_width") if fields.explicit("lru_width") is not None else hidden
    each = divided(width, heads, "the recurrence's width", "num_attention_heads")
    gates = tuple(
        tensor
        for gate in ("input", "recurrent")
        for tensor in (
            Tensor(f"{where}.rg_lru.{gate}_gate_weight", width, each, Kind.PLAIN, Split.ROWS),
            Tensor(f"{where}.rg_lru.{gate}_gate_bias", width, 1, Kind.PLAIN, Split.ROWS),
        )
    )
    return (
        *linear(f"{where}.linear_y", width, hidden, Split.ROWS, bias=True),
        *linear(f"{where}.linear_x", width, hidden, Split.ROWS, bias=True),
        *linear(f"{where}.linear_out", hidden, width, Split.COLUMNS, bias=True),
        *convolution(f"{where}.conv_1d", width, positive(fields, "conv1d_width"), bias=True),
        Tensor(f"{where}.rg_lru.recurrent_param", width, 1, Kind.PLAIN, Split.ROWS, dtype=STATE_DTYPE),
        *gates,
    )


def _rwkv(fields: Fields, head: Head) -> Layout:
    """RWKV 4: time mixing and channel mixing, the first layer with a norm of its own in front."""
    hidden, layers, where = hidden_of(fields), layers_of(fields), "rwkv.blocks.{}"
    wide = positive(fields, "attention_hidden_size") if fields.explicit("attention_hidden_size") else hidden
    inner = positive(fields, "intermediate_size") if fields.explicit("intermediate_size") else 4 * hidden

    def layer(first: bool) -> tuple[Tensor, ...]:
        attends, feeds = f"{where}.attention", f"{where}.feed_forward"
        return (
            *(norm(f"{where}.pre_ln", hidden, bias=True) if first else ()),
            *norm(f"{where}.ln1", hidden, bias=True),
            *norm(f"{where}.ln2", hidden, bias=True),
            *(Tensor(f"{attends}.{name}", wide) for name in ("time_decay", "time_first")),
            *(Tensor(f"{attends}.time_mix_{name}", hidden) for name in ("key", "value", "receptance")),
            *(
                tensor
                for name in ("key", "value", "receptance")
                for tensor in linear(f"{attends}.{name}", wide, hidden, Split.ROWS)
            ),
            *linear(f"{attends}.output", hidden, wide, Split.COLUMNS),
            *(Tensor(f"{feeds}.time_mix_{name}", hidden) for name in ("key", "receptance")),
            *linear(f"{feeds}.key", inner, hidden, Split.ROWS),
            *linear(f"{feeds}.receptance", hidden, hidden),
            *linear(f"{feeds}.value", hidden, inner, Split.COLUMNS),
        )

    return decoder(
        fields, head, [index == 0 for index in range(layers)], layer,
        prefix="rwkv.", embedding="embeddings", final=norm("rwkv.ln_out", hidden, bias=True), output="head",
    )  # fmt: skip


def _xlstm(fields: Fields, head: Head) -> Layout:
    """xLSTM 7B: a matrix memory and a gated network in each block (arXiv 2503.13427)."""
    hidden = positive(fields, "hidden_size", "embedding_dim")
    heads, bias, where = positive(fields, "num_heads"), fields.flag("use_bias"), "backbone.blocks.{}"
    keys = _rounded(fields, hidden, "qk_dim_factor", 0.5, 64)
    values = _rounded(fields, hidden, "v_dim_factor", 1.0, 64)
    inner = _rounded(
        fields, hidden, "ffn_proj_factor", 2.667, positive(fields, "ffn_round_up_to_multiple_of", default=64)
    )

    def layer(_: str) -> tuple[Tensor, ...]:
        memory = f"{where}.mlstm_layer"
        return (
            *norm(f"{where}.norm_mlstm", hidden, bias=bias),
            *norm(f"{where}.norm_ffn", hidden, bias=bias),
            *linear(f"{memory}.q", keys, hidden, Split.ROWS, bias=bias),
            *linear(f"{memory}.k", keys, hidden, Split.ROWS, bias=bias),
            *linear(f"{memory}.v", values, hidden, Split.ROWS, bias=bias),
            *linear(f"{memory}.ogate_preact", values, hidden, Split.ROWS, bias=bias),
            *linear(f"{memory}.igate_preact", heads, hidden, Split.ROWS, bias=True),
            *linear(f"{memory}.fgate_preact", heads, hidden, Split.ROWS, bias=True),
            *norm(f"{memory}.multihead_norm", values, bias=bias),
            *linear(f"{memory}.out_proj", hidden, values, Split.COLUMNS, bias=bias),
            *linear(f"{where}.ffn.proj_up_gate", inner, hidden, Split.ROWS, bias=bias),
            *linear(f"{where}.ffn.proj_up", inner, hidden, Split.ROWS, bias=bias),
            *linear(f"{where}.ffn.proj_down", hidden, inner, Split.COLUMNS, bias=bias),
        )

    final = norm("backbone.out_norm", hidden) if fields.flag("add_out_norm", default=True) else ()
    kinds = ["mlstm"] * layers_of(fields, "num_hidden_layers", "num_blocks")
    return decoder(fields, head, kinds, layer, prefix="backbone.", embedding="embeddings", final=final, tied=False)


def _rounded(fields: Fields, hidden: int, name: str, default: float, step: int) -> int:
    """`hidden` times a factor, up to the next multiple of `step`."""
    return -(-int(hidden * _factor(fields, name, default)) // step) * step


def _factor(fields: Fields, name: str, default: float) -> float:
    """A factor of a width; raises BadRequest unless it is a sensible number."""
    said = fields.get(name)
    if said is None:
        return default
    if isinstance(said, bool) or not isinstance(said, int | float) or not 0 < said <= _LARGEST_FACTOR:
        raise contradiction(f"{name} is {str(said)[:40]!r}, not a sensible factor", name)
    return float(said)


FAMILIES: Mapping[str, Family] = {
    "lfm2": _lfm(sparse=False),
    "lfm2_moe": _lfm(sparse=True),
    "recurrent_gemma": _recurrent_gemma,
    "rwkv": _rwkv,
    "xlstm": _xlstm,
}
