"""Hybrids of linear and sparse attention with several residual streams (GLM 5 Next, Qwen 4), and of attention with
short convolutions throughout (Inkling)."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from heliosd.estimation.families.assembly import LAYER, decoder
from heliosd.estimation.families.attention import attention
from heliosd.estimation.families.choice import dense_first, listed
from heliosd.estimation.families.delta_net import delta_net, delta_of, kimi_delta
from heliosd.estimation.families.family import Family, Head
from heliosd.estimation.families.mamba import convolution
from heliosd.estimation.families.mamba_hybrids import STATE, told
from heliosd.estimation.families.mla import indexer, latent, latent_of
from heliosd.estimation.families.mlp import mixture, mlp
from heliosd.estimation.families.sizes import Heads, contradiction, heads_of, hidden_of, layers_of, positive
from heliosd.estimation.families.standard import DENSE, SPARSE
from heliosd.estimation.fields import Fields
from heliosd.estimation.layout import Kind, Layout, Split, Tensor, experts, linear, norm

SPARSE_ATTENTION = "indexed"


def _kinds(fields: Fields, layers: int) -> list[str]:
    """STATE or SPARSE_ATTENTION; every fourth layer attends where no list says otherwise."""
    words = told(fields, layers)
    every = positive(fields, "full_attention_interval", default=4)
    if words is None:
        words = [SPARSE_ATTENTION if (index + 1) % every == 0 else STATE for index in range(layers)]
    return [STATE if word == STATE else SPARSE_ATTENTION for word in words]


def glm5_next(fields: Fields, head: Head) -> Layout:
    layers, hidden = layers_of(fields), hidden_of(fields)
    mixers, feeds = _kinds(fields, layers), dense_first(fields, layers, default=3)
    kinds = list(zip(mixers, feeds, _indexers(fields, layers), strict=True))
    own = fields.get("linear_attn_config")
    kda = Fields(own if isinstance(own, Mapping) else {})

    def layer(kind: tuple[str, str, bool]) -> tuple[Tensor, ...]:
        mixer, feed, chooses = kind
        return (
            *(_glm_linear(fields, kda) if mixer == STATE else _glm_sparse(fields, chooses)),
            *(_glm_experts(fields) if feed == SPARSE else _feed(fields)),
            *norm(f"{LAYER}.input_layernorm", hidden),
            *norm(f"{LAYER}.post_attention_layernorm", hidden),
            *_streams(f"{LAYER}.attn_hc", fields),
            *_streams(f"{LAYER}.ffn_hc", fields),
        )

    return decoder(fields, head, kinds, layer)


def _indexers(fields: Fields, layers: int) -> Sequence[bool]:
    """Whether a layer chooses its tokens itself or takes those that an earlier one chose."""
    words = listed(fields, layers, "indexer_types")
    if words is not None:
        return [word != "shared" for word in words]
    pattern = fields.text("index_topk_pattern")
    if pattern:
        if len(pattern) < layers:
            raise contradiction(f"index_topk_pattern names {len(pattern)} of {layers} layers", "index_topk_pattern")
        return [letter != "S" for letter in pattern[:layers]]
    every = max(1, fields.whole("index_topk_freq", default=1))
    offset = fields.whole("index_skip_topk_offset", default=2)
    return [max(index - offset + 1, 0) % every == 0 for index in range(layers)]


def _feed(fields: Fields) -> tuple[Tensor, ...]:
    return mlp(f"{LAYER}.mlp", hidden_of(fields), positive(fields, "intermediate_size"))


def _glm_linear(fields: Fields, kda: Fields) -> tuple[Tensor, ...]:
    def size(inside: str, beside: str) -> int:
        return positive(kda, inside) if kda.given(inside) else positive(fields, beside)

    heads, dim = size("num_heads", "linear_num_heads"), size("head_dim", "linear_head_dim")
    kernel = size("short_conv_kernel_size", "linear_conv_kernel_dim")
    return kimi_delta(f"{LAYER}.self_attn", hidden_of(fields), heads, dim, kernel)


def _glm_sparse(fields: Fields, chooses: bool) -> tuple[Tensor, ...]:
    """Latent attention; the indexer scores pools of tokens."""
    where, bias = f"{LAYER}.self_attn", fields.flag("attention_bias")
    made = latent(where, latent_of(fields), bias=bias)
    if not chooses:
        return made
    inside, dim = f"{where}.indexer", positive(fields, "index_head_dim")
    return (
        *made,
        *indexer(inside, fields),
        Tensor(f"{inside}.index_kpool_compress_ape", positive(fields, "index_kpool"), dim),
        Tensor(f"{inside}.index_kpool_compress_gate", dim, hidden_of(fields)),
    )


def _glm_experts(fields: Fields) -> tuple[Tensor, ...]:
    hidden, width = hidden_of(fields), positive(fields, "moe_intermediate_size")
    shared = width * fields.whole("n_shared_experts", default=0)
    made = mixture(f"{LAYER}.mlp", hidden, width, positive(fields, "n_routed_experts"))
    return made + (mlp(f"{LAYER}.mlp.shared_experts", hidden, shared) if shared else ())


def _streams(where: str, fields: Fields) -> tuple[Tensor, ...]:
    """How a sublayer reads from the streams, mixes them and writes back: one row for each coefficient."""
    streams = positive(fields, "hc_mult")
    rows = (2 + streams) * streams
    return (
        Tensor(f"{where}.fn", rows, streams * hidden_of(fields)),
        Tensor(f"{where}.base", rows),
        Tensor(f"{where}.scale", 3),
    )


def _qwen4(fields: Fields, head: Head) -> Layout:
    """Gated residual streams around a gated delta net or attention that reads chosen tokens, and experts."""
    layers, hidden = layers_of(fields), hidden_of(fields)
    ngrams = [place for place in fields.items("ple_layer_ids") if isinstance(place, int)]  # counted from one
    kinds = [(kind, index + 1 in ngrams) for index, kind in enumerate(_kinds(fields, layers))]

    def layer(kind: tuple[str, bool]) -> tuple[Tensor, ...]:
        mixer, looks_up = kind
        return (
            *(delta_net(f"{LAYER}.linear_attn", delta_of(fields)) if mixer == STATE else _qwen4_attention(fields)),
            *_qwen4_experts(fields),
            *(_ngrams(fields) if looks_up else ()),
            *_gated_streams(f"{LAYER}.attn_hyper_connection", fields, writes=True),
            *_gated_streams(f"{LAYER}.mlp_hyper_connection", fields, writes=True),
        )

    final = _gated_streams("model.hyper_connection_mixer", fields, writes=False)
    made = decoder(fields, head, kinds, layer, final=final)
    # The tables' lengths are primes beyond a base, different in each layer.
    return replace(made, guessed=("ngram_vocab_size_base",)) if ngrams and hidden else made


def _qwen4_attention(fields: Fields) -> tuple[Tensor, ...]:
    where, bias = f"{LAYER}.self_attn", fields.flag("attention_bias")
    heads, kv = positive(fields, "indexer_n_heads"), positive(fields, "indexer_kv_heads")
    dim = positive(fields, "indexer_head_dim")
    return (
        *attention(where, heads_of(fields), qkv_bias=bias, out_bias=bias, norm_per_head=True, gated=True),
        *linear(f"{where}.indexer.index_qk_proj", (heads + kv) * dim, hidden_of(fields)),
        *norm(f"{where}.indexer.q_layernorm", dim),
        *norm(f"{where}.indexer.k_layernorm", dim),
    )


def _qwen4_experts(fields: Fields) -> tuple[Tensor, ...]:
    hidden, shared = hidden_of(fields), positive(fields, "shared_expert_intermediate_size")
    width, count = positive(fields, "moe_intermediate_size"), positive(fields, "num_experts")
    return (
        *mixture(f"{LAYER}.mlp", hidden, width, count),
        *mlp(f"{LAYER}.mlp.shared_expert", hidden, shared),
        *linear(f"{LAYER}.mlp.shared_expert_gate", 1, hidden),
    )


def _gated_streams(where: str, fields: Fields, *, writes: bool) -> tuple[Tensor, ...]:
    streams, narrow = positive(fields, "hc_count"), positive(fields, "hc_lowrank")
    wide = streams * hidden_of(fields)
    return (
        *norm(f"{where}.hc_norm", wide),
        *linear(f"{where}.input_mix_weight_down", narrow, wide),
        *linear(f"{where}.input_mix_weight_up", wide, narrow),
        *(linear(f"{where}.block_inject_weight", streams, wide) if writes else ()),
    )


def _ngrams(fields: Fields) -> tuple[Tensor, ...]:
    """A table for each hash of the last tokens, and how it enters the streams."""
    where, hidden = f"{LAYER}.ple", hidden_of(fields)
    wide = positive(fields, "hc_count") * hidden
    said = fields.explicit("ple_embed_dim")
    width = hidden if said is None else positive(fields, "ple_embed_dim")
    hashes = (positive(fields, "ngram_size") - 1) * positive(fields, "heads_per_ngram")
    if not hashes or width % hashes:
        raise contradiction(f"the n-gram width {width} does not divide by {hashes}", "ple_embed_dim")
    step = positive(fields, "make_ngram_vocab_size_divisible_by")
    rows = -(-hashes * positive(fields, "ngram_vocab_size_base") // step) * step
    return (
        Tensor(
            f"{where}.ple_embedding.ngram_embedding.weight", rows, width // hashes, Kind.EMBEDDING, Split.VOCABULARY
        ),
        *linear(f"{where}.key_proj", wide, width),
        *linear(f"{where}.value_proj", hidden, width),
        *norm(f"{where}.norm_key", wide),
        *norm(f"{where}.norm_query", wide),
        *norm(f"{where}.norm_conv", wide),
        *convolution(f"{where}.conv1d", wide, positive(fields, "ple_conv_kernel_size")),
    )


def _inkling(fields: Fields, head: Head) -> Layout:
    layers, hidden = layers_of(fields), hidden_of(fields)
    slides = _sliding(fields, layers)
    feeds = listed(fields, layers, "mlp_layer_types")
    if feeds is None:
        dense = fields.whole("dense_mlp_idx", default=0)
        feeds = [DENSE if index < dense else SPARSE for index in range(layers)]
    kernel = positive(fields, "sconv_kernel_size", "conv_kernel_size")

    def layer(kind: tuple[bool, str]) -> tuple[Tensor, ...]:
        sliding, feed = kind
        return (
            *_inkling_attention(fields, kernel, sliding=sliding),
            *(_inkling_experts(fields) if feed == SPARSE else _inkling_feed(fields)),
            *norm(f"{LAYER}.input_layernorm", hidden),
            *norm(f"{LAYER}.post_attention_layernorm", hidden),
            *convolution(f"{LAYER}.attn_sconv.conv1d", hidden, kernel),
            *convolution(f"{LAYER}.mlp_sconv.conv1d", hidden, kernel),
        )

    entry = norm("model.embed_tokens.embed_norm", hidden)
    return decoder(fields, head, list(zip(slides, feeds, strict=True)), layer, also_first=entry, tied=False)


def _sliding(fields: Fields, layers: int) -> list[bool]:
    words = listed(fields, layers, "layer_types")
    if words is not None:
        return [word == "hybrid_sliding" for word in words]
    local = fields.items("local_layer_ids")
    return [index in local if local else (index + 1) % 6 != 0 for index in range(layers)]


def _inkling_attention(fields: Fields, kernel: int, *, sliding: bool) -> tuple[Tensor, ...]:
    """Sliding layers have heads of their own; a bias by distance, a convolution over keys and one over values."""
    where, before = f"{LAYER}.self_attn", "swa_" if sliding else ""
    heads = Heads(
        hidden_of(fields),
        positive(fields, f"{before}num_attention_heads"),
        positive(fields, f"{before}num_key_value_heads"),
        positive(fields, f"{before}head_dim"),
    )
    reach = positive(fields, "sliding_window_size", "sliding_window") if sliding else positive(fields, "rel_extent")
    relative = positive(fields, "d_rel")
    keys = heads.kv * heads.dim
    return (
        *attention(where, heads, norm_per_head=True),
        *linear(f"{where}.r_proj", heads.query * relative, heads.hidden, Split.ROWS),
        *convolution(f"{where}.k_sconv.conv1d", keys, kernel, groups=heads.kv),
        *convolution(f"{where}.v_sconv.conv1d", keys, kernel, groups=heads.kv),
        Tensor(f"{where}.rel_logits_proj.proj", relative, reach),
    )


def _inkling_feed(fields: Fields) -> tuple[Tensor, ...]:
    width = positive(fields, "dense_intermediate_size", "intermediate_size")
    return (*mlp(f"{LAYER}.mlp", hidden_of(fields), width), Tensor(f"{LAYER}.mlp.global_scale", 1))


def _inkling_experts(fields: Fields) -> tuple[Tensor, ...]:
    """The router scores the shared experts too."""
    hidden, where = hidden_of(fields), f"{LAYER}.mlp"
    width, count = positive(fields, "moe_intermediate_size"), positive(fields, "n_routed_experts", "num_local_experts")
    shared = fields.whole("n_shared_experts", default=0)
    beside = f"{where}.shared_experts"
    both = (
        experts(f"{beside}.gate_proj", width, hidden, Split.ROWS, shared),
        experts(f"{beside}.up_proj", width, hidden, Split.ROWS, shared),
        experts(f"{beside}.down_proj", hidden, width, Split.COLUMNS, shared),
    )
    return (
        *linear(f"{where}.gate", count + shared, hidden),
        Tensor(f"{where}.gate.global_scale", 1),
        *mixture(where, hidden, width, count, router=""),
        *(replace(tensor, kind=Kind.LINEAR) for tensor in both if shared),
    )


FAMILIES: Mapping[str, Family] = {
    "glm5_next_text": glm5_next,
    "qwen4_exp_text": _qwen4,
    "inkling_text": _inkling,
}
