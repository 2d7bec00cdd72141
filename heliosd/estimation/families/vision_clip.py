"""Vision towers in CLIP's line: patches, a position table, layers of separate projections, norms with shifts."""

from collections.abc import Callable

from heliosd.estimation.families.sizes import positive
from heliosd.estimation.families.vision_blocks import (
    Tensors,
    attention,
    convolution,
    depth_of,
    feed_forward,
    fused_attention,
    joint_attention,
    kernel,
    layer_norm,
    patches,
    repeated,
    weights,
    width_of,
)
from heliosd.estimation.fields import Fields
from heliosd.estimation.layout import linear

Tower = Callable[[Fields, str], Tensors]
"""`(the tower's configuration, prefix of its names) -> tensors`."""


def clip(fields: Fields, name: str) -> Tensors:
    """CLIP: a class token, no bias on patches, norms before and after. Also Kosmos-2's, GIT's, IDEFICS' tower."""
    width = width_of(fields)
    return (
        weights(f"{name}.embeddings.class_embedding", width),
        *_patches(fields, name, width, bias=False),
        weights(f"{name}.embeddings.position_embedding.weight", patches(fields) + 1, width),
        *layer_norm(f"{name}.pre_layrnorm", width),
        *encoder(fields, f"{name}.encoder.layers.{{}}", width),
        *layer_norm(f"{name}.post_layernorm", width),
    )


def siglip(fields: Fields, name: str) -> Tensors:
    """SigLIP: no class token; a pooling head unless `vision_use_head` is false."""
    return (*siglip_without_head(fields, name), *_optional_head(fields, name))


def siglip_without_head(fields: Fields, name: str) -> Tensors:
    """As in Idefics 2 and 3, SmolVLM, MiniCPM-V, Aria."""
    width = width_of(fields)
    positions = weights(f"{name}.embeddings.position_embedding.weight", patches(fields), width)
    return (*_patches(fields, name, width), positions, *without_positions(fields, name))


def siglip2(fields: Fields, name: str) -> Tensors:
    """SigLIP 2 of any aspect ratio: patches are vectors, positions their maximal number."""
    return (*siglip2_without_head(fields, name), *_optional_head(fields, name))


def siglip2_without_head(fields: Fields, name: str) -> Tensors:
    width = width_of(fields)
    taps = positive(fields, "num_channels", default=3) * kernel(fields)
    return (
        *linear(f"{name}.embeddings.patch_embedding", width, taps, bias=True),
        weights(f"{name}.embeddings.position_embedding.weight", positive(fields, "num_patches"), width),
        *without_positions(fields, name),
    )


def video_llama(fields: Fields, name: str) -> Tensors:
    """Rotary positions instead of a table."""
    return (*_patches(fields, name, width_of(fields)), *without_positions(fields, name))


def minimax(fields: Fields, name: str) -> Tensors:
    """Patches in space and time, a norm before the layers and none after."""
    width = width_of(fields)
    taps = kernel(fields) * positive(fields, "temporal_patch_size", default=2)
    return (
        *convolution(f"{name}.embeddings.proj", width, positive(fields, "num_channels", default=3), taps, bias=False),
        *layer_norm(f"{name}.pre_layrnorm", width),
        *encoder(fields, f"{name}.layers.{{}}", width),
    )


def janus(fields: Fields, name: str) -> Tensors:
    """SigLIP with norms of queries and keys on demand; the feed-forward is a multiple of the width."""
    width = width_of(fields)
    inner = int(width * ratio_of(fields, 4.0))
    bias = fields.flag("attention_bias", default=True)
    names = ("q_proj", "k_proj", "v_proj", "projection_layer")
    normed = fields.flag("use_qk_norm")
    layer = f"{name}.encoder.layers.{{}}"
    return (
        *_patches(fields, name, width),
        weights(f"{name}.embeddings.position_embedding.weight", patches(fields), width),
        *repeated(
            depth_of(fields, "num_hidden_layers"),
            attention(f"{layer}.self_attn", width, names=names, bias=bias, out_bias=True),
            (*layer_norm(f"{layer}.self_attn.q_norm", width), *layer_norm(f"{layer}.self_attn.k_norm", width))
            if normed
            else (),
            layer_norm(f"{layer}.layer_norm1", width),
            layer_norm(f"{layer}.layer_norm2", width),
            feed_forward(f"{layer}.mlp", width, inner),
        ),
        *layer_norm(f"{name}.post_layernorm", width),
    )


def blip(fields: Fields, name: str) -> Tensors:
    """BLIP and its successors: one projection for queries, keys and values."""
    width = width_of(fields)
    layer = f"{name}.encoder.layers.{{}}"
    return (
        weights(f"{name}.embeddings.class_embedding", width),
        weights(f"{name}.embeddings.position_embedding", patches(fields) + 1, width),
        *_patches(fields, name, width),
        *repeated(
            depth_of(fields),
            fused_attention(
                f"{layer}.self_attn",
                width,
                names=("qkv", "projection"),
                bias=fields.flag("qkv_bias", default=True),
                out_bias=True,
            ),
            layer_norm(f"{layer}.layer_norm1", width),
            feed_forward(f"{layer}.mlp", width, positive(fields, "intermediate_size")),
            layer_norm(f"{layer}.layer_norm2", width),
        ),
        *layer_norm(f"{name}.post_layernorm", width),
    )


def step(fields: Fields, name: str) -> Tensors:
    """Step-3.7: scaled residuals, then two convolutions that halve the sides and double the width."""
    width = width_of(fields)
    layer = f"{name}.layers.{{}}"
    return (
        *_patches(fields, name, width, bias=False),
        weights(f"{name}.embeddings.position_embedding.weight", patches(fields), width),
        *layer_norm(f"{name}.pre_layernorm", width),
        *repeated(
            depth_of(fields),
            (weights(f"{layer}.lambda_1", width), weights(f"{layer}.lambda_2", width)),
            attention(f"{layer}.self_attn", width),
            feed_forward(f"{layer}.mlp", width, positive(fields, "intermediate_size")),
            layer_norm(f"{layer}.layernorm_before", width),
            layer_norm(f"{layer}.layernorm_after", width),
        ),
        *convolution(f"{name}.downsampler1", 2 * width, width, 9),
        *convolution(f"{name}.downsampler2", 4 * width, 2 * width, 9),
    )


def encoder(fields: Fields, layer: str, width: int) -> Tensors:
    """CLIP's layers, all of them."""
    return repeated(
        depth_of(fields),
        attention(f"{layer}.self_attn", width),
        layer_norm(f"{layer}.layer_norm1", width),
        feed_forward(f"{layer}.mlp", width, positive(fields, "intermediate_size")),
        layer_norm(f"{layer}.layer_norm2", width),
    )


def without_positions(fields: Fields, name: str) -> Tensors:
    """The layers and the norm that follows them."""
    width = width_of(fields)
    return (*encoder(fields, f"{name}.encoder.layers.{{}}", width), *layer_norm(f"{name}.post_layernorm", width))


def _optional_head(fields: Fields, name: str) -> Tensors:
    used = fields.flag("vision_use_head", default=True)
    return pooling_head(fields, f"{name}.head", width_of(fields)) if used else ()


def pooling_head(fields: Fields, name: str, width: int) -> Tensors:
    """A probe that attends to all patches."""
    return (
        weights(f"{name}.probe", width),
        *joint_attention(f"{name}.attention", width),
        *layer_norm(f"{name}.layernorm", width),
        *feed_forward(f"{name}.mlp", width, positive(fields, "intermediate_size")),
    )


def _patches(fields: Fields, name: str, width: int, *, bias: bool = True) -> Tensors:
    channels = positive(fields, "num_channels", default=3)
    return convolution(f"{name}.embeddings.patch_embedding", width, channels, kernel(fields), bias=bias)


def ratio_of(fields: Fields, default: float) -> float:
    """`mlp_ratio`: how many times as wide as the layer its feed-forward is."""
    value = fields.get("mlp_ratio")
    return float(value) if isinstance(value, int | float) and 0 < value < 1024 else default
