"""Decoders with multi-head latent attention: DeepSeek V2 to V3.2, Kimi K2, GLM 5 and their relatives."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from heliosd.estimation.families.assembly import LAYER, decoder
from heliosd.estimation.families.choice import dense_first, listed, one_dense
from heliosd.estimation.families.drafts import drafts_of, next_token
from heliosd.estimation.families.family import Family, Head
from heliosd.estimation.families.mla import indexer, latent, latent_of
from heliosd.estimation.families.mlp import mixture, mlp
from heliosd.estimation.families.sizes import HEADS, WIDTH, divided, hidden_of, layers_of, positive
from heliosd.estimation.families.standard import DENSE, SPARSE, Kinds, Sparse, Switch, on
from heliosd.estimation.fields import Fields
from heliosd.estimation.layout import Layout, Split, Tensor, linear, norm

MIXTURE = Sparse(width=("moe_intermediate_size",), shared_count=("n_shared_experts", "num_shared_experts"))
NORMS = ("input_layernorm", "post_attention_layernorm")
FULL = "full"
SHARED = "shared"
ATTEND = f"{LAYER}.self_attn"


def feed(fields: Fields, kind: str, bias: Switch = False) -> tuple[Tensor, ...]:
    """A layer's feed-forward part: one dense network, or DeepSeek's mixture with its shared experts. `bias`: of the
    dense and the shared networks."""
    if kind == SPARSE:
        return replace(MIXTURE, shared_bias=bias)(fields, LAYER)
    return mlp(f"{LAYER}.mlp", hidden_of(fields), positive(fields, *WIDTH), bias=on(fields, bias))


def norms(fields: Fields) -> tuple[Tensor, ...]:
    hidden = hidden_of(fields)
    return tuple(tensor for name in NORMS for tensor in norm(f"{LAYER}.{name}", hidden))


def deepseek(
    fields: Fields, head: Head, kinds: Kinds = dense_first, indexed: bool = False, bias: Switch = False
) -> Layout:
    """DeepSeek V2 (whose networks may have biases) and V3, and V3.2 with an indexer in every layer (`indexed`)."""
    layers, hidden = layers_of(fields), hidden_of(fields)
    attend = latent(ATTEND, latent_of(fields), bias=fields.flag("attention_bias"))
    if indexed:
        attend += indexer(f"{ATTEND}.indexer", fields)

    def layer(kind: str) -> tuple[Tensor, ...]:
        return attend + feed(fields, kind, bias) + norms(fields)

    drafts = drafts_of(fields)
    drafted = next_token(layers, drafts, hidden, layer(SPARSE)) if drafts else ()
    return decoder(fields, head, kinds(fields, layers), layer, drafts=drafted)


def deepseek_v32(fields: Fields, head: Head) -> Layout:
    return deepseek(fields, head, indexed=True)


def three_dense(fields: Fields, layers: int) -> Sequence[str]:
    return dense_first(fields, layers, default=3)


def glm_dsa(fields: Fields, head: Head) -> Layout:
    """GLM 5: like DeepSeek V3.2, but some layers use the tokens that the indexer of an earlier one chose."""
    layers, hidden = layers_of(fields), hidden_of(fields)
    attend = latent(ATTEND, latent_of(fields), bias=fields.flag("attention_bias"))

    def layer(kind: tuple[str, str]) -> tuple[Tensor, ...]:
        own = indexer(f"{ATTEND}.indexer", fields) if kind[1] == FULL else ()
        return attend + own + feed(fields, kind[0]) + norms(fields)

    kinds = list(zip(three_dense(fields, layers), indexers(fields, layers), strict=True))
    drafts = drafts_of(fields)
    drafted = next_token(layers, drafts, hidden, layer((SPARSE, FULL))) if drafts else ()
    return decoder(fields, head, kinds, layer, drafts=drafted)


def indexers(fields: Fields, layers: int) -> list[str]:
    """`full` or `shared` for each layer: told, or by a pattern of the letters F and S, or every `index_topk_freq`-th
    layer from `index_skip_topk_offset` on is full, and all before it."""
    told = listed(fields, layers, "indexer_types")
    if told is not None:
        return told
    pattern = fields.get("index_topk_pattern")
    if isinstance(pattern, str) and len(pattern) >= layers:
        return [FULL if letter.upper() == "F" else SHARED for letter in pattern[:layers]]
    if isinstance(pattern, list) and len(pattern) >= layers:
        return [SHARED if str(word).lower().startswith("s") else FULL for word in pattern[:layers]]
    frequency = max(1, fields.whole("index_topk_freq", default=1))
    offset = fields.whole("index_skip_topk_offset", default=2)
    return [FULL if max(index - offset + 1, 0) % frequency == 0 else SHARED for index in range(layers)]


def axk1(fields: Fields, head: Head) -> Layout:
    """A.X K1: DeepSeek V3 with a norm after the experts."""
    layers, hidden = layers_of(fields), hidden_of(fields)
    attend = latent(ATTEND, latent_of(fields), bias=fields.flag("attention_bias"))

    def layer(kind: str) -> tuple[Tensor, ...]:
        after = norm(f"{LAYER}.mlp.post_mlp_layernorm", hidden) if kind == SPARSE else ()
        return attend + feed(fields, kind) + norms(fields) + after

    return decoder(fields, head, one_dense(fields, layers), layer)


def axk2(fields: Fields, head: Head) -> Layout:
    """A.X K2: queries and an output gate from one wide matrix, norms that are gated by a narrow network."""
    layers, hidden = layers_of(fields), hidden_of(fields)
    sizes, rank = latent_of(fields), positive(fields, "gated_norm_rank")
    bias = fields.flag("attention_bias")
    together = sizes.heads * (sizes.plain + sizes.rotated + sizes.value)
    attend = (
        *(tensor for tensor in latent(ATTEND, sizes, bias=bias) if ".q_b_proj." not in tensor.name),
        *linear(f"{ATTEND}.q_gate_proj", together, 2 * sizes.queries, Split.ROWS),
        *indexer(f"{ATTEND}.indexer", fields),
    )

    def gated(name: str) -> tuple[Tensor, ...]:
        return (
            *norm(f"{name}.norm", hidden),
            *linear(f"{name}.mlp.fc1", rank, hidden),
            *linear(f"{name}.mlp.fc2", hidden, rank),
        )

    def layer(kind: str) -> tuple[Tensor, ...]:
        after = f"{LAYER}.post_attention_layernorm"
        second = gated(after) if kind == SPARSE else norm(after, hidden)
        return attend + feed(fields, kind) + gated(f"{LAYER}.input_layernorm") + second

    return decoder(fields, head, one_dense(fields, layers), layer)


def hunyuan_v4(fields: Fields, head: Head) -> Layout:
    """Latent attention with sinks and an output gate, shared indexers, and several residual streams."""
    layers, hidden = layers_of(fields), hidden_of(fields)
    sizes, streams = latent_of(fields), positive(fields, "hc_mult")
    gate = sizes.heads * sizes.value
    attend = (
        *latent(ATTEND, sizes, bias=fields.flag("attention_bias")),
        *linear(f"{ATTEND}.gate_proj", gate, hidden, Split.ROWS),
        Tensor(f"{ATTEND}.sinks", sizes.heads, split=Split.ROWS),
    )
    told = listed(fields, layers, "indexer_types")
    own = told or [FULL if index == 0 or (index - 1) % 4 == 0 else SHARED for index in range(layers)]

    def layer(kind: tuple[str, str]) -> tuple[Tensor, ...]:
        chooses = indexer(f"{ATTEND}.indexer", fields) if kind[1] == FULL else ()
        mixing = tuple(
            tensor
            for name in ("attn_hc", "ffn_hc")
            for tensor in streams_of(f"{LAYER}.{name}", 2 * streams, streams * hidden, 2)
        )
        return attend + chooses + feed(fields, kind[0]) + norms(fields) + mixing

    kinds = list(zip(one_dense(fields, layers), own, strict=True))
    return decoder(fields, head, kinds, layer, also_last=merged_streams(streams, hidden))


def streams_of(where: str, rows: int, columns: int, scales: int) -> tuple[Tensor, ...]:
    """Weights by which parallel residual streams are mixed before and after a sublayer (hyper-connections)."""
    return (
        Tensor(f"{where}.fn", rows, columns),
        Tensor(f"{where}.base", rows),
        Tensor(f"{where}.scale", scales),
    )


def merged_streams(streams: int, hidden: int) -> tuple[Tensor, ...]:
    """How the residual streams become one again after the last layer."""
    return (
        Tensor("model.hc_head.hc_fn", streams, streams * hidden),
        Tensor("model.hc_head.hc_base", streams),
        Tensor("model.hc_head.hc_scale", 1),
    )


def longcat(fields: Fields, head: Head) -> Layout:
    """Two attentions and two dense networks in each layer beside one mixture, some of whose experts do nothing."""
    layers, hidden = layers_of(fields, "num_layers", "num_hidden_layers"), hidden_of(fields)
    sizes, count = latent_of(fields), positive(fields, "n_routed_experts")
    idle = fields.whole("zero_expert_num", default=0)
    width = positive(fields, "expert_ffn_hidden_size", "moe_intermediate_size")
    wide = positive(fields, "ffn_hidden_size", "intermediate_size")
    bias = fields.flag("attention_bias")

    def layer(kind: str) -> tuple[Tensor, ...]:
        made = (
            *linear(f"{LAYER}.mlp.router.classifier", count + idle, hidden, bias=fields.flag("router_bias")),
            *mixture(f"{LAYER}.mlp", hidden, width, count, router=""),
        )
        for half in range(2):
            made += latent(f"{ATTEND}.{half}", sizes, bias=bias) + mlp(f"{LAYER}.mlps.{half}", hidden, wide)
            made += norm(f"{LAYER}.input_layernorm.{half}", hidden)
            made += norm(f"{LAYER}.post_attention_layernorm.{half}", hidden)
        return made

    return decoder(fields, head, [SPARSE] * layers, layer)


def dense_latent(fields: Fields, head: Head) -> Layout:
    """Latent attention without experts: MiniCPM 3 (whose values are as wide as the heads divide), Youtu."""
    layers, sizes = layers_of(fields), latent_of(fields)
    if fields.model_type == "minicpm3" and fields.explicit("v_head_dim") is None:
        value = divided(sizes.hidden, positive(fields, *HEADS), "the hidden size", "num_attention_heads")
        sizes = replace(sizes, value=value)
    attend = latent(ATTEND, sizes, bias=fields.flag("attention_bias"))

    def layer(kind: str) -> tuple[Tensor, ...]:
        return attend + feed(fields, kind, "mlp_bias") + norms(fields)

    return decoder(fields, head, [DENSE] * layers, layer)


FAMILIES: Mapping[str, Family] = {
    "axk1": axk1,
    "axk2": axk2,
    "deepseek_v2": lambda fields, head: deepseek(fields, head, bias="mlp_bias"),
    "deepseek_v3": deepseek,
    "deepseek_v32": deepseek_v32,
    "glm4_moe_lite": lambda fields, head: deepseek(fields, head, one_dense),
    "glm_moe_dsa": glm_dsa,
    "hy_v4": hunyuan_v4,
    "kimi_k2": lambda fields, head: deepseek(fields, head, one_dense),
    "longcat_flash": longcat,
    "minicpm3": dense_latent,
    "mistral4": deepseek,
    "youtu": dense_latent,
}
