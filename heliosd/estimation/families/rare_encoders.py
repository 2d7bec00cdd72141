"""Encoders that are rarely served: of proteins, characters, entities, many languages, and of XLNet's kind."""

from collections.abc import Mapping

from heliosd.estimation.families import bert, compact_encoders, deberta, document_encoders, perceiver, reformer
from heliosd.estimation.families.bert import pooler, two_layer_classes
from heliosd.estimation.families.encoding import (
    Tensors,
    architecture_of,
    classifier,
    dense,
    divided_heads,
    encoder,
    equal,
    nothing,
    table,
    tied,
    under,
    vocabulary,
    width_of,
)
from heliosd.estimation.families.family import Family
from heliosd.estimation.families.sizes import MOST_LAYERS, contradiction, labels_of, layers_of, positive
from heliosd.estimation.fields import Fields
from heliosd.estimation.layout import Block, Kind, Split, Tensor, linear, norm


def _esm_embeddings(fields: Fields) -> Tensors:
    width = width_of(fields)
    learned = fields.text("position_embedding_type", default="absolute") == "absolute"
    places = positive(fields, "max_position_embeddings") if learned else 0
    early = norm("embeddings.layer_norm", width, bias=True) if fields.flag("emb_layer_norm_before") else ()
    return (
        *table("embeddings.word_embeddings", positive(fields, "vocab_size"), width),
        *table("embeddings.position_embeddings", places, width),
        *early,
    )


def _esm_layer(fields: Fields) -> Tensors:
    """Norms come first."""
    width = width_of(fields)
    return (
        *bert.attention(fields, "attention"),
        *norm("attention.LayerNorm", width, bias=True),
        *bert.feed_forward(fields),
        *norm("LayerNorm", width, bias=True),
    )


def _esm_after(fields: Fields) -> Tensors:
    """A final norm, and what reads contacts off every head's attention."""
    seen = layers_of(fields) * positive(fields, "num_attention_heads")
    return (
        *norm("encoder.emb_layer_norm_after", width_of(fields), bias=True),
        *linear("contact_head.regression", 1, seen, bias=True),
    )


def _esm_words(fields: Fields) -> Tensors:
    width, count = width_of(fields), positive(fields, "vocab_size")
    return (
        *vocabulary("lm_head", count, width, weight=False),
        *dense("lm_head.dense", width, width),
        *norm("lm_head.layer_norm", width, bias=True),
        *vocabulary("lm_head.decoder", count, width, weight=not tied(fields), bias=False),
    )


def _luke_layer(fields: Fields) -> Tensors:
    """Queries of their own for words about entities, entities about words, entities about entities."""
    width = width_of(fields)
    names = ("w2e_query", "e2w_query", "e2e_query") if fields.flag("use_entity_aware_attention", default=True) else ()
    own = (dense(f"attention.self.{name}", width, width, Split.ROWS) for name in names)
    return (*bert.layer(fields), *(tensor for each in own for tensor in each))


def _luke_embeddings(fields: Fields) -> Tensors:
    wide, narrow = width_of(fields), positive(fields, "entity_emb_size")
    where = "entity_embeddings"
    return (
        *bert.embeddings(fields),
        *table(f"{where}.entity_embeddings", positive(fields, "entity_vocab_size"), narrow),
        *(linear(f"{where}.entity_embedding_dense", wide, narrow) if narrow != wide else ()),
        *table(f"{where}.position_embeddings", positive(fields, "max_position_embeddings"), wide),
        *table(f"{where}.token_type_embeddings", fields.whole("type_vocab_size"), wide),
        *norm(f"{where}.LayerNorm", wide, bias=True),
    )


def _luke_words(fields: Fields) -> Tensors:
    """Words, whose projection never is the embedding, and entities, whose may be."""
    wide, narrow, free = width_of(fields), positive(fields, "entity_emb_size"), not tied(fields)
    words, entities = positive(fields, "vocab_size"), positive(fields, "entity_vocab_size")
    return (
        *bert.lm_head_words(fields),
        *(() if free else vocabulary("lm_head.decoder", words, wide, weight=True, bias=False)),
        *vocabulary("entity_predictions", entities, narrow, weight=False),
        *dense("entity_predictions.transform.dense", narrow, wide),
        *norm("entity_predictions.transform.LayerNorm", narrow, bias=True),
        *vocabulary("entity_predictions.decoder", entities, narrow, weight=free, bias=False),
    )


def _xlm_embeddings(fields: Fields) -> Tensors:
    width, languages = width_of(fields), fields.whole("n_langs", default=1)
    spoken = languages if languages > 1 and fields.flag("use_lang_emb", default=True) else 0
    return (
        *table("position_embeddings", positive(fields, "max_position_embeddings"), width),
        *table("lang_embeddings", spoken, width),
        *table("embeddings", positive(fields, "vocab_size", "n_words"), width),
        *norm("layer_norm_emb", width, bias=True),
    )


def _xlm_stack(fields: Fields) -> tuple[Block, ...]:
    """Lists of attentions, norms and networks beside one another."""
    width, layers = width_of(fields), layers_of(fields, "n_layers", "n_layer")
    divided_heads(fields, width, "n_heads")
    inner = 4 * width
    layer = (
        *dense("attentions.{}.q_lin", width, width, Split.ROWS),
        *dense("attentions.{}.k_lin", width, width, Split.ROWS),
        *dense("attentions.{}.v_lin", width, width, Split.ROWS),
        *dense("attentions.{}.out_lin", width, width, Split.COLUMNS),
        *norm("layer_norm1.{}", width, bias=True),
        *dense("ffns.{}.lin1", inner, width, Split.ROWS),
        *dense("ffns.{}.lin2", width, inner, Split.COLUMNS),
        *norm("layer_norm2.{}", width, bias=True),
    )
    return (Block(tuple(range(layers)), layer),)


def _xlm_words(fields: Fields) -> Tensors:
    """One projection; the adaptive one, in parts by frequency, is refused."""
    if fields.flag("asm"):
        raise contradiction("the adaptive softmax is not laid out", "asm")
    count = positive(fields, "vocab_size", "n_words")
    return vocabulary("pred_layer.proj", count, width_of(fields), weight=not tied(fields))


def _summary(fields: Fields) -> Tensors:
    """The first token's state projected onto the classes."""
    if not fields.flag("summary_use_proj", default=True):
        return ()
    rows = labels_of(fields) if fields.flag("summary_proj_to_labels", default=True) else width_of(fields)
    return dense("sequence_summary.summary", rows, width_of(fields))


def _xlnet_embeddings(fields: Fields) -> Tensors:
    width = positive(fields, "d_model", "hidden_size")
    return (
        Tensor("mask_emb", width),
        *table("word_embedding", positive(fields, "vocab_size"), width),
    )


def _xlnet_layer(fields: Fields) -> Tensors:
    """Five projections stored by heads, and biases by heads for content, position and segment."""
    width, heads = positive(fields, "d_model", "hidden_size"), positive(fields, "n_head", "num_attention_heads")
    dim, inner = divided_heads(fields, width, "n_head") and width // heads, positive(fields, "d_inner")
    return (
        *(Tensor(f"rel_attn.{name}", width, heads * dim, Kind.LINEAR) for name in "qkvor"),
        *(Tensor(f"rel_attn.{name}", heads, dim) for name in ("r_r_bias", "r_s_bias", "r_w_bias")),
        Tensor("rel_attn.seg_embed", 2 * heads, dim),
        *norm("rel_attn.layer_norm", width, bias=True),
        *norm("ff.layer_norm", width, bias=True),
        *dense("ff.layer_1", inner, width, Split.ROWS),
        *dense("ff.layer_2", width, inner, Split.COLUMNS),
    )


def _xlnet_words(fields: Fields) -> Tensors:
    width = positive(fields, "d_model", "hidden_size")
    return vocabulary("lm_loss", positive(fields, "vocab_size"), width, weight=not tied(fields))


def _xlnet_classes(fields: Fields) -> Tensors:
    width = positive(fields, "d_model", "hidden_size")
    summary = dense("sequence_summary.summary", width, width) if fields.flag("summary_use_proj", default=True) else ()
    return (*summary, *dense("logits_proj", labels_of(fields), width))


def _funnel_layer(fields: Fields) -> Tensors:
    width, inner = positive(fields, "d_model"), positive(fields, "d_inner")
    heads, dim = positive(fields, "n_head"), positive(fields, "d_head")
    wide = heads * dim
    return (
        *(Tensor(f"attention.{name}", heads, dim) for name in ("r_w_bias", "r_r_bias", "r_s_bias")),
        Tensor("attention.r_kernel", width, wide),
        Tensor("attention.seg_embed", 2 * heads, dim),
        *linear("attention.q_head", wide, width, Split.ROWS),
        *dense("attention.k_head", wide, width, Split.ROWS),
        *dense("attention.v_head", wide, width, Split.ROWS),
        *dense("attention.post_proj", width, wide, Split.COLUMNS),
        *norm("attention.layer_norm", width, bias=True),
        *dense("ffn.linear_1", inner, width, Split.ROWS),
        *dense("ffn.linear_2", width, inner, Split.COLUMNS),
        *norm("ffn.layer_norm", width, bias=True),
    )


def _funnel_stack(fields: Fields) -> tuple[Block, ...]:
    """Blocks of layers, the sequence halved from one to the next; each layer is stored once."""
    sizes = fields.items("block_sizes")
    if not sizes or not all(isinstance(size, int) and 0 < size <= MOST_LAYERS for size in sizes):
        raise contradiction("block_sizes lists no numbers of layers", "block_sizes")
    layers = tuple(range(sum(sizes)))
    return (Block(layers, under("encoder.blocks.{}.", _funnel_layer(fields))),)


def _funnel_decoder(fields: Fields) -> Tensors:
    """Layers at full length again, where each token is predicted for."""
    if architecture_of(fields) == "FunnelBaseModel":
        return ()
    count = layers_of(fields, "num_decoder_layers")
    return tuple(tensor for i in range(count) for tensor in under(f"decoder.layers.{i}.", _funnel_layer(fields)))


def _funnel_embeddings(fields: Fields) -> Tensors:
    width = positive(fields, "d_model")
    words = table("embeddings.word_embeddings", positive(fields, "vocab_size"), width)
    return (*words, *norm("embeddings.layer_norm", width, bias=True))


def _funnel_words(fields: Fields) -> Tensors:
    count, width = positive(fields, "vocab_size"), positive(fields, "d_model")
    return (
        *under("funnel.", _funnel_decoder(fields)),
        *vocabulary("lm_head", count, width, weight=not tied(fields)),
    )


def _funnel_classes(fields: Fields) -> Tensors:
    width = positive(fields, "d_model")
    return (
        *dense("classifier.linear_hidden", width, width),
        *dense("classifier.linear_out", labels_of(fields), width),
    )


def _canine_embeddings(fields: Fields) -> Tensors:
    """Characters by several hashes, each with a table of a part of the width; two steps of convolution around."""
    width, hashes = width_of(fields), positive(fields, "num_hash_functions")
    if hashes > MOST_LAYERS or width % hashes:
        raise contradiction(f"the width {width} does not divide by {hashes} hashes", "num_hash_functions")
    buckets = positive(fields, "num_hash_buckets")
    down, up = positive(fields, "downsampling_rate"), positive(fields, "upsampling_kernel_size")
    where = "char_embeddings"
    return (
        Tensor(f"{where}.HashBucketCodepointEmbedder.weight", buckets, width // hashes, Kind.EMBEDDING, copies=hashes),
        *table(f"{where}.char_position_embeddings", buckets, width),
        *table(f"{where}.token_type_embeddings", fields.whole("type_vocab_size"), width),
        *norm(f"{where}.LayerNorm", width, bias=True),
        *under("initial_char_encoder.layer.0.", bert.layer(fields)),
        Tensor("chars_to_molecules.conv.weight", width, width * down),
        Tensor("chars_to_molecules.conv.bias", width),
        *norm("chars_to_molecules.LayerNorm", width, bias=True),
        Tensor("projection.conv.weight", width, 2 * width * up),
        Tensor("projection.conv.bias", width),
        *norm("projection.LayerNorm", width, bias=True),
        *under("final_char_encoder.layer.0.", bert.layer(fields)),
    )


_RARE: dict[str, Family] = {
    "esm": encoder(
        "esm", _esm_embeddings, equal("encoder.layer", _esm_layer), _esm_words, two_layer_classes,
        pooler=pooler, after=_esm_after,
    ),
    "luke": encoder(
        "luke", _luke_embeddings, equal("encoder.layer", _luke_layer), _luke_words, classifier, after=pooler
    ),
    "xlm": encoder("transformer", _xlm_embeddings, _xlm_stack, _xlm_words, _summary),
    "flaubert": encoder("transformer", _xlm_embeddings, _xlm_stack, _xlm_words, _summary),
    "xlnet": encoder(
        "transformer", _xlnet_embeddings, equal("layer", _xlnet_layer, "n_layer", "num_hidden_layers"),
        _xlnet_words, _xlnet_classes,
    ),
    "funnel": encoder(
        "funnel", _funnel_embeddings, _funnel_stack, _funnel_words, _funnel_classes, pooler=_funnel_decoder
    ),
    "canine": encoder(
        "canine", _canine_embeddings, equal("encoder.layer", bert.layer), nothing, classifier, after=pooler
    ),
}  # fmt: skip

FAMILIES: Mapping[str, Family] = {
    **_RARE,
    **compact_encoders.FAMILIES,
    **deberta.FAMILIES,
    **document_encoders.FAMILIES,
    **perceiver.FAMILIES,
    **reformer.FAMILIES,
}
