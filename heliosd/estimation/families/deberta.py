"""DeBERTa, both generations: attention to content and to relative positions, which have an embedding of their own."""

from collections.abc import Mapping

from heliosd.estimation.families.bert import feed_forward, prediction_words
from heliosd.estimation.families.encoding import (
    Tensors,
    dense,
    divided_heads,
    encoder,
    equal,
    table,
    vocabulary,
    width_of,
)
from heliosd.estimation.families.family import Family
from heliosd.estimation.families.sizes import labels_of, positive
from heliosd.estimation.fields import Fields
from heliosd.estimation.layout import Kind, Split, Tensor, linear, norm


def _embeddings(fields: Fields) -> Tensors:
    """Positions only where they enter the input; segments only where there are any."""
    wide = width_of(fields)
    narrow = positive(fields, "embedding_size") if fields.given("embedding_size") else wide
    places = positive(fields, "max_position_embeddings") if fields.flag("position_biased_input", default=True) else 0
    return (
        *table("embeddings.word_embeddings", positive(fields, "vocab_size"), narrow),
        *table("embeddings.position_embeddings", places, narrow),
        *table("embeddings.token_type_embeddings", fields.whole("type_vocab_size", default=0), narrow),
        *(linear("embeddings.embed_proj", wide, narrow) if narrow != wide else ()),
        *norm("embeddings.LayerNorm", wide, bias=True),
    )


def _kinds(fields: Fields) -> set[str]:
    """`c2p` and `p2c`, given as a list or joined by bars."""
    said = fields.get("pos_att_type")
    words = said.split("|") if isinstance(said, str) else fields.items("pos_att_type")
    return {word.strip().lower() for word in words if isinstance(word, str)}


def _reach(fields: Fields) -> int:
    """How far apart positions are told apart."""
    said = fields.get("max_relative_positions")
    return said if isinstance(said, int) and said > 0 else positive(fields, "max_position_embeddings")


def _first_layer(fields: Fields) -> Tensors:
    """Queries, keys and values in one matrix without keys' bias."""
    width, where = width_of(fields), "attention.self"
    heads = divided_heads(fields, width)
    relative = fields.flag("relative_attention")
    kinds = _kinds(fields) if relative else set()
    talking = fields.flag("talking_head")
    return (
        *linear(f"{where}.in_proj", 3 * width, width, Split.ROWS),
        Tensor(f"{where}.q_bias", width, 1, Kind.PLAIN, Split.ROWS),
        Tensor(f"{where}.v_bias", width, 1, Kind.PLAIN, Split.ROWS),
        *(linear(f"{where}.pos_proj", width, width, Split.ROWS) if "c2p" in kinds else ()),
        *(dense(f"{where}.pos_q_proj", width, width, Split.ROWS) if "p2c" in kinds else ()),
        *(linear(f"{where}.head_logits_proj", heads, heads) if talking else ()),
        *(linear(f"{where}.head_weights_proj", heads, heads) if talking else ()),
        *_rest(fields),
    )


def _second_layer(fields: Fields) -> Tensors:
    width, where = width_of(fields), "attention.self"
    divided_heads(fields, width)
    own = fields.flag("relative_attention") and not fields.flag("share_att_key")
    kinds = _kinds(fields) if own else set()
    return (
        *dense(f"{where}.query_proj", width, width, Split.ROWS),
        *dense(f"{where}.key_proj", width, width, Split.ROWS),
        *dense(f"{where}.value_proj", width, width, Split.ROWS),
        *(dense(f"{where}.pos_key_proj", width, width, Split.ROWS) if "c2p" in kinds else ()),
        *(dense(f"{where}.pos_query_proj", width, width, Split.ROWS) if "p2c" in kinds else ()),
        *_rest(fields),
    )


def _rest(fields: Fields) -> Tensors:
    width = width_of(fields)
    return (
        *dense("attention.output.dense", width, width, Split.COLUMNS),
        *norm("attention.output.LayerNorm", width, bias=True),
        *feed_forward(fields),
        *norm("output.LayerNorm", width, bias=True),
    )


def _distances(fields: Fields) -> Tensors:
    """The first generation's table of distances."""
    rows = 2 * _reach(fields) if fields.flag("relative_attention") else 0
    return table("encoder.rel_embeddings", rows, width_of(fields))


def _buckets(fields: Fields) -> Tensors:
    """The second's, in buckets and normalized where asked for; and a convolution beside the first layer."""
    width, rows = width_of(fields), 0
    if fields.flag("relative_attention"):
        buckets = fields.get("position_buckets")
        rows = 2 * (buckets if isinstance(buckets, int) and buckets > 0 else _reach(fields))
    kernel = fields.whole("conv_kernel_size", default=0)
    groups = positive(fields, "conv_groups", default=1)
    conv: Tensors = ()
    if kernel:
        conv = (
            Tensor("encoder.conv.conv.weight", width, width // groups * kernel),
            Tensor("encoder.conv.conv.bias", width),
            *norm("encoder.conv.LayerNorm", width, bias=True),
        )
    normed = "layer_norm" in fields.text("norm_rel_ebd", default="none").lower()
    return (
        *table("encoder.rel_embeddings", rows, width),
        *(norm("encoder.LayerNorm", width, bias=True) if normed else ()),
        *conv,
    )


def _classes(fields: Fields) -> Tensors:
    """Upon a pooler of the head's own."""
    said = fields.explicit("pooler_hidden_size")
    width = width_of(fields) if said is None else positive(fields, "pooler_hidden_size")
    return (*dense("pooler.dense", width, width), *dense("classifier", labels_of(fields), width))


def _words(fields: Fields) -> Tensors:
    """As in BERT; the newer form of the head has the embedding for its projection always."""
    if fields.flag("legacy", default=True):
        return prediction_words(fields)
    width, count = width_of(fields), positive(fields, "vocab_size")
    return (
        *dense("lm_predictions.lm_head.dense", width, width),
        *norm("lm_predictions.lm_head.LayerNorm", width, bias=True),
        *vocabulary("lm_predictions.lm_head", count, width, weight=False),
    )


FAMILIES: Mapping[str, Family] = {
    "deberta": encoder(
        "deberta", _embeddings, equal("encoder.layer", _first_layer), _words, _classes, after=_distances
    ),
    "deberta-v2": encoder(
        "deberta", _embeddings, equal("encoder.layer", _second_layer), _words, _classes, after=_buckets
    ),
}
