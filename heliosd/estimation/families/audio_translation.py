"""Translators of speech: SeamlessM4T, SpeechT5, and Pop2Piano, which writes notes."""

from collections.abc import Mapping
from dataclasses import replace

from heliosd.estimation.families.audio_seq2seq import bart_layer, heard_and_written
from heliosd.estimation.families.family import Family, Head
from heliosd.estimation.families.sizes import divided, layers_of, positive
from heliosd.estimation.families.t5 import T5
from heliosd.estimation.families.vision_blocks import (
    Tensors,
    attention,
    convolution,
    depth_of,
    feed_forward,
    layer_norm,
    repeated,
    table,
    weights,
)
from heliosd.estimation.fields import Fields
from heliosd.estimation.layout import Layout, linear

_CONFORMER = ("linear_q", "linear_k", "linear_v", "linear_out")
_DENSE = ("intermediate_dense", "output_dense")


def seamless(fields: Fields, head: Head) -> Layout:
    """A conformer or, by the architecture's name, a text encoder; the decoder writes text. What speaks is left out."""
    width = positive(fields, "hidden_size")
    names = fields.items("architectures")
    written = bool(names) and str(names[0]).endswith("ForTextToText")
    inner, layer = positive(fields, "decoder_ffn_dim"), "text_decoder.layers.{}"
    return heard_and_written(
        fields,
        head,
        width,
        (
            *attention(f"{layer}.self_attn", width),
            *layer_norm(f"{layer}.self_attn_layer_norm", width),
            *attention(f"{layer}.cross_attention", width),
            *layer_norm(f"{layer}.cross_attention_layer_norm", width),
            *feed_forward(f"{layer}.ffn", width, inner),
            *layer_norm(f"{layer}.ffn_layer_norm", width),
        ),
        layers=layers_of(fields, "decoder_layers"),
        first=(),
        last=layer_norm("text_decoder.layer_norm", width),
        towers=_text_encoder(fields, width) if written else _speech_encoder(fields, width),
        output="lm_head",
    )


def _text_encoder(fields: Fields, width: int) -> Tensors:
    layer = "text_encoder.layers.{}"
    return (
        *repeated(
            depth_of(fields, "encoder_layers"),
            attention(f"{layer}.self_attn", width),
            layer_norm(f"{layer}.self_attn_layer_norm", width),
            feed_forward(f"{layer}.ffn", width, positive(fields, "encoder_ffn_dim")),
            layer_norm(f"{layer}.ffn_layer_norm", width),
        ),
        *layer_norm("text_encoder.layer_norm", width),
    )


def _speech_encoder(fields: Fields, width: int) -> Tensors:
    inner = positive(fields, "speech_encoder_intermediate_size")
    heads = positive(fields, "speech_encoder_attention_heads")
    size = divided(width, heads, "the speech encoder's width", "speech_encoder_attention_heads")
    taken = positive(fields, "feature_projection_input_dim")
    name, layer = "speech_encoder", "speech_encoder.encoder.layers.{}"
    kind = fields.text("position_embeddings_type")
    positions: Tensors = ()
    if kind == "relative":
        positions = (
            *linear(f"{layer}.self_attn.linear_pos", width, width),
            weights(f"{layer}.self_attn.pos_bias_u", heads, size),
            weights(f"{layer}.self_attn.pos_bias_v", heads, size),
        )
    elif kind == "relative_key":
        reach = positive(fields, "left_max_position_embeddings") + positive(fields, "right_max_position_embeddings") + 1
        positions = (weights(f"{layer}.self_attn.distance_embedding.weight", reach, size),)
    conv = f"{layer}.conv_module"
    adapter = f"{name}.adapter.layers.{{}}"
    taps = positive(fields, "adaptor_kernel_size")
    adapted = repeated(
        depth_of(fields, "num_adapter_layers"),
        layer_norm(f"{adapter}.residual_layer_norm", width),
        convolution(f"{adapter}.residual_conv", 2 * width, width, taps),
        layer_norm(f"{adapter}.self_attn_layer_norm", width),
        convolution(f"{adapter}.self_attn_conv", 2 * width, width, taps),
        attention(f"{adapter}.self_attn", width, names=_CONFORMER),
        layer_norm(f"{adapter}.ffn_layer_norm", width),
        feed_forward(f"{adapter}.ffn", width, inner, names=_DENSE),
    )
    return (
        *layer_norm(f"{name}.feature_projection.layer_norm", taken),
        *linear(f"{name}.feature_projection.projection", width, taken, bias=True),
        *repeated(
            depth_of(fields, "speech_encoder_layers"),
            layer_norm(f"{layer}.ffn1_layer_norm", width),
            feed_forward(f"{layer}.ffn1", width, inner, names=_DENSE),
            layer_norm(f"{layer}.self_attn_layer_norm", width),
            attention(f"{layer}.self_attn", width, names=_CONFORMER),
            positions,
            layer_norm(f"{conv}.layer_norm", width),
            convolution(f"{conv}.pointwise_conv1", 2 * width, width, 1, bias=False),
            convolution(f"{conv}.depthwise_conv", width, 1, positive(fields, "conv_depthwise_kernel_size"), bias=False),
            layer_norm(f"{conv}.depthwise_layer_norm", width),
            convolution(f"{conv}.pointwise_conv2", width, width, 1, bias=False),
            layer_norm(f"{layer}.ffn2_layer_norm", width),
            feed_forward(f"{layer}.ffn2", width, inner, names=_DENSE),
            layer_norm(f"{layer}.final_layer_norm", width),
        ),
        *layer_norm(f"{name}.encoder.layer_norm", width),
        *feed_forward(f"{name}.intermediate_ffn", width, inner, names=_DENSE),
        *(adapted if fields.flag("add_adapter", default=True) else ()),
        *layer_norm(f"{name}.inner_layer_norm", width),
    )


def speecht5(fields: Fields, head: Head) -> Layout:
    """Convolutions over samples, positions from a wide convolution and by distance, BART's decoder."""
    width = positive(fields, "hidden_size")
    layer = "speecht5.decoder.wrapped_decoder.layers.{}"
    decoder = tuple(
        replace(tensor, name=tensor.name.replace(".fc1", ".feed_forward.intermediate_dense"))
        for tensor in bart_layer(width, positive(fields, "decoder_ffn_dim"), layer=layer)
    )
    return heard_and_written(
        fields,
        head,
        width,
        decoder,
        layers=layers_of(fields, "decoder_layers"),
        first=(),
        last=(),
        towers=_speecht5_encoder(fields, width),
        output="text_decoder_postnet.lm_head",
    )


def _speecht5_encoder(fields: Fields, width: int) -> Tensors:
    stem = "speecht5.encoder.prenet"
    channels = [positive(Fields({"conv_dim": one}), "conv_dim") for one in fields.items("conv_dim")]
    taps = [positive(Fields({"conv_kernel": one}), "conv_kernel") for one in fields.items("conv_kernel")]
    made: Tensors = ()
    inputs = 1
    every = fields.text("feat_extract_norm", default="group") == "layer"
    for index, (out, length) in enumerate(zip(channels, taps, strict=False)):
        name = f"{stem}.feature_encoder.conv_layers.{index}"
        made += convolution(f"{name}.conv", out, inputs, length, bias=fields.flag("conv_bias"))
        made += layer_norm(f"{name}.layer_norm", out) if every or index == 0 else ()
        inputs = out
    masked = fields.get("mask_time_prob"), fields.get("mask_feature_prob")
    hides = any(isinstance(share, int | float) and share > 0 for share in masked) or masked == (None, None)
    wide = positive(fields, "num_conv_pos_embeddings")
    groups = positive(fields, "num_conv_pos_embedding_groups")
    conv = f"{stem}.pos_conv_embed.conv"
    heads = positive(fields, "encoder_attention_heads")
    layer = "speecht5.encoder.wrapped_encoder.layers.{}"
    reach = 2 * positive(fields, "encoder_max_relative_position")
    return (
        *((weights(f"{stem}.masked_spec_embed", width),) if hides else ()),
        *made,
        *layer_norm(f"{stem}.feature_projection.layer_norm", inputs),
        *linear(f"{stem}.feature_projection.projection", width, inputs, bias=True),
        *convolution(conv, width, max(1, width // groups), wide),
        weights(f"{conv}.weight_g", wide),
        *layer_norm("speecht5.encoder.wrapped_encoder.layer_norm", width),
        *repeated(
            depth_of(fields, "encoder_layers"),
            attention(f"{layer}.attention", width),
            layer_norm(f"{layer}.layer_norm", width),
            feed_forward(f"{layer}.feed_forward", width, positive(fields, "encoder_ffn_dim"), names=_DENSE),
            layer_norm(f"{layer}.final_layer_norm", width),
        ),
        weights("speecht5.encoder.wrapped_encoder.embed_positions.pe_k.weight", reach, max(1, width // heads)),
    )


def pop2piano(fields: Fields, head: Head) -> Layout:
    """T5 over a spectrogram, told whose style to follow; its output projection is not the embedding, whatever the
    configuration says."""
    layout = T5()(fields.changed(tie_word_embeddings=False), head)
    styles = table("mel_conditioner.embedding", positive(fields, "composer_vocab_size"), positive(fields, "d_model"))
    return replace(layout, towers=(*layout.towers, styles))


def udop(fields: Fields, head: Head) -> Layout:
    """T5 over words and patches: where they lie is embedded, and biases attention in both stacks."""
    layout = T5()(fields, head)
    width = positive(fields, "d_model")
    patch = positive(fields, "patch_size", default=16)
    places = positive(fields, "max_2d_position_embeddings")
    buckets = positive(fields, "relative_attention_num_buckets")
    heads = positive(fields, "num_heads")
    inputs = positive(fields, "num_channels", default=3)
    return replace(
        layout,
        towers=(
            *layout.towers,
            *convolution("patch_embed.proj", width, inputs, patch * patch),
            *convolution("decoder.embed_patches.proj", width, inputs, patch * patch),
            weights("encoder.cell_2d_embedding.x_position_embeddings.weight", places, width),
            weights("encoder.cell_2d_embedding.y_position_embeddings.weight", places, width),
            *repeated(2, (weights("encoder.relative_bias.biases.{}.relative_attention_bias.weight", buckets, heads),)),
            *repeated(2, (weights("decoder.relative_bias.biases.{}.relative_attention_bias.weight", buckets, heads),)),
        ),
    )


FAMILIES: Mapping[str, Family] = {
    "pop2piano": pop2piano,
    "seamless_m4t": seamless,
    "seamless_m4t_v2": seamless,
    "speecht5": speecht5,
    "udop": udop,
}
