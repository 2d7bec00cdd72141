"""Models that hear and write: an encoder of sounds, a decoder whose layers attend to it.

The encoder is among `Layout.towers`; the decoder's layers are the model's. Classes named `...ForCausalLM` are the
decoder alone.
"""

from collections.abc import Mapping

from heliosd.estimation.families.assembly import vocabulary_head
from heliosd.estimation.families.audio_conformers import parakeet
from heliosd.estimation.families.audio_encoders import O_PROJ, whisper
from heliosd.estimation.families.family import Family, Head
from heliosd.estimation.families.sizes import divided, labels_of, layers_of, positive
from heliosd.estimation.families.vision_blocks import (
    Tensors,
    attention,
    convolution,
    depth_of,
    feed_forward,
    gated,
    layer_norm,
    repeated,
    weights,
)
from heliosd.estimation.families.vision_language import needed
from heliosd.estimation.fields import Fields
from heliosd.estimation.layout import Block, Kind, Layout, Split, Tensor, linear, norm

_LAYER = "model.decoder.layers.{}"


def heard_and_written(
    fields: Fields,
    head: Head,
    width: int,
    layer: Tensors,
    *,
    layers: int,
    first: Tensors,
    last: Tensors,
    towers: Tensors,
    output: str = "proj_out",
    output_bias: bool = False,
    vocabulary: int | None = None,
    tied: bool | None = None,
) -> Layout:
    """A layout from the parts of such a model; `layer` is one decoder layer."""
    words = positive(fields, "vocab_size") if vocabulary is None else vocabulary
    shared = fields.flag("tie_word_embeddings", default=True) if tied is None else tied
    embedding = Tensor("model.decoder.embed_tokens.weight", words, width, Kind.EMBEDDING, Split.VOCABULARY)
    if head is Head.VOCABULARY:
        last += vocabulary_head(output, words, width, bias=output_bias, tied=shared)
    elif head is Head.CLASSES:
        last += linear("classifier", labels_of(fields), width)
    names = fields.items("architectures")
    alone = bool(names) and str(names[0]).endswith("ForCausalLM")
    return Layout(
        first=(embedding, *first),
        blocks=(Block(tuple(range(layers)), layer),),
        last=last,
        towers=() if alone else towers,
        tied=shared and head is Head.VOCABULARY,
    )


def bart_layer(width: int, inner: int, *, layer: str = _LAYER, key_bias: bool = True) -> Tensors:
    """One layer of BART's decoder: attention to the text, attention to the encoder, feed-forward."""
    return (
        *attention(f"{layer}.self_attn", width, key_bias=key_bias),
        *layer_norm(f"{layer}.self_attn_layer_norm", width),
        *attention(f"{layer}.encoder_attn", width, key_bias=key_bias),
        *layer_norm(f"{layer}.encoder_attn_layer_norm", width),
        *feed_forward(layer, width, inner),
        *layer_norm(f"{layer}.final_layer_norm", width),
    )


def whisper_family(fields: Fields, head: Head) -> Layout:
    width = positive(fields, "d_model")
    return heard_and_written(
        fields,
        head,
        width,
        bart_layer(width, positive(fields, "decoder_ffn_dim"), key_bias=False),
        layers=layers_of(fields, "decoder_layers"),
        first=(weights("model.decoder.embed_positions.weight", positive(fields, "max_target_positions"), width),),
        last=layer_norm("model.decoder.layer_norm", width),
        towers=whisper(fields, "model.encoder"),
    )


def speech_to_text(fields: Fields, head: Head) -> Layout:
    """Convolutions whose output gates itself, so that each halves its channels; positions are computed."""
    width = positive(fields, "d_model")
    channels = positive(fields, "conv_channels")
    sizes = fields.items("conv_kernel_sizes")
    taps = [positive(Fields({"conv_kernel_sizes": size}), "conv_kernel_sizes") for size in sizes]
    inputs = positive(fields, "input_feat_per_channel") * positive(fields, "input_channels")
    stem: Tensors = ()
    for index, length in enumerate(taps):
        out = 2 * width if index == len(taps) - 1 else channels
        stem += convolution(f"model.encoder.conv.conv_layers.{index}", out, inputs, length)
        inputs = channels // 2
    layer = "model.encoder.layers.{}"
    encoder = repeated(
        depth_of(fields, "encoder_layers"),
        attention(f"{layer}.self_attn", width),
        layer_norm(f"{layer}.self_attn_layer_norm", width),
        feed_forward(layer, width, positive(fields, "encoder_ffn_dim")),
        layer_norm(f"{layer}.final_layer_norm", width),
    )
    return heard_and_written(
        fields,
        head,
        width,
        bart_layer(width, positive(fields, "decoder_ffn_dim")),
        layers=layers_of(fields, "decoder_layers"),
        first=(),
        last=layer_norm("model.decoder.layer_norm", width),
        towers=(*stem, *encoder, *layer_norm("model.encoder.layer_norm", width)),
        output="lm_head",
    )


def moonshine(fields: Fields, head: Head) -> Layout:
    """Convolutions straight over samples; the decoder's feed-forward is gated."""
    width, inner = positive(fields, "hidden_size"), positive(fields, "intermediate_size")
    bias = fields.flag("attention_bias")

    def attend(name: str, side: str) -> Tensors:
        heads = positive(fields, f"{side}_num_attention_heads", "num_attention_heads")
        shared = positive(fields, f"{side}_num_key_value_heads", "num_key_value_heads", default=heads)
        size = divided(width, heads, "the hidden size", f"{side}_num_attention_heads")
        return attention(name, width, shared=shared * size, names=O_PROJ, bias=bias, out_bias=False)

    heard = "model.encoder.layers.{}"
    encoder = (
        *convolution("model.encoder.conv1", width, 1, 127, bias=False),
        *convolution("model.encoder.conv2", 2 * width, width, 7),
        *convolution("model.encoder.conv3", width, 2 * width, 3),
        *layer_norm("model.encoder.groupnorm", width),
        *repeated(
            depth_of(fields, "encoder_num_hidden_layers"),
            attend(f"{heard}.self_attn", "encoder"),
            feed_forward(f"{heard}.mlp", width, inner),
            norm(f"{heard}.input_layernorm", width),
            norm(f"{heard}.post_attention_layernorm", width),
        ),
        *norm("model.encoder.layer_norm", width),
    )
    return heard_and_written(
        fields,
        head,
        width,
        (
            *attend(f"{_LAYER}.self_attn", "decoder"),
            *attend(f"{_LAYER}.encoder_attn", "decoder"),
            *linear(f"{_LAYER}.mlp.fc1", 2 * inner, width, Split.ROWS, bias=True),
            *linear(f"{_LAYER}.mlp.fc2", width, inner, Split.COLUMNS, bias=True),
            *norm(f"{_LAYER}.input_layernorm", width),
            *norm(f"{_LAYER}.post_attention_layernorm", width),
            *norm(f"{_LAYER}.final_layernorm", width),
        ),
        layers=layers_of(fields, "decoder_num_hidden_layers"),
        first=(),
        last=norm("model.decoder.norm", width),
        towers=encoder,
    )


def canary(fields: Fields, head: Head) -> Layout:
    """Parakeet's encoder, a decoder with computed positions."""
    heard = needed(fields, "encoder_config", "parakeet_encoder")
    return _after_parakeet(fields, needed(fields, "decoder_config", "canary_decoder"), heard, head, own=False)


def cohere_asr(fields: Fields, head: Head) -> Layout:
    """Parakeet's encoder, a decoder with a position table and a projection of what was heard."""
    heard = needed(fields, "encoder_config", "parakeet_encoder")
    return _after_parakeet(fields, fields, heard, head, own=True)


def _after_parakeet(whole: Fields, decoder: Fields, heard: Fields, head: Head, *, own: bool) -> Layout:
    width = positive(decoder, "hidden_size")
    heads = positive(decoder, "num_attention_heads")
    size = positive(decoder, "head_dim", default=max(1, width // heads))
    shared = positive(decoder, "num_key_value_heads", default=heads) * size
    bias = decoder.flag("attention_bias", default=True)

    def attend(name: str) -> Tensors:
        return attention(name, width, inner=heads * size, shared=shared, names=O_PROJ, bias=bias)

    first = layer_norm("model.decoder.embedding_layernorm", width)
    if own:
        first += (weights("model.decoder.pos_emb.weight", positive(decoder, "max_position_embeddings"), width),)
        first += linear("model.decoder.proj", width, positive(heard, "hidden_size"), bias=True)
    return heard_and_written(
        whole,
        head,
        width,
        (
            *attend(f"{_LAYER}.self_attn"),
            *attend(f"{_LAYER}.encoder_attn"),
            *feed_forward(f"{_LAYER}.mlp", width, positive(decoder, "intermediate_size")),
            *layer_norm(f"{_LAYER}.input_layernorm", width),
            *layer_norm(f"{_LAYER}.post_attention_layernorm", width),
            *layer_norm(f"{_LAYER}.final_layernorm", width),
        ),
        layers=layers_of(decoder, "num_hidden_layers"),
        first=first,
        last=layer_norm("model.decoder.norm", width),
        towers=parakeet(heard, "model.encoder"),
        output_bias=True,
        vocabulary=positive(decoder, "vocab_size"),
    )


def dia(fields: Fields, head: Head) -> Layout:
    """Writes sound: text through an encoder, a decoder over several channels of codes."""
    heard, spoken = needed(fields, "encoder_config", "dia_encoder"), needed(fields, "decoder_config", "dia_decoder")
    width, source = positive(spoken, "hidden_size"), positive(heard, "hidden_size")

    def attend(name: str, part: Fields, wide: int, stem: str = "", into: int | None = None) -> Tensors:
        size = positive(part, f"{stem}head_dim")
        heads, shared = positive(part, f"{stem}num_attention_heads"), positive(part, f"{stem}num_key_value_heads")
        return attention(name, wide, inner=heads * size, shared=shared * size, source=into, names=O_PROJ, bias=False)

    def fed(name: str, wide: int, inner: int) -> Tensors:
        return gated(name, wide, inner, names=("gate_up_proj", "gate_up_proj", "down_proj"))

    layer = "model.encoder.layers.{}"
    encoder = (
        weights("model.encoder.embedding.weight", positive(heard, "vocab_size"), source),
        *repeated(
            depth_of(heard),
            norm(f"{layer}.pre_sa_norm", source),
            attend(f"{layer}.self_attention", heard, source),
            norm(f"{layer}.post_sa_norm", source),
            fed(f"{layer}.mlp", source, positive(heard, "intermediate_size")),
        ),
        *norm("model.encoder.norm", source),
    )
    return heard_and_written(
        fields,
        head,
        width,
        (
            *attend(f"{_LAYER}.self_attention", spoken, width),
            *attend(f"{_LAYER}.cross_attention", spoken, width, "cross_", source),
            *norm(f"{_LAYER}.pre_sa_norm", width),
            *norm(f"{_LAYER}.pre_ca_norm", width),
            *norm(f"{_LAYER}.pre_mlp_norm", width),
            *fed(f"{_LAYER}.mlp", width, positive(spoken, "intermediate_size")),
        ),
        layers=layers_of(spoken, "num_hidden_layers"),
        first=(),
        last=norm("model.decoder.norm", width),
        towers=encoder,
        output="logits_dense",
        vocabulary=positive(spoken, "vocab_size") * positive(spoken, "num_channels"),
        tied=False,
    )


FAMILIES: Mapping[str, Family] = {
    "canary": canary,
    "cohere_asr": cohere_asr,
    "dia": dia,
    "moonshine": moonshine,
    "speech_to_text": speech_to_text,
    "whisper": whisper_family,
}
