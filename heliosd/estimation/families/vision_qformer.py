"""Q-Formers: queries that attend to what an encoder saw or heard, and the models built around them."""

from heliosd.estimation.families import vision
from heliosd.estimation.families.sizes import positive
from heliosd.estimation.families.vision_blocks import (
    Tensors,
    attention,
    depth_of,
    layer_norm,
    repeated,
    table,
    weights,
    width_of,
)
from heliosd.estimation.families.vision_language import needed
from heliosd.estimation.fields import Fields
from heliosd.estimation.layout import Split, linear

_BERT = ("attention.query", "attention.key", "attention.value", "output.dense")


def blip2_qformer(fields: Fields, name: str) -> Tensors:
    """BERT's layers, every `cross_attention_frequency`th of which also attends to the encoder."""
    width = width_of(fields)
    text = fields.flag("use_qformer_text_input")
    embeddings = (
        *_word_tables(fields, f"{name}.embeddings", width, text),
        *layer_norm(f"{name}.layernorm", width),
    )
    return (*embeddings, *_layers(fields, f"{name}.encoder.layer.{{}}", width, text))


def instructblip_qformer(fields: Fields, name: str) -> Tensors:
    """Also reads the instruction: tables of words and positions, a second feed-forward in every layer."""
    width = width_of(fields)
    return (
        *_word_tables(fields, f"{name}.embeddings", width, True),
        *layer_norm(f"{name}.embeddings.layernorm", width),
        *_layers(fields, f"{name}.encoder.layer.{{}}", width, True),
    )


def blip2(fields: Fields, text: int) -> Tensors:
    return _queried(fields, text, "blip_2_vision_model", "blip_2_qformer")


def instructblip(fields: Fields, text: int) -> Tensors:
    return _queried(fields, text, "instructblip_vision_model", "instructblip_qformer")


def _queried(fields: Fields, text: int, tower: str, former: str) -> Tensors:
    seen = needed(fields, "vision_config", tower)
    queries = needed(fields, "qformer_config", former)
    width = width_of(queries)
    qformer = blip2_qformer if former == "blip_2_qformer" else instructblip_qformer
    return (
        weights("query_tokens", positive(fields, "num_query_tokens", default=32), width),
        *vision.tower(seen, "vision_model"),
        *qformer(queries, "qformer"),
        *linear("language_projection", text, width, bias=True),
    )


def _word_tables(fields: Fields, name: str, width: int, text: bool) -> Tensors:
    if not text:
        return ()
    return (
        table(f"{name}.word_embeddings", positive(fields, "vocab_size"), width),
        weights(f"{name}.position_embeddings.weight", positive(fields, "max_position_embeddings"), width),
    )


def _layers(fields: Fields, layer: str, width: int, text: bool) -> Tensors:
    depth = depth_of(fields)
    every = positive(fields, "cross_attention_frequency", default=2)
    source = positive(fields, "encoder_hidden_size", default=width)
    inner = positive(fields, "intermediate_size")

    def fed(suffix: str) -> Tensors:
        return (
            *linear(f"{layer}.intermediate{suffix}.dense", inner, width, Split.ROWS, bias=True),
            *linear(f"{layer}.output{suffix}.dense", width, inner, Split.COLUMNS, bias=True),
            *layer_norm(f"{layer}.output{suffix}.LayerNorm", width),
        )

    return (
        *repeated(
            depth,
            attention(f"{layer}.attention", width, names=_BERT),
            layer_norm(f"{layer}.attention.output.LayerNorm", width),
            fed("_query"),
            fed("") if text else (),
        ),
        *repeated(
            -(-depth // every),
            attention(f"{layer}.crossattention", width, source=source, names=_BERT),
            layer_norm(f"{layer}.crossattention.output.LayerNorm", width),
        ),
    )
