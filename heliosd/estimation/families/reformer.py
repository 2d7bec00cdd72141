"""Reformer: attention by hashing in some layers, within chunks in others, in two reversible streams."""

from collections.abc import Mapping

from heliosd.estimation.families.assembly import blocks
from heliosd.estimation.families.encoding import Tensors, dense, encoder, table, under, vocabulary
from heliosd.estimation.families.family import Family
from heliosd.estimation.families.sizes import MOST_LAYERS, contradiction, labels_of, positive
from heliosd.estimation.fields import Fields
from heliosd.estimation.layout import Block, Kind, Split, Tensor, linear, norm


def _embeddings(fields: Fields) -> Tensors:
    """Positions in a table, or in two that are joined: one by row, one by column of a grid."""
    width = positive(fields, "hidden_size")
    words = table("embeddings.word_embeddings", positive(fields, "vocab_size"), width)
    if not fields.flag("axial_pos_embds", default=True):
        places = positive(fields, "max_position_embeddings")
        return words + table("embeddings.position_embeddings.embedding", places, width)
    grid = list(zip(fields.items("axial_pos_shape"), fields.items("axial_pos_embds_dim"), strict=False))
    if not all(isinstance(size, int) and size > 0 for axis in grid for size in axis):
        raise contradiction("axial_pos_shape and axial_pos_embds_dim list no sizes", "axial_pos_shape")
    axes = (
        Tensor(f"embeddings.position_embeddings.weights.{index}", rows, columns, Kind.EMBEDDING)
        for index, (rows, columns) in enumerate(grid)
    )
    return (*words, *axes)


def _stack(fields: Fields) -> tuple[Block, ...]:
    kinds = [kind for kind in fields.items("attn_layers") if isinstance(kind, str)]
    if not 0 < len(kinds) <= MOST_LAYERS:
        raise contradiction("attn_layers lists no layers", "attn_layers")
    return blocks(kinds, lambda kind: under("encoder.layers.{}.", _layer(fields, kind)))


def _layer(fields: Fields, kind: str) -> Tensors:
    """Hashing needs queries and keys to be the same."""
    width, inner = positive(fields, "hidden_size"), positive(fields, "feed_forward_size")
    heads = positive(fields, "num_attention_heads") * positive(fields, "attention_head_size")
    names = ("query_key", "value") if kind == "lsh" else ("query", "key", "value")
    where = "attention.self_attention"
    return (
        *norm("attention.layer_norm", width, bias=True),
        *(tensor for name in names for tensor in linear(f"{where}.{name}", heads, width, Split.ROWS)),
        *linear("attention.output.dense", width, heads, Split.COLUMNS),
        *norm("feed_forward.layer_norm", width, bias=True),
        *dense("feed_forward.dense.dense", inner, width, Split.ROWS),
        *dense("feed_forward.output.dense", width, inner, Split.COLUMNS),
    )


def _final_norm(fields: Fields) -> Tensors:
    return norm("encoder.layer_norm", 2 * positive(fields, "hidden_size"), bias=True)


def _words(fields: Fields) -> Tensors:
    """Never tied: it reads both streams."""
    count, width = positive(fields, "vocab_size"), positive(fields, "hidden_size")
    return (
        *vocabulary("lm_head", count, 2 * width, weight=False),
        *vocabulary("lm_head.decoder", count, 2 * width, weight=True, bias=False),
    )


def _classes(fields: Fields) -> Tensors:
    width = positive(fields, "hidden_size")
    return (
        *dense("classifier.dense", width, 2 * width),
        *dense("classifier.out_proj", labels_of(fields), width),
    )


FAMILIES: Mapping[str, Family] = {
    "reformer": encoder("reformer", _embeddings, _stack, _words, _classes, after=_final_norm)
}
