"""Vision towers in Qwen2-VL's line: patches in space and time, blocks, and a merger of neighbouring patches."""

from heliosd.estimation.families.sizes import divided, positive
from heliosd.estimation.families.vision_blocks import (
    Tensors,
    attention,
    convolution,
    depth_of,
    feed_forward,
    fused_attention,
    gated,
    kernel,
    layer_norm,
    patches,
    repeated,
    weights,
    width_of,
)
from heliosd.estimation.fields import Fields
from heliosd.estimation.layout import Split, linear, norm

_DEEPSTACK = 3
"""Mergers of intermediate layers where the configuration does not list them."""


def _blocks(fields: Fields, name: str, width: int, inner: int) -> Tensors:
    """Layers with layer norms and a plain feed-forward."""
    block = f"{name}.blocks.{{}}"
    return repeated(
        depth_of(fields, "depth"),
        layer_norm(f"{block}.norm1", width),
        layer_norm(f"{block}.norm2", width),
        fused_attention(f"{block}.attn", width),
        feed_forward(f"{block}.mlp", width, inner),
    )


def qwen2_vl(fields: Fields, name: str) -> Tensors:
    """`embed_dim` is the tower's width, `hidden_size` the language model's."""
    width = positive(fields, "embed_dim")
    ratio = fields.get("mlp_ratio")
    inner = int(width * ratio) if isinstance(ratio, int | float) and 0 < ratio < 1024 else 4 * width
    return (
        *_patches(fields, name, width, bias=False),
        *_blocks(fields, name, width, inner),
        *layer_norm(f"{name}.merger.ln_q", width),
        *merger(f"{name}.merger", merged(fields, width), positive(fields, "hidden_size"), ("mlp.0", "mlp.2")),
    )


def qwen2_5_vl(fields: Fields, name: str) -> Tensors:
    """Gated feed-forward with biases, norms without; grouped keys where `num_key_value_heads` says so (EXAONE 4.5)."""
    width = width_of(fields)
    heads = positive(fields, "num_heads")
    shared = positive(fields, "num_key_value_heads", default=heads)
    head = divided(width, heads, "the vision tower's width", "num_heads")
    block = f"{name}.blocks.{{}}"
    return (
        *_patches(fields, name, width, bias=False),
        *repeated(
            depth_of(fields, "depth"),
            norm(f"{block}.norm1", width),
            norm(f"{block}.norm2", width),
            fused_attention(f"{block}.attn", width, rows=width + 2 * shared * head),
            gated(f"{block}.mlp", width, positive(fields, "intermediate_size"), bias=True),
        ),
        *norm(f"{name}.merger.ln_q", width),
        *merger(f"{name}.merger", merged(fields, width), positive(fields, "out_hidden_size"), ("mlp.0", "mlp.2")),
    )


def qwen3_vl(fields: Fields, name: str) -> Tensors:
    """With a position table, and a merger for each intermediate layer whose features enter the decoder."""
    listed = fields.given("deepstack_visual_indexes")
    extra = len(fields.items("deepstack_visual_indexes")) if listed else _DEEPSTACK
    width, out = width_of(fields), positive(fields, "out_hidden_size")
    wide = merged(fields, width)
    deep = f"{name}.deepstack_merger_list.{{}}"
    names = ("linear_fc1", "linear_fc2")
    return (
        *qwen3_5(fields, name),
        *repeated(extra, layer_norm(f"{deep}.norm", wide), merger(deep, wide, out, names)),
    )


def qwen3_5(fields: Fields, name: str) -> Tensors:
    """Qwen3-VL's tower without the intermediate mergers."""
    width = width_of(fields)
    block = f"{name}.blocks.{{}}"
    names = ("linear_fc1", "linear_fc2")
    return (
        *_patches(fields, name, width),
        weights(f"{name}.pos_embed.weight", positive(fields, "num_position_embeddings"), width),
        *repeated(
            depth_of(fields, "depth"),
            layer_norm(f"{block}.norm1", width),
            layer_norm(f"{block}.norm2", width),
            fused_attention(f"{block}.attn", width),
            feed_forward(f"{block}.mlp", width, positive(fields, "intermediate_size"), names=names),
        ),
        *layer_norm(f"{name}.merger.norm", width),
        *merger(f"{name}.merger", merged(fields, width), positive(fields, "out_hidden_size"), names),
    )


def glm4v(fields: Fields, name: str) -> Tensors:
    """GLM-4V: `intermediate_size` is the merger's; a block's feed-forward is as wide as the language model."""
    width, out = width_of(fields), positive(fields, "out_hidden_size")
    block = f"{name}.blocks.{{}}"
    return (
        weights(f"{name}.embeddings.position_embedding.weight", patches(fields), width),
        *_patches(fields, name, width),
        *repeated(
            depth_of(fields, "depth"),
            norm(f"{block}.norm1", width),
            norm(f"{block}.norm2", width),
            fused_attention(f"{block}.attn", width, bias=fields.flag("attention_bias"), out_bias=False),
            gated(f"{block}.mlp", width, out),
        ),
        *_glm_merger(f"{name}.merger", out, positive(fields, "intermediate_size")),
        *norm(f"{name}.post_conv_layernorm", width),
        *_downsampled(fields, name, width, out),
    )


def glm_ocr(fields: Fields, name: str) -> Tensors:
    """GLM-OCR and GLM-5-Next: biases everywhere, norms of queries and keys, no position table."""
    width, out = width_of(fields), positive(fields, "out_hidden_size")
    head = divided(width, positive(fields, "num_heads"), "the vision tower's width", "num_heads")
    bias = fields.flag("attention_bias", default=True)
    wide = positive(fields, "projection_intermediate_size", default=out * positive(fields, "in_channels", default=3))
    block = f"{name}.blocks.{{}}"
    return (
        *_patches(fields, name, width),
        *repeated(
            depth_of(fields, "depth"),
            norm(f"{block}.norm1", width),
            norm(f"{block}.norm2", width),
            fused_attention(f"{block}.attn", width, bias=bias),
            norm(f"{block}.attn.q_norm", head),
            norm(f"{block}.attn.k_norm", head),
            gated(f"{block}.mlp", width, positive(fields, "intermediate_size"), bias=bias),
        ),
        *_glm_merger(f"{name}.merger", out, wide),
        *_downsampled(fields, name, width, out),
    )


def ernie(fields: Fields, name: str) -> Tensors:
    """ERNIE 4.5-VL: patches are vectors."""
    width = width_of(fields)
    return (
        *linear(f"{name}.patch_embed.proj", width, positive(fields, "in_channels", default=3) * kernel(fields)),
        *_blocks(fields, name, width, positive(fields, "intermediate_size")),
        *layer_norm(f"{name}.ln", width),
    )


def moonvit(fields: Fields, name: str) -> Tensors:
    """Kimi's tower: a position table in two dimensions. The third's has scales alone, no biases and wider heads."""
    width = width_of(fields)
    rows = positive(fields, "pos_emb_height", "init_pos_emb_height", default=64)
    columns = positive(fields, "pos_emb_width", "init_pos_emb_width", default=64)
    layer = f"{name}.encoder.blocks.{{}}"
    shift = fields.text("norm_type", default="layernorm") != "rmsnorm"
    inner = positive(fields, "qkv_hidden_size", default=width)
    bias, wide = fields.flag("attn_bias", default=True), positive(fields, "intermediate_size")
    patched = fields.flag("patch_embed_proj_bias", default=True)
    return (
        *convolution(f"{name}.patch_embed.proj", width, 3, kernel(fields, patch=14), bias=patched),
        weights(f"{name}.patch_embed.pos_emb.weight", rows * columns, width),
        *repeated(
            depth_of(fields),
            norm(f"{layer}.norm1", width, bias=shift),
            norm(f"{layer}.norm2", width, bias=shift),
            attention(f"{layer}.attn", width, inner=inner, names=("q_proj", "k_proj", "v_proj", "proj"), bias=bias),
            feed_forward(f"{layer}.mlp", width, wide, bias=fields.flag("linear_bias", default=True)),
        ),
        *norm(f"{name}.encoder.final_layernorm", width, bias=shift),
    )


def muse(fields: Fields, name: str) -> Tensors:
    """Muse Glimmer: norms around the layers, patches of several frames as vectors."""
    width = width_of(fields)
    layer = f"{name}.layers.{{}}"
    taps = positive(fields, "patch_temporal", default=2) * 3 * kernel(fields)
    positions = positive(fields, "pos_emb_height") * positive(fields, "pos_emb_width")
    return (
        *linear(f"{name}.patch_embedder.patch_embedding", width, taps),
        weights(f"{name}.patch_embedder.position_embedding_table.weight", positions, width),
        *layer_norm(f"{name}.ln_pre", width),
        *repeated(
            depth_of(fields),
            layer_norm(f"{layer}.norm1", width),
            layer_norm(f"{layer}.norm2", width),
            attention(f"{layer}.attn", width, names=("q_proj", "k_proj", "v_proj", "proj")),
            feed_forward(f"{layer}.mlp", width, positive(fields, "intermediate_size")),
        ),
        *layer_norm(f"{name}.ln_post", width),
    )


def merged(fields: Fields, width: int) -> int:
    """The width of `spatial_merge_size` squared neighbours side by side."""
    return width * positive(fields, "spatial_merge_size", default=2) ** 2


def merger(name: str, wide: int, out: int, names: tuple[str, str]) -> Tensors:
    """Neighbours side by side through one hidden layer to the language model's width."""
    return feed_forward(name, wide, wide, names=names, out=out)


def _patches(fields: Fields, name: str, width: int, *, bias: bool = True) -> Tensors:
    taps = kernel(fields) * positive(fields, "temporal_patch_size", default=2)
    channels = positive(fields, "in_channels", "in_chans", default=3)
    return convolution(f"{name}.patch_embed.proj", width, channels, taps, bias=bias)


def _downsampled(fields: Fields, name: str, width: int, out: int) -> Tensors:
    taps = positive(fields, "spatial_merge_size", default=2) ** 2
    return (*convolution(f"{name}.downsample", out, width, taps), *norm(f"{name}.post_layernorm", width))


def _glm_merger(name: str, width: int, inner: int) -> Tensors:
    return (
        *linear(f"{name}.proj", width, width, Split.WHOLE),
        *layer_norm(f"{name}.post_projection_norm", width),
        *gated(name, width, inner),
    )
