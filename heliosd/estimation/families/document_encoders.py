"""Encoders of documents: where a word stands on the page, in the markup, in the table, beside what it says."""

from collections.abc import Mapping

from heliosd.estimation.families import bert
from heliosd.estimation.families.bert import pooler, prediction_words, two_layer_classes
from heliosd.estimation.families.encoding import (
    Tensors,
    classifier,
    dense,
    encoder,
    equal,
    nothing,
    table,
    under,
    width_of,
)
from heliosd.estimation.families.family import Family
from heliosd.estimation.families.sizes import layers_of, positive
from heliosd.estimation.fields import Fields
from heliosd.estimation.layout import Kind, Split, Tensor, linear, norm

_STACK = equal("encoder.layer", bert.layer)


def _layoutlm_embeddings(fields: Fields) -> Tensors:
    """Four more tables for where a word stands on the page."""
    places = positive(fields, "max_2d_position_embeddings")
    tables = tuple(table(f"embeddings.{axis}_position_embeddings", places, width_of(fields)) for axis in "xyhw")
    return (*bert.embeddings(fields), *(tensor for each in tables for tensor in each))


def _tapas_embeddings(fields: Fields) -> Tensors:
    """A table of segments for each of the ways in which a cell is described."""
    width = width_of(fields)
    sizes = [size for size in fields.items("type_vocab_sizes") if isinstance(size, int)]
    return (
        *table("embeddings.word_embeddings", positive(fields, "vocab_size"), width),
        *table("embeddings.position_embeddings", positive(fields, "max_position_embeddings"), width),
        *(
            tensor
            for index, size in enumerate(sizes)
            for tensor in table(f"embeddings.token_type_embeddings_{index}", size, width)
        ),
        *norm("embeddings.LayerNorm", width, bias=True),
    )


def _tapas_classes(fields: Fields) -> Tensors:
    return (*under("tapas.", pooler(fields)), *classifier(fields))


def _lilt_embeddings(fields: Fields) -> Tensors:
    """A narrower stream for the layout beside the text's."""
    width, narrow = width_of(fields), width_of(fields) // positive(fields, "channel_shrink_ratio")
    places, where = positive(fields, "max_2d_position_embeddings"), "layout_embeddings"
    axes = (table(f"{where}.{axis}_position_embeddings", places, width // 6) for axis in "xyhw")
    return (
        *bert.embeddings(fields),
        *(tensor for axis in axes for tensor in axis),
        *table(f"{where}.box_position_embeddings", positive(fields, "max_position_embeddings"), narrow),
        *dense(f"{where}.box_linear_embeddings", narrow, width // 6 * 6),
        *norm(f"{where}.LayerNorm", narrow, bias=True),
    )


def _lilt_layer(fields: Fields) -> Tensors:
    shrink = positive(fields, "channel_shrink_ratio")
    narrow, inner = width_of(fields) // shrink, positive(fields, "intermediate_size") // shrink
    return (
        *bert.layer(fields),
        *dense("attention.self.layout_query", narrow, narrow, Split.ROWS),
        *dense("attention.self.layout_key", narrow, narrow, Split.ROWS),
        *dense("attention.self.layout_value", narrow, narrow, Split.ROWS),
        *dense("attention.layout_output.dense", narrow, narrow, Split.COLUMNS),
        *norm("attention.layout_output.LayerNorm", narrow, bias=True),
        *dense("layout_intermediate.dense", inner, narrow, Split.ROWS),
        *dense("layout_output.dense", narrow, inner, Split.COLUMNS),
        *norm("layout_output.LayerNorm", narrow, bias=True),
    )


def _markup_embeddings(fields: Fields) -> Tensors:
    """The path of tags and subscripts from a document's root to the word, one narrow table for each depth."""
    width, narrow = width_of(fields), positive(fields, "xpath_unit_hidden_size")
    depth, where = layers_of(fields, "max_depth"), "embeddings.xpath_embeddings"
    tags, places = positive(fields, "max_xpath_tag_unit_embeddings"), positive(fields, "max_xpath_subs_unit_embeddings")
    path = depth * narrow
    return (
        *bert.embeddings(fields),
        *dense(f"{where}.xpath_unitseq2_embeddings", width, path),
        *dense(f"{where}.xpath_unitseq2_inner", 4 * width, path),
        *dense(f"{where}.inner2emb", width, 4 * width),
        Tensor(f"{where}.xpath_tag_sub_embeddings.weight", tags, narrow, Kind.EMBEDDING, copies=depth),
        Tensor(f"{where}.xpath_subs_sub_embeddings.weight", places, narrow, Kind.EMBEDDING, copies=depth),
    )


def _page_embeddings(fields: Fields) -> Tensors:
    """LayoutLM 3: where a word stands, and patches of the page's image."""
    width, places = width_of(fields), positive(fields, "max_2d_position_embeddings")
    across, along = positive(fields, "coordinate_size"), positive(fields, "shape_size")
    sizes = (("x", across), ("y", across), ("h", along), ("w", along))
    axes = (table(f"embeddings.{axis}_position_embeddings", places, size) for axis, size in sizes)
    return (*bert.embeddings(fields), *(tensor for axis in axes for tensor in axis), *_page_image(fields, width))


def _page_image(fields: Fields, width: int) -> Tensors:
    if not fields.flag("visual_embed", default=True):
        return ()
    patch, colours = positive(fields, "patch_size"), positive(fields, "num_channels")
    patches = (positive(fields, "input_size") // patch) ** 2
    return (
        Tensor("cls_token", width),
        Tensor("pos_embed", patches + 1, width),
        Tensor("patch_embed.proj.weight", width, colours * patch * patch),
        Tensor("patch_embed.proj.bias", width),
        *norm("LayerNorm", width, bias=True),
        *norm("norm", width, bias=True),
    )


def _page_after(fields: Fields) -> Tensors:
    heads = positive(fields, "num_attention_heads")
    near = fields.whole("rel_pos_bins") if fields.flag("has_relative_attention_bias", default=True) else 0
    flat = fields.whole("rel_2d_pos_bins") if fields.flag("has_spatial_attention_bias", default=True) else 0
    return (
        *(linear("encoder.rel_pos_bias", heads, near) if near else ()),
        *(linear("encoder.rel_pos_x_bias", heads, flat) if flat else ()),
        *(linear("encoder.rel_pos_y_bias", heads, flat) if flat else ()),
    )


FAMILIES: Mapping[str, Family] = {
    "layoutlm": encoder(
        "layoutlm", _layoutlm_embeddings, _STACK, prediction_words, classifier, after=pooler
    ),
    "tapas": encoder("tapas", _tapas_embeddings, _STACK, prediction_words, _tapas_classes, pooler=pooler),
    "lilt": encoder(
        "lilt", _lilt_embeddings, equal("encoder.layer", _lilt_layer), nothing, two_layer_classes, pooler=pooler
    ),
    "markuplm": encoder(
        "markuplm", _markup_embeddings, equal("encoder.layer", bert.layer), nothing, classifier, after=pooler
    ),
    "layoutlmv3": encoder(
        "layoutlmv3", _page_embeddings, equal("encoder.layer", bert.layer), nothing, two_layer_classes,
        after=_page_after,
    ),
}  # fmt: skip
