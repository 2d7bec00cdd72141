"""Models around a codec that turns sound into frames: VibeVoice's tokenizers, Kyutai's Mimi."""

import math
from collections.abc import Mapping
from dataclasses import replace

from heliosd.estimation.families.assembly import vocabulary_head
from heliosd.estimation.families.audio_encoders import O_PROJ
from heliosd.estimation.families.family import Family, Head
from heliosd.estimation.families.sizes import contradiction, hidden_of, layers_of, positive
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
from heliosd.estimation.families.vision_language import language_layout, language_of, needed
from heliosd.estimation.fields import Fields
from heliosd.estimation.layout import Block, Kind, Layout, Split, Tensor, linear, norm

_TOKENIZER = "vibevoice_acoustic_tokenizer_encoder"
_MOST_STAGES = 32


def vibevoice_asr(fields: Fields, head: Head) -> Layout:
    """Two encoders of the same shape, one for how it sounds and one for what is said."""
    sounds = needed(fields, "acoustic_tokenizer_encoder_config", _TOKENIZER)
    words = needed(fields, "semantic_tokenizer_encoder_config", _TOKENIZER)
    text = language_of(fields)
    layout = language_layout(fields, text, head, "model.language_model.")
    width = hidden_of(text)
    towers = (
        *tokenizer_encoder(sounds, "model.acoustic_tokenizer_encoder"),
        *tokenizer_encoder(words, "model.semantic_tokenizer_encoder"),
        *_joined("model.acoustic_connector", positive(sounds, "hidden_size"), width),
        *_joined("model.semantic_connector", positive(words, "hidden_size"), width),
    )
    return replace(layout, towers=towers)


def vibevoice(fields: Fields, head: Head) -> Layout:
    """Writes sound: the language model's states guide a small network that removes noise from the next frame."""
    codec = needed(fields, "audio_config", "vibevoice_acoustic_tokenizer")
    words = needed(fields, "semantic_model_config", _TOKENIZER)
    noise = needed(fields, "diffusion_head_config", "vibevoice_diffusion_head")
    text = language_of(fields)
    layout = language_layout(fields, text, head, "model.language_model.")
    width = hidden_of(text)
    wide, latent = positive(noise, "hidden_size", default=width), positive(noise, "latent_size", default=64)
    name = "model.prediction_head"
    layer = f"{name}.layers.{{}}"
    towers = (
        weights("model.speech_scaling_factor", 2),
        *tokenizer_encoder(codec, "model.acoustic_tokenizer.encoder"),
        *tokenizer_decoder(codec, "model.acoustic_tokenizer.decoder"),
        *tokenizer_encoder(words, "model.semantic_tokenizer.encoder"),
        *_joined("model.acoustic_connector", positive(codec, "hidden_size"), width),
        *_joined("model.semantic_connector", positive(words, "hidden_size"), width),
        *linear(f"{name}.noisy_images_proj", wide, latent),
        *linear(f"{name}.cond_proj", wide, wide),
        *linear(f"{name}.t_embedder.mlp.0", wide, positive(noise, "frequency_embedding_size", default=256)),
        *linear(f"{name}.t_embedder.mlp.2", wide, wide),
        *repeated(
            depth_of(noise, default=4),
            gated(f"{layer}.ffn", wide, positive(noise, "intermediate_size", default=4608)),
            norm(f"{layer}.norm", wide),
            linear(f"{layer}.adaLN_modulation.1", 3 * wide, wide),
        ),
        *linear(f"{name}.final_layer.adaLN_modulation.1", 2 * wide, wide),
        *linear(f"{name}.final_layer.linear", latent, wide),
    )
    return replace(layout, towers=towers)


def tokenizer_encoder(fields: Fields, name: str) -> Tensors:
    """Stages of depthwise convolutions and feed-forward networks; each lowers the rate and doubles the width."""
    ratios, depths = _stages(fields)
    width, taps = positive(fields, "num_filters"), positive(fields, "kernel_size")
    made = (
        *convolution(f"{name}.stem.conv.conv", width, positive(fields, "channels", default=1), taps),
        *_stage(fields, f"{name}.stem.stage.{{}}", width, depths[0]),
    )
    for index, (ratio, depth) in enumerate(zip(ratios, depths[1:], strict=True)):
        made += convolution(f"{name}.conv_layers.{index}.conv.conv", 2 * width, width, 2 * ratio)
        width *= 2
        made += _stage(fields, f"{name}.conv_layers.{index}.stage.{{}}", width, depth)
    return (*made, *convolution(f"{name}.head.conv", positive(fields, "hidden_size"), width, taps))


def tokenizer_decoder(fields: Fields, name: str) -> Tensors:
    """The encoder's stages in reverse."""
    ratios, depths = (sizes[::-1] for sizes in _stages(fields))
    taps = positive(fields, "kernel_size")
    width = positive(fields, "num_filters") * 2 ** len(ratios)
    made = (
        *convolution(f"{name}.stem.conv.conv", width, positive(fields, "hidden_size"), taps),
        *_stage(fields, f"{name}.stem.stage.{{}}", width, depths[0]),
    )
    for index, (ratio, depth) in enumerate(zip(ratios, depths[1:], strict=True)):
        upward = f"{name}.conv_layers.{index}.convtr.convtr"
        made += (Tensor(f"{upward}.weight", width, width // 2 * 2 * ratio), Tensor(f"{upward}.bias", width // 2))
        width //= 2
        made += _stage(fields, f"{name}.conv_layers.{index}.stage.{{}}", width, depth)
    return (*made, *convolution(f"{name}.head.conv", positive(fields, "channels", default=1), width, taps))


def _stages(fields: Fields) -> tuple[list[int], list[int]]:
    """By how much each stage lowers the rate, and how many layers each has, the first before any of that."""
    ratios, depths = _sizes(fields, "downsampling_ratios"), _sizes(fields, "depths")
    if len(depths) != len(ratios) + 1:
        raise contradiction(f"{len(ratios)} changes of rate need {len(ratios) + 1} depths", "depths")
    return ratios, depths


def _stage(fields: Fields, name: str, width: int, depth: int) -> Tensors:
    inner = width * positive(fields, "ffn_expansion", default=4)
    return repeated(
        depth,
        (weights(f"{name}.gamma", width), weights(f"{name}.ffn_gamma", width)),
        norm(f"{name}.norm", width),
        norm(f"{name}.ffn_norm", width),
        feed_forward(f"{name}.ffn", width, inner, names=("linear1", "linear2")),
        convolution(f"{name}.mixer.conv", width, 1, positive(fields, "kernel_size")),
    )


def _joined(name: str, source: int, width: int) -> Tensors:
    return (
        *linear(f"{name}.fc1", width, source, bias=True),
        *norm(f"{name}.norm", width),
        *linear(f"{name}.fc2", width, width, bias=True),
    )


def _sizes(fields: Fields, name: str) -> list[int]:
    values = fields.items(name)
    if not values or len(values) > _MOST_STAGES:
        raise contradiction(f"{name} is not a short list", name)
    return [positive(Fields({name: value}), name) for value in values]


def kyutai(fields: Fields, head: Head) -> Layout:
    """A decoder whose one embedding holds the words and every codebook of Mimi; the codec comes along whole."""
    codec = needed(fields, "codec_config", "mimi")
    width, inner = positive(fields, "hidden_size"), positive(fields, "ffn_dim")
    words = positive(fields, "vocab_size")
    rows = words + positive(fields, "codebook_vocab_size") * positive(fields, "num_codebooks") + 1
    heads, size = positive(fields, "num_attention_heads"), positive(fields, "head_dim")
    shared = positive(fields, "num_key_value_heads", default=heads)
    layer = "model.layers.{}"
    output = vocabulary_head("lm_head", words, width) if head is Head.VOCABULARY else ()
    return Layout(
        first=(Tensor("model.embed_tokens.embed_tokens.weight", rows, width, Kind.EMBEDDING, Split.VOCABULARY),),
        blocks=(
            Block(
                tuple(range(layers_of(fields))),
                (
                    *attention(
                        f"{layer}.self_attn", width, inner=heads * size, shared=shared * size, names=O_PROJ, bias=False
                    ),
                    *linear(f"{layer}.mlp.fc1", inner, width, Split.ROWS),
                    *linear(f"{layer}.mlp.fc2", width, inner // 2, Split.COLUMNS),
                    *norm(f"{layer}.input_layernorm", width),
                    *norm(f"{layer}.post_attention_layernorm", width),
                ),
            ),
        ),
        last=(*norm("model.norm", width), *output),
        towers=mimi(codec, "codec_model"),
    )


def mimi(fields: Fields, name: str) -> Tensors:
    """Convolutions, a transformer, a change of rate, and the same in reverse; codebooks are no parameters."""
    ratios = _sizes(fields, "upsampling_ratios")
    width, hidden = positive(fields, "num_filters"), positive(fields, "hidden_size")
    taps, last = positive(fields, "kernel_size"), positive(fields, "last_kernel_size")
    channels = positive(fields, "audio_channels", default=1)
    made = convolution(f"{name}.encoder.layers.conv_in.conv", width, channels, taps)
    for ratio in reversed(ratios):
        made += _residual(fields, f"{name}.encoder", width)
        made += convolution(f"{name}.encoder.layers.down.conv", 2 * width, width, 2 * ratio)
        width *= 2
    made += convolution(f"{name}.encoder.layers.conv_out.conv", hidden, width, last)
    made += convolution(f"{name}.decoder.layers.conv_in.conv", width, hidden, taps)
    for ratio in ratios:
        upward = f"{name}.decoder.layers.up.conv"
        made += (Tensor(f"{upward}.weight", width, width // 2 * 2 * ratio), Tensor(f"{upward}.bias", width // 2))
        width //= 2
        made += _residual(fields, f"{name}.decoder", width)
    made += convolution(f"{name}.decoder.layers.conv_out.conv", channels, width, last)
    inside = positive(fields, "vector_quantization_hidden_dimension", default=256)
    halves = ("semantic_residual_vector_quantizer", "acoustic_residual_vector_quantizer")
    return (
        *made,
        *_transformer(fields, f"{name}.encoder_transformer", hidden),
        *_transformer(fields, f"{name}.decoder_transformer", hidden),
        *_rate(fields, name, hidden, ratios),
        *(
            tensor
            for half in halves
            for tensor in (
                *convolution(f"{name}.quantizer.{half}.input_proj", inside, hidden, 1, bias=False),
                *convolution(f"{name}.quantizer.{half}.output_proj", hidden, inside, 1, bias=False),
            )
        ),
    )


def _rate(fields: Fields, name: str, hidden: int, ratios: list[int]) -> Tensors:
    """Between the convolutions' frames and the codec's, of which there are half as many."""
    hop = math.prod(ratios)
    rate = positive(fields, "sampling_rate", default=24000)
    before, after = math.ceil(rate / hop), rate / (2 * hop)
    if before == after or not after:
        return ()
    taps = 2 * int(before / after)
    groups = positive(fields, "upsample_groups", default=512)
    return (
        *convolution(f"{name}.downsample.conv", hidden, hidden, taps, bias=False),
        *convolution(f"{name}.upsample.conv", hidden, max(1, hidden // groups), taps, bias=False),
    )


def _residual(fields: Fields, name: str, width: int) -> Tensors:
    narrow = max(1, width // positive(fields, "compress", default=2))
    return repeated(
        depth_of(fields, "num_residual_layers", default=1),
        convolution(f"{name}.layers.{{}}.block.1.conv", narrow, width, positive(fields, "residual_kernel_size")),
        convolution(f"{name}.layers.{{}}.block.3.conv", width, narrow, 1),
    )


def _transformer(fields: Fields, name: str, width: int) -> Tensors:
    heads, size = positive(fields, "num_attention_heads"), positive(fields, "head_dim", default=64)
    shared = positive(fields, "num_key_value_heads", default=heads)
    layer = f"{name}.layers.{{}}"
    return repeated(
        depth_of(fields),
        attention(f"{layer}.self_attn", width, inner=heads * size, shared=shared * size, names=O_PROJ, bias=False),
        feed_forward(f"{layer}.mlp", width, positive(fields, "intermediate_size"), bias=False),
        layer_norm(f"{layer}.input_layernorm", width),
        layer_norm(f"{layer}.post_attention_layernorm", width),
        (weights(f"{layer}.self_attn_layer_scale.scale", width), weights(f"{layer}.mlp_layer_scale.scale", width)),
    )


FAMILIES: Mapping[str, Family] = {
    "kyutai_speech_to_text": kyutai,
    "vibevoice": vibevoice,
    "vibevoice_asr": vibevoice_asr,
}
