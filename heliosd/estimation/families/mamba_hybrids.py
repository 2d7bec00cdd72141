"""State-space models and the hybrids that alternate or pair them with attention."""

from collections.abc import Mapping
from dataclasses import replace

from heliosd.estimation.families.assembly import LAYER, decoder
from heliosd.estimation.families.attention import attention
from heliosd.estimation.families.choice import indices, listed
from heliosd.estimation.families.family import Family, Head
from heliosd.estimation.families.mamba import Mamba1, mamba1, mamba1_of, mamba2, mamba2_of
from heliosd.estimation.families.mlp import mixture, mlp
from heliosd.estimation.families.sizes import contradiction, heads_of, hidden_of, layers_of, positive
from heliosd.estimation.fields import Fields
from heliosd.estimation.layout import Layout, Split, Tensor, linear, norm

STATE = "state"
FULL = "full"
_WORDS = {
    "mamba": STATE, "mamba2": STATE, "linear_attention": STATE, "state": STATE, "m": STATE,
    "attention": FULL, "full_attention": FULL, "sliding_attention": FULL,
}  # fmt: skip


def told(fields: Fields, layers: int) -> list[str] | None:
    """STATE, FULL or the configuration's own word for each layer; None when it lists none."""
    words = listed(fields, layers, "layer_types", "layers_block_type")
    return None if words is None else [_WORDS.get(word, word) for word in words]


def _pure(make: str) -> Family:
    """Every layer a mixer: Mamba, Falcon Mamba, Mamba 2."""

    def family(fields: Fields, head: Head) -> Layout:
        hidden, where = hidden_of(fields), "backbone.layers.{}"

        def layer(_: str) -> tuple[Tensor, ...]:
            mixer = f"{where}.mixer"
            inside = (
                mamba1(mixer, hidden, mamba1_of(fields)) if make == "1" else mamba2(mixer, hidden, mamba2_of(fields))
            )
            return (*norm(f"{where}.norm", hidden), *inside)

        kinds = [STATE] * layers_of(fields)
        final = norm("backbone.norm_f", hidden)
        return decoder(fields, head, kinds, layer, prefix="backbone.", embedding="embeddings", final=final)

    return family


def _two_norms(where: str, hidden: int) -> tuple[Tensor, ...]:
    return (*norm(f"{where}.input_layernorm", hidden), *norm(f"{where}.pre_ff_layernorm", hidden))


def _attended(fields: Fields, where: str) -> tuple[Tensor, ...]:
    bias = fields.flag("attention_bias")
    return attention(f"{where}.self_attn", heads_of(fields), qkv_bias=bias, out_bias=bias)


def _periodic(fields: Fields, what: str, layers: int) -> list[bool]:
    """Which layers lie at the offset of their period. Raises BadRequest when the offset is beyond the period."""
    period, offset = positive(fields, f"{what}_layer_period"), fields.whole(f"{what}_layer_offset")
    if offset >= period:
        raise contradiction(f"{what}_layer_offset {offset} is not below the period {period}", f"{what}_layer_offset")
    return [index % period == offset for index in range(layers)]


def _jamba(fields: Fields, head: Head) -> Layout:
    hidden, width, layers = hidden_of(fields), positive(fields, "intermediate_size"), layers_of(fields)
    count = fields.whole("num_experts", "num_local_experts")
    sizes = replace(mamba1_of(fields), normed=True)
    kinds = list(zip(_periodic(fields, "attn", layers), _periodic(fields, "expert", layers), strict=True))

    def layer(kind: tuple[bool, bool]) -> tuple[Tensor, ...]:
        attends, routes = kind
        feed = f"{LAYER}.feed_forward"
        return (
            *(_attended(fields, LAYER) if attends else mamba1(f"{LAYER}.mamba", hidden, sizes)),
            *(
                mixture(feed, hidden, width, count, router="router")
                if routes and count > 1
                else mlp(feed, hidden, width)
            ),
            *_two_norms(LAYER, hidden),
        )

    return decoder(fields, head, kinds, layer, final=norm("model.final_layernorm", hidden))


def _bamba(fields: Fields, head: Head) -> Layout:
    hidden, layers = hidden_of(fields), layers_of(fields)
    attending = indices(fields, "attn_layer_indices")
    kinds = told(fields, layers) or [FULL if index in attending else STATE for index in range(layers)]

    def layer(kind: str) -> tuple[Tensor, ...]:
        mixer = _attended(fields, LAYER) if kind == FULL else mamba2(f"{LAYER}.mamba", hidden, mamba2_of(fields))
        return (*mixer, *_plain_feed(fields, LAYER), *_two_norms(LAYER, hidden))

    return decoder(fields, head, kinds, layer, final=norm("model.final_layernorm", hidden))


def _plain_feed(fields: Fields, where: str) -> tuple[Tensor, ...]:
    width, bias = positive(fields, "intermediate_size"), fields.flag("mlp_bias")
    return mlp(f"{where}.feed_forward", hidden_of(fields), width, bias=bias)


def _falcon_h1(fields: Fields, head: Head) -> Layout:
    """Attention and state space side by side in every layer."""
    hidden = hidden_of(fields)
    sizes = replace(mamba2_of(fields), out_bias=fields.flag("projectors_bias"), normed=fields.flag("mamba_rms_norm"))

    def layer(_: str) -> tuple[Tensor, ...]:
        return (
            *_attended(fields, LAYER),
            *mamba2(f"{LAYER}.mamba", hidden, sizes),
            *_plain_feed(fields, LAYER),
            *_two_norms(LAYER, hidden),
        )

    kinds = [STATE] * layers_of(fields)
    return decoder(fields, head, kinds, layer, final=norm("model.final_layernorm", hidden))


def _granite(fields: Fields, head: Head) -> Layout:
    """Granite 4: routed experts and a shared network, or the shared network alone."""
    hidden, layers = hidden_of(fields), layers_of(fields)
    kinds = told(fields, layers) or [STATE] * layers
    count, shared = fields.whole("num_local_experts", default=0), fields.whole("shared_intermediate_size", default=0)
    sparse = f"{LAYER}.block_sparse_moe"

    def layer(kind: str) -> tuple[Tensor, ...]:
        width = positive(fields, "intermediate_size") if count else 0
        return (
            *(_attended(fields, LAYER) if kind == FULL else mamba2(f"{LAYER}.mamba", hidden, mamba2_of(fields))),
            *(mixture(sparse, hidden, width, count, router="router.layer") if count else ()),
            *linear(f"{LAYER}.shared_mlp.input_linear", 2 * shared, hidden, Split.ROWS),
            *linear(f"{LAYER}.shared_mlp.output_linear", hidden, shared, Split.COLUMNS),
            *norm(f"{LAYER}.input_layernorm", hidden),
            *norm(f"{LAYER}.post_attention_layernorm", hidden),
        )

    return decoder(fields, head, kinds, layer)


def _zamba(fields: Fields, head: Head) -> Layout:
    """One attention block, stored once, woven in between layers of Mamba with several heads."""
    hidden, layers = hidden_of(fields), layers_of(fields)
    sizes, heads = mamba1_of(fields), positive(fields, "n_mamba_heads")
    if sizes.inner % heads:
        raise contradiction(f"{sizes.inner} channels do not divide by {heads} heads", "n_mamba_heads")
    kinds = told(fields, layers)
    if kinds is None:
        at = [index >= 3 and here for index, here in enumerate([False] * 3 + _periodic(fields, "attn", layers - 3))]
        kinds = ["hybrid" if index == 2 or here else STATE for index, here in enumerate(at)][:layers]

    def mixer(where: str) -> tuple[Tensor, ...]:
        inner, each = sizes.inner, sizes.inner // heads
        return (
            *mamba_parts(where, hidden, sizes),
            Tensor(f"{where}.x_proj_weight", heads * (sizes.rank + 2 * sizes.state), each),
            Tensor(f"{where}.dt_proj_weight", inner, sizes.rank),
            Tensor(f"{where}.dt_proj_bias", inner),
        )

    def layer(kind: str) -> tuple[Tensor, ...]:
        if kind != "hybrid":
            return (*mixer(f"{LAYER}.mamba"), *norm(f"{LAYER}.input_layernorm", hidden))
        return (
            *linear(f"{LAYER}.linear", hidden, hidden),
            *mixer(f"{LAYER}.mamba_decoder.mamba"),
            *norm(f"{LAYER}.mamba_decoder.input_layernorm", hidden),
        )

    shared = _shared_block(fields, "model.shared_transf", fused=False) if "hybrid" in kinds else ()
    final = norm("model.final_layernorm", hidden)
    return decoder(fields, head, kinds, layer, final=final, also_first=shared)


def mamba_parts(where: str, hidden: int, sizes: Mamba1) -> tuple[Tensor, ...]:
    """Mamba without its step projections, which Zamba keeps by heads."""
    left_out = (f"{where}.x_proj.", f"{where}.dt_proj.")
    return tuple(tensor for tensor in mamba1(where, hidden, sizes) if not tensor.name.startswith(left_out))


def _shared_block(fields: Fields, where: str, *, fused: bool) -> tuple[Tensor, ...]:
    """Attention over the layer's input beside the embeddings, hence twice as wide, and a feed-forward."""
    hidden, heads = hidden_of(fields), positive(fields, "num_attention_heads")
    wide = 2 * hidden if fused else fields.whole("attention_hidden_size", default=0) or 2 * hidden
    if not fused and fields.explicit("attention_hidden_size") is None:
        wide = 2 * hidden
    dim = 2 * hidden // heads
    if not fused and fields.explicit("attention_head_dim", "head_dim") is not None:
        dim = positive(fields, "attention_head_dim", "head_dim")
    keys = (fields.explicit("num_key_value_heads") and positive(fields, "num_key_value_heads")) or heads
    width, bias = _shared_width(fields), fields.flag("add_bias_linear")
    return (
        *linear(f"{where}.self_attn.q_proj", heads * dim, wide, Split.ROWS),
        *linear(f"{where}.self_attn.k_proj", keys * dim, wide, Split.HEADS, heads=keys),
        *linear(f"{where}.self_attn.v_proj", keys * dim, wide, Split.HEADS, heads=keys),
        *linear(f"{where}.self_attn.o_proj", hidden, heads * dim, Split.COLUMNS),
        *(
            (
                *linear(f"{where}.feed_forward.gate_up_proj", 2 * width, hidden, Split.ROWS, bias=bias),
                *linear(f"{where}.feed_forward.down_proj", hidden, width, Split.COLUMNS, bias=bias),
            )
            if fused
            else mlp(f"{where}.feed_forward", hidden, width)
        ),
        *norm(f"{where}.input_layernorm", wide),
        *norm(f"{where}.pre_ff_layernorm", hidden),
    )


def _shared_width(fields: Fields) -> int:
    """What is said, else what the class derives."""
    return positive(fields, "intermediate_size", default=4 * hidden_of(fields))


def _zamba2(fields: Fields, head: Head) -> Layout:
    """A few attention blocks, each stored once and adapted at each of its places."""
    hidden, layers = hidden_of(fields), layers_of(fields)
    kinds = told(fields, layers) or _zamba2_default(fields, layers)
    places = kinds.count("hybrid")
    sizes = mamba2_of(fields)

    def layer(kind: str) -> tuple[Tensor, ...]:
        if kind != "hybrid":
            return (*mamba2(f"{LAYER}.mamba", hidden, sizes), *norm(f"{LAYER}.input_layernorm", hidden))
        return (
            *linear(f"{LAYER}.linear", hidden, hidden),
            *_adapters(fields, f"{LAYER}.shared_transformer"),
            *mamba2(f"{LAYER}.mamba_decoder.mamba", hidden, sizes),
            *norm(f"{LAYER}.mamba_decoder.input_layernorm", hidden),
        )

    blocks = min(positive(fields, "num_mem_blocks"), places)
    shared = tuple(
        tensor
        for block in range(blocks)
        for tensor in _shared_block(fields, f"model.blocks.{block}", fused=True)
    )  # fmt: skip
    final = norm("model.final_layernorm", hidden)
    return decoder(fields, head, kinds, layer, final=final, also_first=shared)


def _zamba2_default(fields: Fields, layers: int) -> list[str]:
    at = indices(fields, "hybrid_layer_ids") or {6, 12, 18, 24, 30, 36, 42, 47, 51}
    return ["hybrid" if index in at else STATE for index in range(layers)]


def _adapters(fields: Fields, where: str) -> tuple[Tensor, ...]:
    """Of one place: narrow pairs for the feed-forward and, where asked for, for queries, keys and values."""
    hidden, width, rank = hidden_of(fields), _shared_width(fields), positive(fields, "adapter_rank")
    pairs = [("feed_forward.gate_up_proj_adapter_list.{}", 2 * width, hidden)]
    if fields.flag("use_shared_attention_adapter"):
        pairs += [(f"self_attn.linear_{name}_adapter_list.{{}}", 2 * hidden, 2 * hidden) for name in "qkv"]
    return tuple(
        tensor
        for name, rows, columns in pairs
        for tensor in (
            *linear(f"{where}.{name}.0", rank, columns, Split.ROWS),
            *linear(f"{where}.{name}.1", rows, rank, Split.ROWS),
        )
    )


FAMILIES: Mapping[str, Family] = {
    "mamba": _pure("1"),
    "falcon_mamba": _pure("1"),
    "mamba2": _pure("2"),
    "jamba": _jamba,
    "bamba": _bamba,
    "falcon_h1": _falcon_h1,
    "granitemoehybrid": _granite,
    "zamba": _zamba,
    "zamba2": _zamba2,
}
