"""Janus sees and draws: SigLIP beside the language model, and an autoencoder whose latent codes are its words."""

from heliosd.estimation.families.sizes import contradiction, positive
from heliosd.estimation.families.vision_blocks import (
    Tensors,
    convolution,
    depth_of,
    layer_norm,
    repeated,
    table,
    width_of,
)
from heliosd.estimation.families.vision_clip import janus as tower
from heliosd.estimation.families.vision_language import needed
from heliosd.estimation.fields import Fields
from heliosd.estimation.layout import linear

_MOST_LEVELS = 16


def janus(fields: Fields, text: int) -> Tensors:
    seen = needed(fields, "vision_config", "janus_vision_model")
    drawn = needed(fields, "vq_config", "janus_vqgan")
    codes, narrow = positive(drawn, "num_embeddings"), positive(drawn, "embed_dim")
    out, wide = positive(drawn, "projection_dim"), positive(seen, "projection_dim")
    return (
        *tower(seen, "vision_model"),
        *linear("aligner.fc1", wide, width_of(seen), bias=True),
        *repeated(max(0, depth_of(seen, "depth") - 1), linear("aligner.hidden_layers.{}", wide, wide, bias=True)),
        *autoencoder(drawn, "vqmodel"),
        table("generation_embeddings", codes, narrow),
        *linear("generation_aligner.fc1", out, narrow, bias=True),
        *repeated(
            max(0, depth_of(drawn, "num_hidden_layers") - 1),
            linear("generation_aligner.hidden_layers.{}", out, out, bias=True),
        ),
        *linear("generation_head.proj_out", out, positive(drawn, "image_token_embed_dim", default=out), bias=True),
        *linear("generation_head.vision_head", codes, out, bias=True),
    )


def autoencoder(fields: Fields, name: str) -> Tensors:
    """A VQGAN: levels of residual blocks that halve the picture's sides, codes, the same in reverse."""
    base, latent = positive(fields, "base_channels"), positive(fields, "latent_channels")
    given = fields.items("channel_multiplier")
    if not given or len(given) > _MOST_LEVELS:
        raise contradiction("channel_multiplier is not a short list", "channel_multiplier")
    widths = [base * positive(Fields({"channel_multiplier": one}), "channel_multiplier") for one in given]
    count = depth_of(fields, "num_res_blocks")
    narrow = positive(fields, "embed_dim")
    levels = len(widths)

    made = convolution(f"{name}.encoder.conv_in", base, positive(fields, "in_channels", default=3), 9)
    inputs = base
    for level, width in enumerate(widths):
        made += _level(f"{name}.encoder.down.{level}", inputs, width, count, attends=level == levels - 1)
        made += (
            convolution(f"{name}.encoder.down.{level}.downsample.conv", width, width, 9) if level < levels - 1 else ()
        )
        inputs = width if count else inputs
    doubled = 2 if fields.flag("double_latent") else 1
    made += _middle(f"{name}.encoder", inputs, doubled * latent)
    made += (table(f"{name}.quantize.embedding", positive(fields, "num_embeddings"), narrow),)
    made += convolution(f"{name}.quant_conv", narrow, latent, 1) + convolution(
        f"{name}.post_quant_conv", latent, narrow, 1
    )
    inputs = widths[-1]
    made += convolution(f"{name}.decoder.conv_in", inputs, latent, 9)
    made += _middle(f"{name}.decoder", inputs, 0)
    for level in reversed(range(levels)):
        made += _level(f"{name}.decoder.up.{level}", inputs, widths[level], count + 1, attends=level == levels - 1)
        inputs = widths[level]
        made += convolution(f"{name}.decoder.up.{level}.upsample.conv", inputs, inputs, 9) if level else ()
    return (
        *made,
        *layer_norm(f"{name}.decoder.norm_out", inputs),
        *convolution(f"{name}.decoder.conv_out", positive(fields, "out_channels", default=3), inputs, 9),
    )


def _level(name: str, inputs: int, width: int, count: int, *, attends: bool) -> Tensors:
    if not count:
        return ()
    first = _block(f"{name}.block.0", inputs, width)
    rest = repeated(count - 1, _block(f"{name}.block.{{}}", width, width))
    return first + rest + (repeated(count, _attention(f"{name}.attn.{{}}", width)) if attends else ())


def _middle(name: str, width: int, out: int) -> Tensors:
    """`out` 0: nothing follows."""
    made = _block(f"{name}.mid.block_1", width, width) + _attention(f"{name}.mid.attn_1", width)
    made += _block(f"{name}.mid.block_2", width, width)
    if out:
        made += layer_norm(f"{name}.norm_out", width) + convolution(f"{name}.conv_out", out, width, 9)
    return made


def _block(name: str, inputs: int, width: int) -> Tensors:
    shortcut = convolution(f"{name}.nin_shortcut", width, inputs, 1) if inputs != width else ()
    return (
        *layer_norm(f"{name}.norm1", inputs),
        *convolution(f"{name}.conv1", width, inputs, 9),
        *layer_norm(f"{name}.norm2", width),
        *convolution(f"{name}.conv2", width, width, 9),
        *shortcut,
    )


def _attention(name: str, width: int) -> Tensors:
    parts = (convolution(f"{name}.{part}", width, width, 1) for part in ("q", "k", "v", "proj_out"))
    return (*layer_norm(f"{name}.norm", width), *(tensor for part in parts for tensor in part))
