"""The parts of BERT and of what followed it with the same shape: embeddings, layer, poolers and heads."""

from heliosd.estimation.families.encoding import (
    Tensors,
    dense,
    divided_heads,
    table,
    tied,
    vocabulary,
    width_of,
)
from heliosd.estimation.families.sizes import labels_of
from heliosd.estimation.fields import Fields
from heliosd.estimation.layout import Split, norm


def embedding_size(fields: Fields) -> int:
    """The embeddings' width, which may be smaller than the layers'."""
    return fields.whole("embedding_size", default=width_of(fields))


def embeddings(fields: Fields) -> Tensors:
    return words_and_places(fields) + norm("embeddings.LayerNorm", embedding_size(fields), bias=True)


def words_and_places(fields: Fields) -> Tensors:
    """Three tables, without the norm."""
    width = embedding_size(fields)
    return (
        *table("embeddings.word_embeddings", fields.whole("vocab_size"), width),
        *table("embeddings.position_embeddings", fields.whole("max_position_embeddings"), width),
        *table("embeddings.token_type_embeddings", fields.whole("type_vocab_size", default=0), width),
    )


def widening(fields: Fields) -> Tensors:
    """From the embeddings' width to the layers', where they differ."""
    narrow, wide = embedding_size(fields), width_of(fields)
    return dense("embeddings_project", wide, narrow) if narrow != wide else ()


def layer(fields: Fields) -> Tensors:
    """Norms after attention and after the feed-forward; cross-attention in decoders that ask for it."""
    crossed = fields.flag("is_decoder") and fields.flag("add_cross_attention")
    width = width_of(fields)
    crossing = (*attention(fields, "crossattention"), *norm("crossattention.output.LayerNorm", width, bias=True))
    return (
        *attention(fields, "attention"),
        *norm("attention.output.LayerNorm", width, bias=True),
        *(crossing if crossed else ()),
        *feed_forward(fields),
        *norm("output.LayerNorm", width, bias=True),
    )


def attention(fields: Fields, name: str) -> Tensors:
    """Query, key, value and output, each with a bias. Raises BadRequest when the heads do not divide the width."""
    width = width_of(fields)
    divided_heads(fields, width)
    return (
        *dense(f"{name}.self.query", width, width, Split.ROWS),
        *dense(f"{name}.self.key", width, width, Split.ROWS),
        *dense(f"{name}.self.value", width, width, Split.ROWS),
        *dense(f"{name}.output.dense", width, width, Split.COLUMNS),
    )


def feed_forward(fields: Fields) -> Tensors:
    width, inner = width_of(fields), fields.whole("intermediate_size")
    return (
        *dense("intermediate.dense", inner, width, Split.ROWS),
        *dense("output.dense", width, inner, Split.COLUMNS),
    )


def pooler(fields: Fields) -> Tensors:
    return dense("pooler.dense", width_of(fields), width_of(fields))


def flat_pooler(fields: Fields) -> Tensors:
    """The same without a module of its own."""
    return dense("pooler", width_of(fields), width_of(fields))


def prediction_words(fields: Fields) -> Tensors:
    """`cls.predictions`: a transformation, its norm, and a bias of its own; untied, the projection brings another."""
    width, narrow, count = width_of(fields), embedding_size(fields), fields.whole("vocab_size")
    free = not tied(fields)
    return (
        *vocabulary("cls.predictions", count, narrow, weight=False),
        *dense("cls.predictions.transform.dense", narrow, width),
        *norm("cls.predictions.transform.LayerNorm", narrow, bias=True),
        *vocabulary("cls.predictions.decoder", count, narrow, weight=free, bias=free),
    )


def lm_head_words(fields: Fields) -> Tensors:
    """`lm_head` of RoBERTa: the same as of BERT under other names."""
    width, count, free = width_of(fields), fields.whole("vocab_size"), not tied(fields)
    return (
        *vocabulary("lm_head", count, width, weight=False),
        *dense("lm_head.dense", width, width),
        *norm("lm_head.layer_norm", width, bias=True),
        *vocabulary("lm_head.decoder", count, width, weight=free, bias=free),
    )


def generator_words(fields: Fields) -> Tensors:
    """ELECTRA's generator: back to the embeddings' width, then the vocabulary."""
    narrow = embedding_size(fields)
    return (
        *norm("generator_predictions.LayerNorm", narrow, bias=True),
        *dense("generator_predictions.dense", narrow, width_of(fields)),
        *vocabulary("generator_lm_head", fields.whole("vocab_size"), narrow, weight=not tied(fields)),
    )


def two_layer_classes(fields: Fields) -> Tensors:
    """RoBERTa's classifier: a hidden layer instead of a pooler."""
    width = width_of(fields)
    return (
        *dense("classifier.dense", width, width),
        *dense("classifier.out_proj", labels_of(fields), width),
    )
