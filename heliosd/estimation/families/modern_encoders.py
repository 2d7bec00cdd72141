"""Encoders with rotary positions: their layers are like decoders', most without biases and with a gate."""

from collections.abc import Mapping

from heliosd.estimation.families.bert import lm_head_words, pooler, two_layer_classes
from heliosd.estimation.families.encoding import (
    Encoder,
    Part,
    Tensors,
    classifier,
    dense,
    divided_heads,
    encoder,
    equal,
    family_of,
    nothing,
    table,
    tied,
    under,
    vocabulary,
    width_of,
)
from heliosd.estimation.families.family import Family
from heliosd.estimation.families.sizes import head_dim_of, heads_of, labels_of, layers_of, positive
from heliosd.estimation.fields import Fields
from heliosd.estimation.layout import Block, Split, linear, norm


def _embeddings(fields: Fields) -> Tensors:
    width = width_of(fields)
    return (
        *table("embeddings.word_embeddings", positive(fields, "vocab_size"), width),
        *table("embeddings.token_type_embeddings", fields.whole("type_vocab_size", default=0), width),
        *norm("embeddings.LayerNorm", width, bias=True),
    )


def _attention(fields: Fields, *, bias: bool) -> Tensors:
    """Every head with its own keys and values."""
    width, heads = width_of(fields), positive(fields, "num_attention_heads")
    inner = heads * head_dim_of(fields, width, heads)
    return (
        *linear("self_attn.q_proj", inner, width, Split.ROWS, bias=bias),
        *linear("self_attn.k_proj", inner, width, Split.ROWS, bias=bias),
        *linear("self_attn.v_proj", inner, width, Split.ROWS, bias=bias),
        *linear("self_attn.o_proj", width, inner, Split.COLUMNS, bias=bias),
    )


def _gated(fields: Fields, *, bias: bool, down_bias: bool) -> Tensors:
    width, inner = width_of(fields), positive(fields, "intermediate_size")
    return (
        *linear("mlp.gate_proj", inner, width, Split.ROWS, bias=bias),
        *linear("mlp.up_proj", inner, width, Split.ROWS, bias=bias),
        *linear("mlp.down_proj", width, inner, Split.COLUMNS, bias=down_bias),
    )


def _norms_after(fields: Fields) -> Tensors:
    width = width_of(fields)
    return (
        *norm("post_attention_layernorm", width, bias=True),
        *norm("post_mlp_layernorm", width, bias=True),
    )


def _nomic_layer(fields: Fields) -> Tensors:
    return (
        *_attention(fields, bias=False),
        *_gated(fields, bias=False, down_bias=False),
        *_norms_after(fields),
    )


def _gte_layer(fields: Fields) -> Tensors:
    return (
        *_attention(fields, bias=True),
        *_gated(fields, bias=False, down_bias=True),
        *_norms_after(fields),
    )


def _jina_layer(fields: Fields) -> Tensors:
    width, inner = width_of(fields), positive(fields, "intermediate_size")
    return (
        *_attention(fields, bias=True),
        *dense("mlp.fc1", inner, width, Split.ROWS),
        *dense("mlp.fc2", width, inner, Split.COLUMNS),
        *_norms_after(fields),
    )


def _nomic_words(fields: Fields) -> Tensors:
    width, count, free = width_of(fields), positive(fields, "vocab_size"), not tied(fields)
    return (
        *vocabulary("cls.predictions", count, width, weight=False),
        *dense("cls.predictions.transform.dense", width, width),
        *norm("cls.predictions.transform.layer_norm", width, bias=True),
        *vocabulary("cls.predictions.decoder", count, width, weight=free, bias=free),
    )


def _one_bias_words(fields: Fields) -> Tensors:
    """`lm_head` with the projection's own bias only."""
    width = width_of(fields)
    return (
        *dense("lm_head.dense", width, width),
        *norm("lm_head.layer_norm", width, bias=True),
        *vocabulary("lm_head.decoder", positive(fields, "vocab_size"), width, weight=not tied(fields)),
    )


def _pooled(root: str) -> Part:
    return lambda fields: (*under(f"{root}.", pooler(fields)), *classifier(fields))


def grouped_attention(fields: Fields) -> Tensors:
    """Heads share keys and values."""
    heads, bias = heads_of(fields), fields.flag("attention_bias")
    return (
        *linear("self_attn.q_proj", heads.query * heads.dim, heads.hidden, Split.ROWS, bias=bias),
        *linear("self_attn.k_proj", heads.kv * heads.dim, heads.hidden, Split.HEADS, bias=bias, heads=heads.kv),
        *linear("self_attn.v_proj", heads.kv * heads.dim, heads.hidden, Split.HEADS, bias=bias, heads=heads.kv),
        *linear("self_attn.o_proj", heads.hidden, heads.query * heads.dim, Split.COLUMNS, bias=bias),
    )


def _euro_layer(fields: Fields) -> Tensors:
    width, bias = width_of(fields), fields.flag("mlp_bias")
    return (
        *grouped_attention(fields),
        *_gated(fields, bias=bias, down_bias=bias),
        *norm("input_layernorm", width),
        *norm("post_attention_layernorm", width),
    )


def _esmc_layer(fields: Fields) -> Tensors:
    width, bias = width_of(fields), fields.flag("mlp_bias")
    return (
        *grouped_attention(fields),
        *norm("self_attn.q_norm", width),
        *norm("self_attn.k_norm", width),
        *_gated(fields, bias=bias, down_bias=bias),
        *norm("input_layernorm", width, bias=True),
        *norm("post_attention_layernorm", width, bias=True),
    )


def _tokens(fields: Fields) -> Tensors:
    return table("embed_tokens", positive(fields, "vocab_size"), width_of(fields))


def _final_norm(fields: Fields) -> Tensors:
    return norm("norm", width_of(fields))


def _euro_words(fields: Fields) -> Tensors:
    count, bias = positive(fields, "vocab_size"), fields.flag("mlp_bias")
    return vocabulary("lm_head", count, width_of(fields), weight=not tied(fields), bias=bias)


def _euro_classes(fields: Fields) -> Tensors:
    width = width_of(fields)
    return (*dense("dense", width, width), *dense("classifier", labels_of(fields), width))


def _modern_embeddings(fields: Fields) -> Tensors:
    width = width_of(fields)
    return (
        *table("embeddings.tok_embeddings", positive(fields, "vocab_size"), width),
        *norm("embeddings.norm", width, bias=fields.flag("norm_bias")),
    )


def _modern_layer(fields: Fields) -> Tensors:
    """Fused projections, as published: query, key and value in one, gate and input in one."""
    width, inner = width_of(fields), positive(fields, "intermediate_size")
    divided_heads(fields, width)
    attention_bias, mlp_bias = fields.flag("attention_bias"), fields.flag("mlp_bias")
    return (
        *linear("attn.Wqkv", 3 * width, width, Split.ROWS, bias=attention_bias),
        *linear("attn.Wo", width, width, Split.COLUMNS, bias=attention_bias),
        *norm("mlp_norm", width, bias=fields.flag("norm_bias")),
        *linear("mlp.Wi", 2 * inner, width, Split.ROWS, bias=mlp_bias),
        *linear("mlp.Wo", width, inner, Split.COLUMNS, bias=mlp_bias),
    )


def _modern_stack(fields: Fields) -> tuple[Block, ...]:
    """The first layer has no norm before its attention: the embeddings have just been normalized."""
    count, layer = layers_of(fields), _modern_layer(fields)
    early = norm("attn_norm", width_of(fields), bias=fields.flag("norm_bias"))
    return (
        Block((0,), under("layers.{}.", layer)),
        Block(tuple(range(1, count)), under("layers.{}.", early + layer)),
    )


def _modern_last(fields: Fields) -> Tensors:
    return norm("final_norm", width_of(fields), bias=fields.flag("norm_bias"))


def _modern_head(fields: Fields) -> Tensors:
    width = width_of(fields)
    return (
        *linear("head.dense", width, width, bias=fields.flag("classifier_bias")),
        *norm("head.norm", width, bias=fields.flag("norm_bias")),
    )


def _modern_words(fields: Fields) -> Tensors:
    count, bias = positive(fields, "vocab_size"), fields.flag("decoder_bias", default=True)
    return (
        *_modern_head(fields),
        *vocabulary("decoder", count, width_of(fields), weight=not tied(fields), bias=bias),
    )


def _modern_classes(fields: Fields) -> Tensors:
    return (*_modern_head(fields), *classifier(fields))


def _clip_layer(fields: Fields) -> Tensors:
    width, inner = width_of(fields), positive(fields, "intermediate_size")
    divided_heads(fields, width)
    return (
        *dense("self_attn.k_proj", width, width, Split.ROWS),
        *dense("self_attn.v_proj", width, width, Split.ROWS),
        *dense("self_attn.q_proj", width, width, Split.ROWS),
        *dense("self_attn.out_proj", width, width, Split.COLUMNS),
        *norm("layer_norm1", width, bias=True),
        *dense("mlp.fc1", inner, width, Split.ROWS),
        *dense("mlp.fc2", width, inner, Split.COLUMNS),
        *norm("layer_norm2", width, bias=True),
    )


def _clip(*, places: bool) -> Family:
    """The text half of an image-text model; CLIP's with a table of `places`, TIPS' with neither it nor a projection."""

    def embed(fields: Fields) -> Tensors:
        width = width_of(fields)
        count = positive(fields, "max_position_embeddings") if places else 0
        return (
            *table("embeddings.token_embedding", positive(fields, "vocab_size"), width),
            *table("embeddings.position_embedding", count, width),
        )

    def after(fields: Fields) -> Tensors:
        return norm("final_layer_norm", width_of(fields), bias=True)

    def projection(fields: Fields) -> Tensors:
        """`...WithProjection`: into the space that images share."""
        if not places:
            return ()
        return linear("text_projection", positive(fields, "projection_dim"), width_of(fields))

    return encoder("text_model", embed, equal("encoder.layers", _clip_layer), projection, classifier, after=after)


def _rotary(root: str, layer: Part, words: Part, classes: Part) -> Family:
    return encoder(root, _embeddings, equal("layers", layer), words, classes)


MODERN = Encoder(
    "model", _modern_embeddings, _modern_stack, _modern_words, _modern_classes,
    pooler=nothing, after=_modern_last, tokens=_modern_classes, pretraining=_modern_words,
)  # fmt: skip
"""ModernBERT's parts, for what is built upon it."""

FAMILIES: Mapping[str, Family] = {
    "nomic_bert": _rotary("nomic_bert", _nomic_layer, _nomic_words, _pooled("nomic_bert")),
    "gte": _rotary("gte", _gte_layer, _one_bias_words, _pooled("gte")),
    "jina_embeddings_v3": encoder(
        "roberta", _embeddings, equal("layers", _jina_layer), lm_head_words, two_layer_classes, pooler=pooler
    ),
    "eurobert": encoder(
        "model", _tokens, equal("layers", _euro_layer), _euro_words, _euro_classes, after=_final_norm
    ),
    "esmc": encoder(
        "esmc", _tokens, equal("layers", _esmc_layer), _one_bias_words, two_layer_classes, after=_final_norm
    ),
    "modernbert": family_of(MODERN),
    "clip_text_model": _clip(places=True),
    "tipsv2_text_model": _clip(places=False),
}  # fmt: skip
