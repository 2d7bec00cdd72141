"""Encoders of text: BERT's shape with its variations here, other shapes in their own files.

Each is served for embeddings, for classes and scores, or as the decoder it can be turned into. What a model has besides
its layers (a pooler, a classifier, an output projection) follows from its architecture's name.
"""

from collections.abc import Mapping

from heliosd.estimation.families import bert, modern_encoders, rare_encoders, seeing_encoders
from heliosd.estimation.families.bert import (
    lm_head_words,
    pooler,
    prediction_words,
    two_layer_classes,
)
from heliosd.estimation.families.encoding import (
    Part,
    Tensors,
    classifier,
    dense,
    divided_heads,
    encoder,
    equal,
    joined,
    nothing,
    table,
    tied,
    under,
    vocabulary,
    width_of,
)
from heliosd.estimation.families.family import Family
from heliosd.estimation.families.sizes import positive
from heliosd.estimation.fields import Fields
from heliosd.estimation.layout import Kind, Split, Tensor, linear, norm

_STACK = equal("encoder.layer", bert.layer)


def _pooled(root: str) -> Part:
    """A classifier upon BERT's pooler."""
    return lambda fields: (*under(f"{root}.", pooler(fields)), *classifier(fields))


def _bert(root: str, embed: Part = bert.embeddings) -> Family:
    """With a pooler unless it predicts words."""

    def pretraining(fields: Fields) -> Tensors:
        """Words and whether one sentence follows the other."""
        follows = dense("cls.seq_relationship", 2, width_of(fields))
        return (*under(f"{root}.", pooler(fields)), *prediction_words(fields), *follows)

    return encoder(root, embed, _STACK, prediction_words, _pooled(root), pooler=pooler, pretraining=pretraining)


def _roberta(root: str, layer: Part = bert.layer) -> Family:
    stack = equal("encoder.layer", layer)
    return encoder(root, bert.embeddings, stack, lm_head_words, two_layer_classes, pooler=pooler)


def _no_pooler(root: str, layer: Part = bert.layer) -> Family:
    stack = equal("encoder.layer", layer)
    return encoder(root, _two_places_more, stack, prediction_words, two_layer_classes)


def _two_places_more(fields: Fields) -> Tensors:
    """Positions are counted from two."""
    more = table("embeddings.position_embeddings", positive(fields, "max_position_embeddings") + 2, width_of(fields))
    return tuple(more[0] if "position" in tensor.name else tensor for tensor in bert.embeddings(fields))


def _ernie_embeddings(fields: Fields) -> Tensors:
    tasks = positive(fields, "task_type_vocab_size") if fields.flag("use_task_id") else 0
    return bert.embeddings(fields) + table("embeddings.task_type_embeddings", tasks, width_of(fields))


def _roc_embeddings(fields: Fields) -> Tensors:
    """A character's sound and shape beside its identity, mapped to the width together."""
    width = width_of(fields)
    sound, shape = positive(fields, "pronunciation_embed_dim"), positive(fields, "shape_embed_dim")
    together = width
    together += sound if fields.flag("enable_pronunciation") else 0
    together += shape if fields.flag("enable_shape") else 0
    mapping = dense("embeddings.map_inputs_layer", width, together) if fields.flag("concat_input") else ()
    return (
        *bert.embeddings(fields),
        *table("embeddings.pronunciation_embed", positive(fields, "pronunciation_vocab_size"), sound),
        *table("embeddings.shape_embed", positive(fields, "shape_vocab_size"), shape),
        *mapping,
    )


def _longformer_layer(fields: Fields) -> Tensors:
    """A second set of projections for the tokens that attend to all."""
    width = width_of(fields)
    globals_ = (dense(f"attention.self.{name}_global", width, width, Split.ROWS) for name in ("query", "key", "value"))
    return (*bert.layer(fields), *(tensor for each in globals_ for tensor in each))


def _nystrom_layer(fields: Fields) -> Tensors:
    kernel = fields.whole("conv_kernel_size", default=0)
    heads = positive(fields, "num_attention_heads")
    conv = (Tensor("attention.self.conv.weight", heads, kernel, Kind.PLAIN, Split.ROWS),) if kernel else ()
    return bert.layer(fields) + conv


def _xmod_layer(fields: Fields) -> Tensors:
    """An adapter for each language after the feed-forward."""
    width = width_of(fields)
    narrow = width // positive(fields, "adapter_reduction_factor")
    own_norm = norm("output.adapter_layer_norm", width, bias=True) if fields.flag("adapter_layer_norm") else ()
    adapters = tuple(
        tensor
        for language in fields.items("languages")
        for name, rows, columns in (("dense1", narrow, width), ("dense2", width, narrow))
        for tensor in dense(f"output.adapter_modules.{language}.{name}", rows, columns)
    )
    return bert.layer(fields) + own_norm + adapters


def _xmod_after(fields: Fields) -> Tensors:
    return norm("LayerNorm", width_of(fields), bias=True) if fields.flag("pre_norm") else ()


def _early_norms_layer(attention: str, feed_forward: str, cross: str) -> Part:
    """A layer whose norms come before attention and before the feed-forward, under these names."""

    def layer(fields: Fields) -> Tensors:
        width = width_of(fields)
        crossed = fields.flag("is_decoder") and fields.flag("add_cross_attention")
        second = (*bert.attention(fields, "crossattention"), *norm(cross, width, bias=True)) if crossed else ()
        return (
            *bert.attention(fields, "attention"),
            *norm(attention, width, bias=True),
            *second,
            *bert.feed_forward(fields),
            *norm(feed_forward, width, bias=True),
        )

    return layer


def _final_norm(name: str) -> Part:
    return lambda fields: norm(name, width_of(fields), bias=True)


_MEGATRON = equal("encoder.layer", _early_norms_layer("attention.ln", "ln", "crossattention.ln"))
_XLM_XL = equal(
    "encoder.layer",
    _early_norms_layer("attention.self_attn_layer_norm", "LayerNorm", "crossattention.self_attn_layer_norm"),
)
_PRE_LAYER_NORM = equal(
    "encoder.layer",
    _early_norms_layer("attention.LayerNorm", "intermediate.LayerNorm", "crossattention.LayerNorm"),
)


def _big_bird_layer(fields: Fields) -> Tensors:
    """Query, key and value may go without biases."""
    whole = bert.layer(fields)
    if fields.flag("use_bias", default=True):
        return whole
    return tuple(tensor for tensor in whole if ".self." not in tensor.name or not tensor.name.endswith(".bias"))


def _generation_words(fields: Fields) -> Tensors:
    """A bias and nothing else when tied."""
    count, free = positive(fields, "vocab_size"), not tied(fields)
    return (
        *vocabulary("lm_head", count, width_of(fields), weight=False),
        *vocabulary("lm_head.decoder", count, width_of(fields), weight=free, bias=free),
    )


def _rembert_embeddings(fields: Fields) -> Tensors:
    """Narrow embeddings in, wide ones out."""
    narrow = positive(fields, "input_embedding_size")
    return (
        *table("embeddings.word_embeddings", positive(fields, "vocab_size"), narrow),
        *table("embeddings.position_embeddings", positive(fields, "max_position_embeddings"), narrow),
        *table("embeddings.token_type_embeddings", fields.whole("type_vocab_size"), narrow),
        *norm("embeddings.LayerNorm", narrow, bias=True),
        *dense("encoder.embedding_hidden_mapping_in", width_of(fields), narrow),
    )


def _rembert_words(fields: Fields) -> Tensors:
    """Never tied: the output embedding is wider than the input's."""
    wide = positive(fields, "output_embedding_size", default=1664)
    return (
        *dense("cls.predictions.dense", wide, width_of(fields)),
        *vocabulary("cls.predictions.decoder", positive(fields, "vocab_size"), wide, weight=True),
        *norm("cls.predictions.LayerNorm", wide, bias=True),
    )


def _roformer_embeddings(fields: Fields) -> Tensors:
    """No table of positions; their rotation is kept as a parameter of the encoder."""
    narrow = fields.whole("embedding_size") if fields.given("embedding_size") else width_of(fields)
    wide = width_of(fields)
    turns = wide // positive(fields, "num_attention_heads")
    return (
        *table("embeddings.word_embeddings", positive(fields, "vocab_size"), narrow),
        *table("embeddings.token_type_embeddings", fields.whole("type_vocab_size"), narrow),
        *norm("embeddings.LayerNorm", narrow, bias=True),
        *(dense("embeddings_project", wide, narrow) if narrow != wide else ()),
        Tensor("encoder.embed_positions.weight", positive(fields, "max_position_embeddings"), turns, Kind.EMBEDDING),
    )


def _mpnet_layer(fields: Fields) -> Tensors:
    width = width_of(fields)
    divided_heads(fields, width)
    return (
        *dense("attention.attn.q", width, width, Split.ROWS),
        *dense("attention.attn.k", width, width, Split.ROWS),
        *dense("attention.attn.v", width, width, Split.ROWS),
        *dense("attention.attn.o", width, width, Split.COLUMNS),
        *norm("attention.LayerNorm", width, bias=True),
        *bert.feed_forward(fields),
        *norm("output.LayerNorm", width, bias=True),
    )


def _mpnet_positions(fields: Fields) -> Tensors:
    buckets = positive(fields, "relative_attention_num_buckets")
    return linear("encoder.relative_attention_bias", buckets, positive(fields, "num_attention_heads"))


def _no_segments(fields: Fields) -> Tensors:
    """Words and positions only, whatever is said of segments."""
    width = width_of(fields)
    return (
        *table("embeddings.word_embeddings", positive(fields, "vocab_size"), width),
        *table("embeddings.position_embeddings", positive(fields, "max_position_embeddings"), width),
        *norm("embeddings.LayerNorm", width, bias=True),
    )


def _discriminator(fields: Fields) -> Tensors:
    """ELECTRA's: whether a token was replaced."""
    width = width_of(fields)
    return (
        *dense("discriminator_predictions.dense", width, width),
        *dense("discriminator_predictions.dense_prediction", 1, width),
    )


_SHAPED: dict[str, Family] = {
    "bert": _bert("bert"),
    "ernie": _bert("ernie", _ernie_embeddings),
    "roc_bert": _bert("roc_bert", _roc_embeddings),
    "rembert": encoder(
        "rembert", _rembert_embeddings, _STACK, _rembert_words, _pooled("rembert"), pooler=pooler
    ),
    "megatron-bert": encoder(
        "bert", bert.words_and_places, _MEGATRON, prediction_words, _pooled("bert"),
        pooler=pooler, after=_final_norm("encoder.ln"),
    ),
    "bert-generation": encoder(
        "bert", _no_segments, _STACK, _generation_words, nothing,
    ),
    "roberta": _roberta("roberta"),
    "xlm-roberta": _roberta("roberta"),
    "camembert": _roberta("roberta"),
    "data2vec-text": _roberta("data2vec_text"),
    "ibert": _roberta("ibert"),
    "longformer": _roberta("longformer", _longformer_layer),
    "xmod": encoder(
        "roberta", bert.embeddings, equal("encoder.layer", _xmod_layer), lm_head_words, two_layer_classes,
        pooler=pooler, after=_xmod_after,
    ),
    "roberta-prelayernorm": encoder(
        "roberta_prelayernorm", bert.embeddings, _PRE_LAYER_NORM, lm_head_words, two_layer_classes,
        pooler=pooler, after=_final_norm("LayerNorm"),
    ),
    "xlm-roberta-xl": encoder(
        "roberta", bert.words_and_places, _XLM_XL, lm_head_words, two_layer_classes,
        pooler=pooler, after=_final_norm("encoder.LayerNorm"),
    ),
    "mra": _no_pooler("mra"),
    "yoso": _no_pooler("yoso"),
    "nystromformer": _no_pooler("nystromformer", _nystrom_layer),
    "roformer": encoder("roformer", _roformer_embeddings, _STACK, prediction_words, two_layer_classes),
    "big_bird": encoder(
        "bert", bert.embeddings, equal("encoder.layer", _big_bird_layer), prediction_words, two_layer_classes,
        after=bert.flat_pooler,
    ),
    "mpnet": encoder(
        "mpnet", joined(_no_segments, _mpnet_positions), equal("encoder.layer", _mpnet_layer), lm_head_words,
        two_layer_classes, pooler=pooler,
    ),
    "electra": encoder(
        "electra", joined(bert.embeddings, bert.widening), _STACK, bert.generator_words, two_layer_classes,
        pretraining=_discriminator,
    ),
}  # fmt: skip

FAMILIES: Mapping[str, Family] = {
    **_SHAPED,
    **modern_encoders.FAMILIES,
    **rare_encoders.FAMILIES,
    **seeing_encoders.FAMILIES,
}
