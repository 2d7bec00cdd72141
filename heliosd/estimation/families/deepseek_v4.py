"""DeepSeek V4: one shared key-value head, keys compressed by 4 or 128 tokens, several residual streams."""

from collections.abc import Mapping

from heliosd.estimation.families.assembly import LAYER, decoder
from heliosd.estimation.families.choice import listed
from heliosd.estimation.families.drafts import MOST_DRAFTS, drafts_of, next_token
from heliosd.estimation.families.family import Family, Head
from heliosd.estimation.families.latent import merged_streams, streams_of
from heliosd.estimation.families.mlp import mixture, mlp
from heliosd.estimation.families.sizes import HEADS, contradiction, divided, hidden_of, layers_of, positive
from heliosd.estimation.fields import Fields
from heliosd.estimation.layout import Layout, Split, Tensor, linear, norm

ATTEND = f"{LAYER}.self_attn"
SLIDING, SPARSE, HEAVY = "sliding_attention", "compressed_sparse_attention", "heavily_compressed_attention"
DSPARK_LAYERS = 3
"""Where the configuration does not count them."""
BY_RATIO = {0: SLIDING, 4: SPARSE, 128: HEAVY}


def deepseek_v4(fields: Fields, head: Head) -> Layout:
    layers, hidden = layers_of(fields), hidden_of(fields)
    kinds = attention_kinds(fields, layers)

    def layer(kind: str) -> tuple[Tensor, ...]:
        return attend(fields, kind) + feed(fields) + around(fields)

    def drafts() -> tuple[Tensor, ...]:
        if tapped := len(fields.items("dspark_target_layer_ids")):
            return drafted_at_once(fields, layers, tapped, layer(SLIDING))
        count = drafts_of(fields)
        return drafted(fields, layers, count, layer(SLIDING)) if count else ()

    return decoder(
        fields, head, kinds, layer, also_last=merged_streams(positive(fields, "hc_mult"), hidden), drafts=drafts()
    )


def attention_kinds(fields: Fields, layers: int) -> list[str]:
    """By name, by `compress_ratios` (which also tells the draft layers'), else two heavily compressed layers and
    then both kinds in turn."""
    told = listed(fields, layers, "layer_types")
    if told is not None:
        return told
    ratios = fields.items("compress_ratios")
    if ratios:
        if len(ratios) < layers or not all(isinstance(ratio, int) and ratio in BY_RATIO for ratio in ratios):
            raise contradiction(f"it does not tell 0, 4 or 128 for each of {layers} layers", "compress_ratios")
        return [BY_RATIO[ratio] for ratio in ratios[:layers]]
    return [SPARSE if index >= 2 and index % 2 else HEAVY for index in range(layers)]


def attend(fields: Fields, kind: str) -> tuple[Tensor, ...]:
    hidden, query, dim = hidden_of(fields), positive(fields, *HEADS), positive(fields, "head_dim")
    rank, groups, narrow = (positive(fields, name) for name in ("q_lora_rank", "o_groups", "o_lora_rank"))
    made = (
        *linear(f"{ATTEND}.q_a_proj", rank, hidden),
        *norm(f"{ATTEND}.q_a_norm", rank),
        *linear(f"{ATTEND}.q_b_proj", query * dim, rank, Split.ROWS),
        *linear(f"{ATTEND}.kv_proj", dim, hidden),
        *norm(f"{ATTEND}.kv_norm", dim),
        *linear(
            f"{ATTEND}.o_a_proj",
            groups * narrow,
            divided(query * dim, groups, "the heads' width", "o_groups"),
            Split.ROWS,
        ),
        *linear(f"{ATTEND}.o_b_proj", hidden, groups * narrow, Split.COLUMNS),
        Tensor(f"{ATTEND}.sinks", query, split=Split.ROWS),
    )
    if kind == HEAVY:
        return made + compressor(f"{ATTEND}.compressor", hidden, dim, dim, rate(fields, kind))
    if kind == SPARSE:
        return made + compressor(f"{ATTEND}.compressor", hidden, 2 * dim, dim, rate(fields, kind)) + chooser(fields)
    return made


def rate(fields: Fields, kind: str) -> int:
    """How many tokens become one key."""
    told = fields.part("compress_rates")
    short, tokens = ("compress_rate_hca", 128) if kind == HEAVY else ("compress_rate_csa", 4)
    usual = fields.whole(short, default=tokens)
    return usual if told is None else told.whole(kind, default=usual)


def compressor(where: str, hidden: int, rows: int, dim: int, tokens: int) -> tuple[Tensor, ...]:
    """Keys and weights for each token, summed over `tokens` with a bias for each place; every rank holds it."""
    return (
        *linear(f"{where}.kv_proj", rows, hidden),
        *linear(f"{where}.gate_proj", rows, hidden),
        Tensor(f"{where}.position_bias", tokens, rows),
        *norm(f"{where}.kv_norm", dim),
    )


def chooser(fields: Fields) -> tuple[Tensor, ...]:
    """The indexer of sparse layers, with a narrower compressor of its own."""
    hidden, heads, dim = hidden_of(fields), positive(fields, "index_n_heads"), positive(fields, "index_head_dim")
    where = f"{ATTEND}.compressor.indexer"
    return (
        *compressor(where, hidden, 2 * dim, dim, rate(fields, SPARSE)),
        *linear(f"{where}.q_b_proj", heads * dim, positive(fields, "q_lora_rank")),
        *linear(f"{where}.scorer.weights_proj", heads, hidden),
    )


def feed(fields: Fields) -> tuple[Tensor, ...]:
    """Every layer routes, the first ones by the token's hash; the router has its matrix even there."""
    hidden, width = hidden_of(fields), positive(fields, "moe_intermediate_size")
    count, shared = (
        positive(fields, "n_routed_experts", "num_local_experts"),
        fields.whole("n_shared_experts", default=1),
    )
    made = mixture(f"{LAYER}.mlp", hidden, width, count)
    wide = width * shared
    return made + mlp(f"{LAYER}.mlp.shared_experts", hidden, wide, bias=fields.flag("mlp_bias")) if shared else made


def around(fields: Fields) -> tuple[Tensor, ...]:
    """Norms, and how each sublayer reads from and writes to the residual streams."""
    hidden, streams = hidden_of(fields), positive(fields, "hc_mult")
    rows = (2 + streams) * streams
    return (
        *norm(f"{LAYER}.input_layernorm", hidden),
        *norm(f"{LAYER}.post_attention_layernorm", hidden),
        *streams_of(f"{LAYER}.attn_hc", rows, streams * hidden, 3),
        *streams_of(f"{LAYER}.ffn_hc", rows, streams * hidden, 3),
    )


def drafted(fields: Fields, layers: int, count: int, block: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Draft layers slide; embedding and hidden states have a projection each, and the streams merge at their end."""
    hidden, streams = hidden_of(fields), positive(fields, "hc_mult")
    merged = tuple(
        Tensor(tensor.name.replace("model.", f"{LAYER}.", 1), tensor.rows, tensor.columns)
        for tensor in merged_streams(streams, hidden)
    )
    return next_token(layers, count, hidden, block + merged)


def drafted_at_once(fields: Fields, layers: int, tapped: int, block: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """DSpark: three layers that draft a block of tokens from the states of `tapped` layers of the model.

    Its last step corrects each token by the one before, through two narrow matrices over the vocabulary that every rank
    holds. Source: models/deepseek_v4/nvidia/dspark.py of 0.32.0.
    """
    hidden, dim = hidden_of(fields), positive(fields, "head_dim")
    count = fields.whole("n_mtp_layers", default=0) or DSPARK_LAYERS
    if count > MOST_DRAFTS:
        raise contradiction(f"{count} draft layers is more than any model has", "n_mtp_layers")
    rank, vocabulary = fields.whole("dspark_markov_rank", default=0), positive(fields, "vocab_size")
    markov = (
        *linear("model.dspark.markov_head.markov_w1", vocabulary, rank),
        *linear("model.dspark.markov_head.markov_w2", vocabulary, rank),
        *linear("model.dspark.confidence_head.proj", 1, hidden + rank),
    )
    return (
        *linear("model.dspark.main_proj", hidden, hidden * tapped),
        *norm("model.dspark.main_norm", hidden),
        *linear("model.dspark.context_wkv_proj", dim * count, hidden),
        *(markov if rank else ()),
        *merged_streams(positive(fields, "hc_mult"), hidden),
        *(
            tensor.named(tensor.name.replace("{}", str(index), 1))
            for index in range(layers, layers + count)
            for tensor in block
        ),
    )


FAMILIES: Mapping[str, Family] = {"deepseek_ref": deepseek_v4, "deepseek_v4": deepseek_v4}
