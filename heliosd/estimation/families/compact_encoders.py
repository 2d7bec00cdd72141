"""BERT made smaller: shared layers (ALBERT), fewer (DistilBERT), bottlenecks (MobileBERT), groups (SqueezeBERT),
convolutions in place of heads (ConvBERT), Fourier transforms in place of attention (FNet)."""

from collections.abc import Mapping

from heliosd.estimation.families import bert
from heliosd.estimation.families.bert import embedding_size, flat_pooler, pooler, prediction_words, two_layer_classes
from heliosd.estimation.families.encoding import (
    Tensors,
    classifier,
    dense,
    divided_heads,
    encoder,
    equal,
    joined,
    table,
    tied,
    under,
    vocabulary,
    width_of,
)
from heliosd.estimation.families.family import Family
from heliosd.estimation.families.sizes import divided, layers_of, positive
from heliosd.estimation.fields import Fields
from heliosd.estimation.layout import Block, Split, Tensor, linear, norm


def _albert_embeddings(fields: Fields) -> Tensors:
    mapping = dense("encoder.embedding_hidden_mapping_in", width_of(fields), embedding_size(fields))
    return (*bert.embeddings(fields), *mapping)


def _albert_stack(fields: Fields) -> tuple[Block, ...]:
    """Groups of layers, each stored once however often it runs."""
    groups, inside = layers_of(fields, "num_hidden_groups"), layers_of(fields, "inner_group_num")
    width, inner = width_of(fields), positive(fields, "intermediate_size")
    divided_heads(fields, width)
    layer = (
        *norm("full_layer_layer_norm", width, bias=True),
        *dense("attention.query", width, width, Split.ROWS),
        *dense("attention.key", width, width, Split.ROWS),
        *dense("attention.value", width, width, Split.ROWS),
        *dense("attention.dense", width, width, Split.COLUMNS),
        *norm("attention.LayerNorm", width, bias=True),
        *dense("ffn", inner, width, Split.ROWS),
        *dense("ffn_output", width, inner, Split.COLUMNS),
    )
    where = "encoder.albert_layer_groups.{}.albert_layers"
    stored = tuple(tensor for index in range(inside) for tensor in under(f"{where}.{index}.", layer))
    return (Block(tuple(range(groups)), stored),)


def _albert_words(fields: Fields) -> Tensors:
    narrow, count, free = embedding_size(fields), positive(fields, "vocab_size"), not tied(fields)
    return (
        *vocabulary("predictions", count, narrow, weight=False),
        *norm("predictions.LayerNorm", narrow, bias=True),
        *dense("predictions.dense", narrow, width_of(fields)),
        *vocabulary("predictions.decoder", count, narrow, weight=free, bias=free),
    )


def _albert_classes(fields: Fields) -> Tensors:
    return (*under("albert.", flat_pooler(fields)), *classifier(fields))


def _distil_embeddings(fields: Fields) -> Tensors:
    width = width_of(fields)
    return (
        *table("embeddings.word_embeddings", positive(fields, "vocab_size"), width),
        *table("embeddings.position_embeddings", positive(fields, "max_position_embeddings"), width),
        *norm("embeddings.LayerNorm", width, bias=True),
    )


def _distil_layer(fields: Fields) -> Tensors:
    width, inner = width_of(fields), positive(fields, "hidden_dim")
    divided_heads(fields, width, "n_heads")
    return (
        *dense("attention.q_lin", width, width, Split.ROWS),
        *dense("attention.k_lin", width, width, Split.ROWS),
        *dense("attention.v_lin", width, width, Split.ROWS),
        *dense("attention.out_lin", width, width, Split.COLUMNS),
        *norm("sa_layer_norm", width, bias=True),
        *dense("ffn.lin1", inner, width, Split.ROWS),
        *dense("ffn.lin2", width, inner, Split.COLUMNS),
        *norm("output_layer_norm", width, bias=True),
    )


def _distil_words(fields: Fields) -> Tensors:
    width = width_of(fields)
    return (
        *dense("vocab_transform", width, width),
        *norm("vocab_layer_norm", width, bias=True),
        *vocabulary("vocab_projector", positive(fields, "vocab_size"), width, weight=not tied(fields)),
    )


def _distil_classes(fields: Fields) -> Tensors:
    return (*dense("pre_classifier", width_of(fields), width_of(fields)), *classifier(fields))


def _mobile_embeddings(fields: Fields) -> Tensors:
    """Three neighbouring tokens make one."""
    wide, narrow = width_of(fields), positive(fields, "embedding_size")
    together = narrow * (3 if fields.flag("trigram_input", default=True) else 1)
    return (
        *table("embeddings.word_embeddings", positive(fields, "vocab_size"), narrow),
        *table("embeddings.position_embeddings", positive(fields, "max_position_embeddings"), wide),
        *table("embeddings.token_type_embeddings", fields.whole("type_vocab_size"), wide),
        *dense("embeddings.embedding_transformation", wide, together),
        *norm("embeddings.LayerNorm", wide, bias=True),
    )


def _mobile_layer(fields: Fields) -> Tensors:
    """Everything happens in a bottleneck; several feed-forwards follow one another."""
    wide, narrow = width_of(fields), positive(fields, "intra_bottleneck_size")
    bottled = fields.flag("use_bottleneck", default=True)
    inside = narrow if bottled else wide
    inner = positive(fields, "intermediate_size")
    divided_heads(fields, inside)
    values = inside if fields.flag("use_bottleneck_attention") else wide
    feeds = (
        *dense("intermediate.dense", inner, inside, Split.ROWS),
        *dense("output.dense", inside, inner, Split.COLUMNS),
        *norm("output.LayerNorm", inside, bias=True),
    )
    more = layers_of(fields, "num_feedforward_networks") - 1
    return (
        *dense("attention.self.query", inside, inside, Split.ROWS),
        *dense("attention.self.key", inside, inside, Split.ROWS),
        *dense("attention.self.value", inside, values, Split.ROWS),
        *dense("attention.output.dense", inside, inside, Split.COLUMNS),
        *norm("attention.output.LayerNorm", inside, bias=True),
        *feeds,
        *(_bottlenecks(fields, wide, narrow) if bottled else ()),
        *(tensor for index in range(more) for tensor in under(f"ffn.{index}.", feeds)),
    )


def _bottlenecks(fields: Fields, wide: int, narrow: int) -> Tensors:
    shared = fields.flag("key_query_shared_bottleneck", default=True) and not fields.flag("use_bottleneck_attention")
    doors = ("bottleneck.input", "bottleneck.attention") if shared else ("bottleneck.input",)
    return (
        *dense("output.bottleneck.dense", wide, narrow),
        *norm("output.bottleneck.LayerNorm", wide, bias=True),
        *(
            tensor
            for door in doors
            for tensor in (*dense(f"{door}.dense", narrow, wide), *norm(f"{door}.LayerNorm", narrow, bias=True))
        ),
    )


def _mobile_words(fields: Fields) -> Tensors:
    """The projection's rows are the embedding's, widened by rows of its own."""
    wide, narrow, count = width_of(fields), positive(fields, "embedding_size"), positive(fields, "vocab_size")
    free = not tied(fields)
    return (
        *vocabulary("cls.predictions", count, narrow, weight=False),
        *dense("cls.predictions.transform.dense", wide, wide),
        *norm("cls.predictions.transform.LayerNorm", wide, bias=True),
        *(linear("cls.predictions.dense", wide - narrow, count) if wide > narrow else ()),
        *vocabulary("cls.predictions.decoder", count, narrow, weight=free, bias=free),
    )


def _mobile_pooler(fields: Fields) -> Tensors:
    return pooler(fields) if fields.flag("classifier_activation", default=True) else ()


def _mobile_classes(fields: Fields) -> Tensors:
    return (*under("mobilebert.", _mobile_pooler(fields)), *classifier(fields))


def _squeeze_layer(fields: Fields) -> Tensors:
    """Projections in groups: each group of outputs sees its group of inputs."""
    width, inner = width_of(fields), positive(fields, "intermediate_size")
    divided_heads(fields, width)

    def grouped(name: str, rows: int, columns: int, groups: str, split: Split) -> Tensors:
        each = divided(columns, positive(fields, groups, default=4), "the width", groups)
        return dense(name, rows, each, split)

    return (
        *grouped("attention.query", width, width, "q_groups", Split.ROWS),
        *grouped("attention.key", width, width, "k_groups", Split.ROWS),
        *grouped("attention.value", width, width, "v_groups", Split.ROWS),
        *grouped("post_attention.conv1d", width, width, "post_attention_groups", Split.COLUMNS),
        *norm("post_attention.layernorm", width, bias=True),
        *grouped("intermediate.conv1d", inner, width, "intermediate_groups", Split.ROWS),
        *grouped("output.conv1d", width, inner, "output_groups", Split.COLUMNS),
        *norm("output.layernorm", width, bias=True),
    )


def _conv_layer(fields: Fields) -> Tensors:
    """Some heads attend, for the others a convolution is made for each token."""
    width, where = width_of(fields), "attention.self"
    heads = positive(fields, "num_attention_heads")
    fewer = max(1, heads // positive(fields, "head_ratio"))
    # Half the width that the remaining heads could have: the convolution gives the other half.
    each = divided(width, fewer, "the width", "num_attention_heads") // 2
    inner, kernel = fewer * each, positive(fields, "conv_kernel_size")
    return (
        *dense(f"{where}.query", inner, width, Split.ROWS),
        *dense(f"{where}.key", inner, width, Split.ROWS),
        *dense(f"{where}.value", inner, width, Split.ROWS),
        Tensor(f"{where}.key_conv_attn_layer.bias", inner),
        Tensor(f"{where}.key_conv_attn_layer.depthwise.weight", width, kernel),
        Tensor(f"{where}.key_conv_attn_layer.pointwise.weight", inner, width),
        *dense(f"{where}.conv_kernel_layer", fewer * kernel, inner),
        *dense(f"{where}.conv_out_layer", inner, width, Split.ROWS),
        *dense("attention.output.dense", width, width, Split.COLUMNS),
        *norm("attention.output.LayerNorm", width, bias=True),
        *_grouped_feed(fields),
        *norm("output.LayerNorm", width, bias=True),
    )


def _grouped_feed(fields: Fields) -> Tensors:
    width, inner, groups = width_of(fields), positive(fields, "intermediate_size"), positive(fields, "num_groups")
    return (
        *dense("intermediate.dense", inner, divided(width, groups, "the width", "num_groups"), Split.ROWS),
        *dense("output.dense", width, divided(inner, groups, "the width", "num_groups"), Split.COLUMNS),
    )


def _fourier_layer(fields: Fields) -> Tensors:
    width = width_of(fields)
    return (
        *norm("fourier.output.LayerNorm", width, bias=True),
        *bert.feed_forward(fields),
        *norm("output.LayerNorm", width, bias=True),
    )


def _fourier_embeddings(fields: Fields) -> Tensors:
    return (*bert.embeddings(fields), *dense("embeddings.projection", width_of(fields), width_of(fields)))


def _squeeze_embeddings(fields: Fields) -> Tensors:
    return (*bert.words_and_places(fields), *norm("embeddings.LayerNorm", embedding_size(fields), bias=True))


FAMILIES: Mapping[str, Family] = {
    "albert": encoder(
        "albert", _albert_embeddings, _albert_stack, _albert_words, _albert_classes, pooler=flat_pooler
    ),
    "distilbert": encoder(
        "distilbert", _distil_embeddings, equal("transformer.layer", _distil_layer, "n_layers"), _distil_words,
        _distil_classes,
    ),
    "mobilebert": encoder(
        "mobilebert", _mobile_embeddings, equal("encoder.layer", _mobile_layer), _mobile_words, _mobile_classes,
        pooler=_mobile_pooler,
    ),
    "squeezebert": encoder(
        "transformer", _squeeze_embeddings, equal("encoder.layers", _squeeze_layer), prediction_words, classifier,
        after=pooler,
    ),
    "convbert": encoder(
        "convbert", joined(bert.embeddings, bert.widening), equal("encoder.layer", _conv_layer),
        bert.generator_words, two_layer_classes,
    ),
    "fnet": encoder(
        "fnet", _fourier_embeddings, equal("encoder.layer", _fourier_layer), prediction_words, classifier,
        after=pooler,
    ),
}  # fmt: skip
