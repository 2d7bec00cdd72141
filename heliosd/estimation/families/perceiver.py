"""Perceiver over bytes: a few latents read the input once and then attend among themselves (arXiv 2107.14795)."""

from collections.abc import Mapping

from heliosd.estimation.families.encoding import Task, Tensors, dense, table, task_of, under
from heliosd.estimation.families.family import Family, Head
from heliosd.estimation.families.sizes import labels_of, layers_of, positive
from heliosd.estimation.fields import Fields
from heliosd.estimation.layout import Block, Kind, Layout, Split, Tensor, norm

_DECODED = 8 * 32
"""Width of queries and keys where the words are read off again."""


def _reader(where: str, own: int, other: int, keys: int, values: int, widening: int) -> Tensors:
    """`own` wide queries read `other` wide inputs (0: themselves); a feed-forward of `widening` times the width."""
    read = other or own
    inner = widening * own
    return under(
        f"{where}.",
        (
            *norm("attention.self.layernorm1", own, bias=True),
            *(norm("attention.self.layernorm2", other, bias=True) if other else ()),
            *dense("attention.self.query", keys, own, Split.ROWS),
            *dense("attention.self.key", keys, read, Split.ROWS),
            *dense("attention.self.value", values, read, Split.ROWS),
            *dense("attention.output.dense", own, values, Split.COLUMNS),
            *norm("layernorm", own, bias=True),
            *dense("mlp.dense1", inner, own, Split.ROWS),
            *dense("mlp.dense2", own, inner, Split.COLUMNS),
        ),
    )


def _perceiver(fields: Fields, head: Head) -> Layout:
    task = task_of(fields, head)
    outer = "" if task is Task.BODY else "perceiver."
    latent, width = positive(fields, "d_latents"), positive(fields, "d_model")
    wider, across = (
        positive(fields, "self_attention_widening_factor"),
        positive(fields, "cross_attention_widening_factor"),
    )
    shared = latent if fields.text("cross_attention_shape_for_attention", default="kv") == "q" else width
    layers = layers_of(fields, "num_self_attends_per_block")
    words = (
        *table("input_preprocessor.embeddings", positive(fields, "vocab_size"), width),
        *table("input_preprocessor.position_embeddings", positive(fields, "max_position_embeddings"), width),
    )
    first = (
        *(() if task is Task.BODY else words),
        Tensor("embeddings.latents", positive(fields, "num_latents"), latent, Kind.EMBEDDING),
        *_reader("encoder.cross_attention", latent, width, shared, shared, across),
    )
    layer = _reader("encoder.self_attends.{}", latent, 0, latent, latent, wider)
    return Layout(
        first=under(outer, first),
        blocks=(Block(tuple(range(layers)), under(outer, layer)),),
        last=_words(fields) if task is Task.WORDS else _classes(fields) if task is Task.CLASSES else (),
    )


def _words(fields: Fields) -> Tensors:
    """Each position asks the latents for its word; the projection is the input's table."""
    latent, width = positive(fields, "d_latents"), positive(fields, "d_model")
    places = positive(fields, "max_position_embeddings")
    return (
        Tensor("perceiver.decoder.output_position_encodings.position_embeddings", places, width, Kind.EMBEDDING),
        *_reader("perceiver.decoder.decoding_cross_attention", width, latent, _DECODED, width, 1),
        Tensor("embedding_decoder.bias", positive(fields, "vocab_size"), 1, Kind.PLAIN, Split.VOCABULARY),
    )


def _classes(fields: Fields) -> Tensors:
    latent, inside = positive(fields, "d_latents"), "perceiver.decoder.decoder"
    return (
        Tensor(f"{inside}.output_position_encodings.position_embeddings", 1, latent),
        *_reader(f"{inside}.decoding_cross_attention", latent, latent, latent, latent, 1),
        *dense(f"{inside}.final_layer", labels_of(fields), latent),
    )


FAMILIES: Mapping[str, Family] = {"perceiver": _perceiver}
