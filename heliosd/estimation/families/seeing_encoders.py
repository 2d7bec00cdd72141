"""Encoders of text and page images in one: ModernVBERT, NeoMME."""

from collections.abc import Mapping

from heliosd.estimation.families.encoding import (
    Task,
    Tensors,
    classifier,
    encoder,
    equal,
    nothing,
    table,
    task_of,
    tied,
    under,
    vocabulary,
    width_of,
)
from heliosd.estimation.families.family import Family, Head
from heliosd.estimation.families.mlp import mlp
from heliosd.estimation.families.modern_encoders import MODERN, grouped_attention
from heliosd.estimation.families.sizes import contradiction, head_dim_of, heads_of, labels_of, positive
from heliosd.estimation.families.vision_clip import siglip
from heliosd.estimation.fields import Fields
from heliosd.estimation.layout import Block, Kind, Layout, Split, Tensor, linear, norm


def _modern_vbert(fields: Fields, head: Head) -> Layout:
    """SigLIP's tower, a projection of shuffled patches, ModernBERT."""
    text, seen = fields.part("text_config"), fields.part("vision_config")
    if text is None or seen is None:
        raise contradiction("it does not say both of its parts", "text_config" if text is None else "vision_config")
    task = task_of(fields, head)
    outer = "" if task is Task.BODY else "model."
    inside, width = f"{outer}text_model.", width_of(text)
    shuffled = positive(seen, "hidden_size") * positive(fields, "pixel_shuffle_factor", default=4) ** 2
    return Layout(
        first=under(inside, MODERN.embed(text)),
        blocks=tuple(Block(block.layers, under(inside, block.tensors)) for block in MODERN.stack(text) if block.layers),
        last=under(inside, MODERN.after(text)) + _modern_top(fields, text, task),
        towers=(
            *siglip(seen, f"{outer}vision_model"),
            *linear(f"{outer}connector.modality_projection", width, shuffled),
        ),
        tied=task is Task.WORDS and fields.flag("tie_word_embeddings"),
    )


def _modern_top(fields: Fields, text: Fields, task: Task) -> Tensors:
    if task is Task.BODY:
        return ()
    width = width_of(text)
    name = "projection_head" if task is Task.WORDS else "head"
    top = (
        *linear(f"{name}.dense", width, width, bias=text.flag("classifier_bias")),
        *norm(f"{name}.norm", width, bias=text.flag("norm_bias")),
    )
    if task is Task.WORDS:
        count, bias = positive(text, "vocab_size"), text.flag("decoder_bias", default=True)
        free = not fields.flag("tie_word_embeddings")
        return top + vocabulary("lm_head", count, width, weight=free, bias=bias)
    return top + linear("classifier", labels_of(fields), width, bias=True)


def _neomme_embeddings(fields: Fields) -> Tensors:
    """Words through a narrow table, patches of pixels through a small network."""
    width, count, rank = width_of(fields), positive(fields, "vocab_size"), positive(fields, "embedding_rank")
    pixels = 3 * positive(fields, "patch_size") ** 2
    return (
        *table("embed_tokens.word_embeddings", count, rank),
        *linear("embed_tokens.embedding_projection", width, rank),
        *norm("patch_embeddings.norm", pixels, bias=True),
        *linear("patch_embeddings.up_proj", 2 * width, pixels),
        *linear("patch_embeddings.down_proj", width, 2 * width, bias=True),
    )


def _neomme_layer(fields: Fields) -> Tensors:
    """Norms have no scale; attention leaves out each token's own value and gates its output."""
    width, heads = width_of(fields), heads_of(fields)
    inner, bias = heads.query * heads.dim, fields.flag("attention_bias")
    shared = tuple(t for t in grouped_attention(fields) if not t.name.startswith("self_attn.o_proj"))
    return (
        Tensor("lambdas", 2),
        *shared,
        Tensor("self_attn.exclusive_self_attention.alpha", heads.query, 1, Kind.PLAIN, Split.ROWS),
        *linear("self_attn.output_projection.gate_proj", inner, width, Split.ROWS),
        *linear("self_attn.output_projection.o_proj", width, inner, Split.COLUMNS, bias=bias),
        *mlp("mlp", width, positive(fields, "intermediate_size"), gated=False, bias=fields.flag("mlp_bias")),
    )


def _neomme_values(fields: Fields) -> Tensors:
    """A second table, added to the values of some layers."""
    heads, width = positive(fields, "num_attention_heads"), width_of(fields)
    shared = positive(fields, "num_key_value_heads", default=heads)
    return table("value_embeddings", positive(fields, "vocab_size"), shared * head_dim_of(fields, width, heads))


def _neomme_words(fields: Fields) -> Tensors:
    """Untied, the projection and what maps back to its rank are stored too."""
    if tied(fields):
        return ()
    rank = positive(fields, "embedding_rank")
    return (
        *linear("unembedding_projection", width_of(fields), rank),
        *vocabulary("lm_head", positive(fields, "vocab_size"), rank, weight=True, bias=False),
    )


FAMILIES: Mapping[str, Family] = {
    "modernvbert": _modern_vbert,
    "neomme": encoder(
        "model",
        _neomme_embeddings,
        equal("layers", _neomme_layer),
        _neomme_words,
        classifier,
        after=_neomme_values,
        pooler=nothing,
    ),
}
