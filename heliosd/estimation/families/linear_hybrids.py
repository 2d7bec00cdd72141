"""Hybrids of attention and linear attention: Qwen3-Next and Qwen3.5, Kimi Linear, OLMo, MiniMax."""

from collections.abc import Mapping, Sequence

from heliosd.estimation.families.assembly import LAYER, decoder
from heliosd.estimation.families.attention import attention
from heliosd.estimation.families.choice import dense_first, stepped
from heliosd.estimation.families.delta_net import delta_net, delta_of, fused_delta_net, kimi_delta, separate_delta_net
from heliosd.estimation.families.drafts import COUNTS, drafts_of
from heliosd.estimation.families.family import Family, Head
from heliosd.estimation.families.mamba_hybrids import FULL, STATE, told
from heliosd.estimation.families.mla import latent, latent_of
from heliosd.estimation.families.mlp import mixture, mlp
from heliosd.estimation.families.sizes import contradiction, heads_of, hidden_of, layers_of, positive
from heliosd.estimation.families.standard import DENSE, SPARSE
from heliosd.estimation.fields import Fields
from heliosd.estimation.layout import Layout, Split, Tensor, linear, norm


def _every_fourth(fields: Fields, layers: int) -> Sequence[str]:
    """By the list of layers, else attention in every `full_attention_interval`-th."""
    words = told(fields, layers)
    if words is not None:
        return words
    every = positive(fields, "full_attention_interval", default=4)
    return [FULL if (index + 1) % every == 0 else STATE for index in range(layers)]


def _qwen(*, fused: bool, sparse: bool) -> Family:
    """Qwen3-Next (`fused`) and Qwen3.5: attention whose output is gated, experts with a gated shared one."""

    def family(fields: Fields, head: Head) -> Layout:
        layers = layers_of(fields)
        mixers = _every_fourth(fields, layers)
        feeds = stepped(fields, layers) if sparse else [DENSE] * layers
        kinds = list(zip(mixers, feeds, strict=True))

        def layer(kind: tuple[str, str]) -> tuple[Tensor, ...]:
            return _qwen_layer(fields, LAYER, *kind, fused=fused)

        steps = 1 if fields.get(*COUNTS) is None else drafts_of(fields)
        last = feeds[-1] if sparse else DENSE
        drafts = _qwen_drafts(fields, steps, last, fused=fused)
        return decoder(fields, head, kinds, layer, drafts=drafts)

    return family


def _qwen_layer(fields: Fields, where: str, mixer: str, feed: str, *, fused: bool) -> tuple[Tensor, ...]:
    hidden, bias = hidden_of(fields), fields.flag("attention_bias")
    if mixer == FULL:
        gated = fields.flag("attn_output_gate", default=True)
        inside = attention(
            f"{where}.self_attn", heads_of(fields), qkv_bias=bias, out_bias=bias, norm_per_head=True, gated=gated
        )
    else:
        make = fused_delta_net if fused else delta_net
        inside = make(f"{where}.linear_attn", delta_of(fields))
    return (
        *inside,
        *(_qwen_experts(fields, where) if feed == SPARSE else _feed(fields, where)),
        *_norms(where, hidden),
    )


def _feed(fields: Fields, where: str) -> tuple[Tensor, ...]:
    return mlp(f"{where}.mlp", hidden_of(fields), positive(fields, "intermediate_size"))


def _norms(where: str, hidden: int) -> tuple[Tensor, ...]:
    return (*norm(f"{where}.input_layernorm", hidden), *norm(f"{where}.post_attention_layernorm", hidden))


def _qwen_experts(fields: Fields, where: str) -> tuple[Tensor, ...]:
    hidden, shared = hidden_of(fields), fields.whole("shared_expert_intermediate_size", default=0)
    width, count = positive(fields, "moe_intermediate_size"), positive(fields, "num_experts")
    made = mixture(f"{where}.mlp", hidden, width, count)
    if shared:
        made += mlp(f"{where}.mlp.shared_expert", hidden, shared)
        made += linear(f"{where}.mlp.shared_expert_gate", 1, hidden)
    return made


def _qwen_drafts(fields: Fields, steps: int, feed: str, *, fused: bool) -> tuple[Tensor, ...]:
    """Layers of full attention upon a projection of the embedding beside the hidden state."""
    if not steps:
        return ()
    hidden = hidden_of(fields)
    return (
        *linear("mtp.fc", hidden, 2 * hidden, Split.ROWS),
        *norm("mtp.pre_fc_norm_embedding", hidden),
        *norm("mtp.pre_fc_norm_hidden", hidden),
        *norm("mtp.norm", hidden),
        *(_qwen_layer(fields, "mtp.layers.{}", FULL, feed, fused=fused) * steps),
    )


def _olmo(fields: Fields, head: Head) -> Layout:
    """Norms before linear attention, after full attention."""
    layers, hidden = layers_of(fields), hidden_of(fields)
    kinds = list(_every_fourth(fields, layers))
    if FULL not in kinds and told(fields, layers) is None:
        kinds[-1] = FULL

    def layer(kind: str) -> tuple[Tensor, ...]:
        feed = (*_feed(fields, LAYER), *norm(f"{LAYER}.post_attention_layernorm", hidden))
        if kind != FULL:
            mixer = separate_delta_net(f"{LAYER}.linear_attn", delta_of(fields))
            return (*mixer, *feed, *norm(f"{LAYER}.input_layernorm", hidden))
        bias = fields.flag("attention_bias")
        mixer = attention(f"{LAYER}.self_attn", heads_of(fields), qkv_bias=bias, out_bias=bias, norm_whole=True)
        return (*mixer, *feed, *norm(f"{LAYER}.post_feedforward_layernorm", hidden))

    return decoder(fields, head, kinds, layer)


def _minimax(fields: Fields, head: Head) -> Layout:
    """Lightning attention: decay without parameters, one matrix for queries, keys and values, an output gate."""
    layers, hidden, heads = layers_of(fields), hidden_of(fields), heads_of(fields)
    count, width = positive(fields, "num_local_experts"), positive(fields, "intermediate_size")
    inner = heads.query * heads.dim
    mixer = f"{LAYER}.self_attn"
    listed = fields.items("attn_type_list")
    kinds = told(fields, layers)
    if kinds is None and listed:
        if len(listed) < layers:
            raise contradiction(f"attn_type_list names {len(listed)} layers of {layers}", "attn_type_list")
        kinds = [FULL if attends else STATE for attends in listed[:layers]]
    if kinds is None:
        kinds = [STATE if index % 2 else FULL for index in range(layers)]

    def layer(kind: str) -> tuple[Tensor, ...]:
        lightning = (
            *linear(f"{mixer}.qkv_proj", 3 * inner, hidden, Split.ROWS),
            *linear(f"{mixer}.output_gate", inner, hidden, Split.ROWS),
            *linear(f"{mixer}.out_proj", hidden, inner, Split.COLUMNS),
            Tensor(f"{mixer}.norm.weight", inner, split=Split.ROWS),
        )
        return (
            *(attention(mixer, heads) if kind == FULL else lightning),
            *mixture(f"{LAYER}.block_sparse_moe", hidden, width, count),
            *_norms(LAYER, hidden),
        )

    return decoder(fields, head, kinds, layer)


def _kimi(fields: Fields, head: Head) -> Layout:
    layers = layers_of(fields)
    own = fields.get("linear_attn_config")
    kda = Fields(own if isinstance(own, Mapping) else {})
    mixers = _kimi_mixers(fields, kda, layers)
    feeds = dense_first(fields, layers, default=1)

    def layer(kind: tuple[str, str]) -> tuple[Tensor, ...]:
        mixer, feed = kind
        return (
            *(_kimi_latent(fields) if mixer == FULL else _kimi_linear(fields, kda)),
            *(_kimi_experts(fields) if feed == SPARSE else _feed(fields, LAYER)),
            *_norms(LAYER, hidden_of(fields)),
            *_kimi_residuals(fields),
        )

    hidden = hidden_of(fields)
    last: tuple[Tensor, ...] = ()
    if fields.optional("attn_res_block_size"):
        last = (*norm("model.output_attn_res_norm", hidden), *linear("model.output_attn_res_proj", 1, hidden))
    return decoder(fields, head, list(zip(mixers, feeds, strict=True)), layer, also_last=last)


def _kimi_mixers(fields: Fields, kda: Fields, layers: int) -> Sequence[str]:
    words = told(fields, layers)
    if words is not None:
        return words
    attending = kda.items("full_attn_layers")
    if attending:  # counted from one
        return [FULL if index + 1 in attending else STATE for index in range(layers)]
    return [FULL if index and index % 4 == 0 else STATE for index in range(layers)]


def _kimi_linear(fields: Fields, kda: Fields) -> tuple[Tensor, ...]:
    def size(inside: str, beside: str) -> int:
        return positive(kda, inside) if kda.given(inside) else positive(fields, beside)

    return kimi_delta(
        f"{LAYER}.self_attn",
        hidden_of(fields),
        size("num_heads", "linear_num_heads"),
        size("head_dim", "linear_head_dim"),
        size("short_conv_kernel_size", "linear_conv_kernel_dim"),
        full_rank_gate=kda.flag("use_full_rank_gate"),
    )


def _kimi_latent(fields: Fields) -> tuple[Tensor, ...]:
    where, sizes = f"{LAYER}.self_attn", latent_of(fields)
    made = latent(where, sizes, bias=fields.flag("attention_bias"))
    if fields.flag("mla_use_output_gate"):
        made += linear(f"{where}.g_proj", sizes.heads * sizes.value, sizes.hidden, Split.ROWS)
    return made


def _kimi_experts(fields: Fields) -> tuple[Tensor, ...]:
    """On the hidden state, or on a narrower projection of it that every rank holds whole."""
    where, hidden = f"{LAYER}.block_sparse_moe", hidden_of(fields)
    width, count = positive(fields, "moe_intermediate_size"), positive(fields, "num_experts", "n_routed_experts")
    shared = fields.whole("num_shared_experts", "n_shared_experts", default=0) * width
    narrow = fields.whole("routed_expert_hidden_size", default=0)
    made = linear(f"{where}.gate", count, hidden)
    if narrow:
        made += linear(f"{where}.routed_expert_down_proj", narrow, hidden)
        made += linear(f"{where}.routed_expert_up_proj", hidden, narrow)
        made += norm(f"{where}.routed_expert_norm", narrow) if fields.flag("latent_moe_use_norm") else ()
    made += mixture(where, narrow or hidden, width, count, router="")
    return made + (mlp(f"{where}.shared_experts", hidden, shared) if shared else ())


def _kimi_residuals(fields: Fields) -> tuple[Tensor, ...]:
    """What chooses among the residual streams of earlier blocks, where they are kept."""
    if not fields.optional("attn_res_block_size"):
        return ()
    hidden = hidden_of(fields)
    return tuple(
        tensor
        for name in ("self_attention_res", "mlp_res")
        for tensor in (*norm(f"{LAYER}.{name}_norm", hidden), *linear(f"{LAYER}.{name}_proj", 1, hidden))
    )


FAMILIES: Mapping[str, Family] = {
    "qwen3_next": _qwen(fused=True, sparse=True),
    "qwen3_5_text": _qwen(fused=False, sparse=False),
    "qwen3_5_moe_text": _qwen(fused=False, sparse=True),
    "olmo_hybrid": _olmo,
    "minimax": _minimax,
    "kimi_linear": _kimi,
}
