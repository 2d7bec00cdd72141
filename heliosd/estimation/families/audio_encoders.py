"""Encoders of sounds in Whisper's line."""

from heliosd.estimation.families.sizes import divided, positive
from heliosd.estimation.families.vision_blocks import (
    Tensors,
    attention,
    convolution,
    depth_of,
    feed_forward,
    layer_norm,
    repeated,
    weights,
    width_of,
)
from heliosd.estimation.fields import Fields
from heliosd.estimation.layout import Split, linear, norm

O_PROJ = ("q_proj", "k_proj", "v_proj", "o_proj")
_HEADS = ("encoder_attention_heads", "num_attention_heads")


def whisper(fields: Fields, name: str) -> Tensors:
    """Two convolutions over time, a position table, layers whose keys have no bias. Also Qwen2-Audio's, Voxtral's."""
    width = width_of(fields)
    return (
        *_stem(fields, name, width),
        weights(f"{name}.embed_positions.weight", positive(fields, "max_source_positions"), width),
        *whisper_layers(fields, f"{name}.layers.{{}}", width),
        *layer_norm(f"{name}.layer_norm", width),
    )


def qwen2_5_omni(fields: Fields, name: str) -> Tensors:
    """Whisper without a position table, with marks of begin and end and a projection to the language model."""
    width = width_of(fields)
    out = positive(fields, "output_dim")
    return (
        *_stem(fields, name, width),
        weights(f"{name}.audio_bos_eos_token.weight", 2, out),
        *whisper_layers(fields, f"{name}.layers.{{}}", width),
        *layer_norm(f"{name}.ln_post", width),
        *linear(f"{name}.proj", out, width, bias=True),
    )


def qwen3_asr(fields: Fields, name: str) -> Tensors:
    """Three convolutions over time and frequency, each halving both; Whisper's layers with every bias."""
    width = width_of(fields)
    channels = positive(fields, "downsample_hidden_size", default=480)
    bins = positive(fields, "num_mel_bins", default=128)
    for _ in range(3):
        bins = (bins + 1) // 2
    return (
        *convolution(f"{name}.conv2d1", channels, 1, 9),
        *convolution(f"{name}.conv2d2", channels, channels, 9),
        *convolution(f"{name}.conv2d3", channels, channels, 9),
        *linear(f"{name}.conv_out", width, channels * bins),
        *whisper_layers(fields, f"{name}.layers.{{}}", width, key_bias=True),
        *layer_norm(f"{name}.ln_post", width),
    )


def qwen3_omni(fields: Fields, name: str) -> Tensors:
    """Qwen3-ASR's encoder with two layers to the language model."""
    width, out = width_of(fields), positive(fields, "output_dim")
    return (
        *qwen3_asr(fields, name),
        *feed_forward(name, width, width, names=("proj1", "proj2"), out=out),
    )


def glm_asr(fields: Fields, name: str) -> Tensors:
    """Rotary positions."""
    width = width_of(fields)
    heads = positive(fields, *_HEADS)
    shared = divided(width, heads, "the audio tower's width", "num_attention_heads")
    shared *= positive(fields, "num_key_value_heads", default=heads)
    layer = f"{name}.layers.{{}}"
    return (
        *_stem(fields, name, width),
        *repeated(
            depth_of(fields),
            attention(f"{layer}.self_attn", width, shared=shared, names=O_PROJ, key_bias=False),
            feed_forward(f"{layer}.mlp", width, positive(fields, "intermediate_size")),
            layer_norm(f"{layer}.input_layernorm", width),
            layer_norm(f"{layer}.post_attention_layernorm", width),
        ),
        *layer_norm(f"{name}.norm", width),
    )


def voxtral_realtime(fields: Fields, name: str) -> Tensors:
    """A causal decoder's layers over two convolutions."""
    width = width_of(fields)
    heads = positive(fields, *_HEADS)
    head = positive(fields, "head_dim")
    shared = positive(fields, "num_key_value_heads", default=heads) * head
    layer = f"{name}.layers.{{}}"
    inner = positive(fields, "intermediate_size")
    return (
        *_stem(fields, f"{name}.embedder", width),
        *repeated(
            depth_of(fields),
            attention(f"{layer}.self_attn", width, inner=heads * head, shared=shared, names=O_PROJ, key_bias=False),
            norm(f"{layer}.self_attn_layer_norm", width),
            norm(f"{layer}.final_layer_norm", width),
            linear(f"{layer}.mlp.gate_proj", inner, width, Split.ROWS),
            linear(f"{layer}.mlp.up_proj", inner, width, Split.ROWS),
            linear(f"{layer}.mlp.down_proj", width, inner, Split.COLUMNS, bias=True),
        ),
        *norm(f"{name}.norm", width),
    )


def whisper_layers(fields: Fields, layer: str, width: int, *, key_bias: bool = False) -> Tensors:
    """All of Whisper's encoder layers."""
    return repeated(
        depth_of(fields, "encoder_layers", "num_hidden_layers"),
        attention(f"{layer}.self_attn", width, key_bias=key_bias),
        layer_norm(f"{layer}.self_attn_layer_norm", width),
        feed_forward(layer, width, positive(fields, "encoder_ffn_dim", "intermediate_size")),
        layer_norm(f"{layer}.final_layer_norm", width),
    )


def _stem(fields: Fields, name: str, width: int) -> Tensors:
    return (
        *convolution(f"{name}.conv1", width, positive(fields, "num_mel_bins", default=80), 3),
        *convolution(f"{name}.conv2", width, width, 3),
    )
