"""Vision towers outside the lines of CLIP and Qwen2-VL: Pixtral, InternViT, Llama, Gemma 4, SAM, Ovis, RADIO."""

from heliosd.estimation.families.sizes import contradiction, divided, positive
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
    side,
    weights,
    width_of,
)
from heliosd.estimation.families.vision_clip import ratio_of
from heliosd.estimation.fields import Fields
from heliosd.estimation.layout import Split, linear, norm

_O_PROJ = ("q_proj", "k_proj", "v_proj", "o_proj")


def pixtral(fields: Fields, name: str) -> Tensors:
    """A small decoder without biases: rotary positions, gated feed-forward."""
    width = width_of(fields)
    layer = f"{name}.transformer.layers.{{}}"
    channels = positive(fields, "num_channels", default=3)
    return (
        *convolution(f"{name}.patch_conv", width, channels, kernel(fields), bias=False),
        *norm(f"{name}.ln_pre", width),
        *repeated(
            depth_of(fields),
            norm(f"{layer}.attention_norm", width),
            gated(f"{layer}.feed_forward", width, positive(fields, "intermediate_size")),
            attention(f"{layer}.attention", width, names=_O_PROJ, bias=False),
            norm(f"{layer}.ffn_norm", width),
        ),
    )


def internvit(fields: Fields, name: str) -> Tensors:
    """InternViT: a class token, scaled residuals; layer norms or plain ones by `norm_type`."""
    width = width_of(fields)
    shift = fields.text("norm_type", default="layer_norm") == "layer_norm"
    names = ("q_proj", "k_proj", "v_proj", "projection_layer")
    layer = f"{name}.encoder.layer.{{}}"
    embeddings = f"{name}.embeddings"
    table = patches(fields) + 1 if fields.flag("use_absolute_position_embeddings", default=True) else 0
    mask = (weights(f"{embeddings}.mask_token", width),) if fields.flag("use_mask_token") else ()
    normed = fields.flag("use_qk_norm")
    after = () if fields.flag("use_mean_pooling", default=True) else layer_norm(f"{name}.layernorm", width)
    return (
        weights(f"{embeddings}.cls_token", width),
        *mask,
        *((weights(f"{embeddings}.position_embeddings", table, width),) if table else ()),
        *convolution(
            f"{embeddings}.patch_embeddings.projection",
            width,
            positive(fields, "num_channels", default=3),
            kernel(fields),
        ),
        *repeated(
            depth_of(fields),
            (weights(f"{layer}.lambda_1", width), weights(f"{layer}.lambda_2", width)),
            attention(f"{layer}.attention", width, names=names, bias=fields.flag("attention_bias"), out_bias=True),
            (*norm(f"{layer}.attention.q_norm", width), *norm(f"{layer}.attention.k_norm", width)) if normed else (),
            feed_forward(f"{layer}.mlp", width, positive(fields, "intermediate_size")),
            norm(f"{layer}.layernorm_before", width, bias=shift),
            norm(f"{layer}.layernorm_after", width, bias=shift),
        ),
        *after,
    )


def llama4(fields: Fields, name: str) -> Tensors:
    """Llama 4: patches unfolded to vectors, then an adapter that shuffles neighbours together."""
    width, inner = width_of(fields), positive(fields, "intermediate_size")
    into, out = (
        positive(fields, "projector_input_dim", default=4096),
        positive(fields, "projector_output_dim", default=4096),
    )
    layer = f"{name}.model.layers.{{}}"
    taps = positive(fields, "num_channels", default=3) * kernel(fields)
    return (
        weights(f"{name}.class_embedding", width),
        weights(f"{name}.positional_embedding_vlm", patches(fields) + 1, width),
        *linear(f"{name}.patch_embedding.linear", width, taps),
        *layer_norm(f"{name}.layernorm_pre", width),
        *layer_norm(f"{name}.layernorm_post", width),
        *repeated(
            depth_of(fields),
            attention(f"{layer}.self_attn", width, names=_O_PROJ),
            feed_forward(f"{layer}.mlp", width, inner),
            layer_norm(f"{layer}.input_layernorm", width),
            layer_norm(f"{layer}.post_attention_layernorm", width),
        ),
        *linear(f"{name}.vision_adapter.mlp.fc1", into, inner, Split.ROWS),
        *linear(f"{name}.vision_adapter.mlp.fc2", out, out, Split.COLUMNS),
    )


def mllama(fields: Fields, name: str) -> Tensors:
    """Llama 3.2: local layers, then gated global ones; position tables for every shape of tiles."""
    width, inner = width_of(fields), positive(fields, "intermediate_size")
    tiles = positive(fields, "max_num_tiles", default=4)
    shapes = len(fields.items("supported_aspect_ratios")) or 8
    places = patches(fields) + 1
    channels = positive(fields, "num_channels", default=3)
    gated_position = f"{name}.gated_positional_embedding"

    def layers(stem: str, count: int, gates: Tensors) -> Tensors:
        return repeated(
            count,
            gates,
            attention(f"{stem}.self_attn", width, names=_O_PROJ, bias=False),
            feed_forward(f"{stem}.mlp", width, inner),
            layer_norm(f"{stem}.input_layernorm", width),
            layer_norm(f"{stem}.post_attention_layernorm", width),
        )

    wide = f"{name}.global_transformer.layers.{{}}"
    gates = (weights(f"{wide}.gate_attn", 1), weights(f"{wide}.gate_ffn", 1))
    tile_tables = tuple(
        tensor
        for where in ("pre_tile_positional_embedding", "post_tile_positional_embedding")
        for tensor in (
            weights(f"{name}.{where}.gate", 1),
            weights(f"{name}.{where}.embedding.weight", shapes + 1, tiles * width),
        )
    )
    return (
        weights(f"{name}.class_embedding", width),
        *convolution(f"{name}.patch_embedding", width, channels, kernel(fields), bias=False),
        weights(f"{gated_position}.gate", 1),
        weights(f"{gated_position}.embedding", places, width),
        weights(f"{gated_position}.tile_embedding.weight", shapes + 1, tiles * places * width),
        *tile_tables,
        *layer_norm(f"{name}.layernorm_pre", width),
        *layer_norm(f"{name}.layernorm_post", width),
        *layers(f"{name}.transformer.layers.{{}}", depth_of(fields, "num_hidden_layers"), ()),
        *layers(wide, depth_of(fields, "num_global_layers"), gates),
    )


def gemma4(fields: Fields, name: str) -> Tensors:
    """Gemma 4: two position tables, four norms around each layer, norms of queries and keys."""
    width, head = width_of(fields), positive(fields, "head_dim")
    heads = positive(fields, "num_attention_heads")
    shared = positive(fields, "num_key_value_heads", default=heads)
    layer = f"{name}.encoder.layers.{{}}"
    places = positive(fields, "position_embedding_size")
    around = ("input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm")
    return (
        *linear(f"{name}.patch_embedder.input_proj", width, 3 * kernel(fields)),
        weights(f"{name}.patch_embedder.position_embedding_table", 2 * places, width),
        *repeated(
            depth_of(fields),
            attention(f"{layer}.self_attn", width, inner=heads * head, shared=shared * head, names=_O_PROJ, bias=False),
            norm(f"{layer}.self_attn.q_norm", head),
            norm(f"{layer}.self_attn.k_norm", head),
            gated(f"{layer}.mlp", width, positive(fields, "intermediate_size")),
            *(norm(f"{layer}.{where}", width) for where in around),
        ),
    )


def sam(fields: Fields, name: str) -> Tensors:
    """SAM's encoder (GOT-OCR, DeepSeek-VL and -OCR): relative positions in each layer, longer ones in global layers."""
    width = width_of(fields, default=768)
    inner = positive(fields, "mlp_dim", default=int(width * ratio_of(fields, 4.0)))
    depth = depth_of(fields, default=12)
    across = side(fields, "image_size", default=1024) // side(fields, "patch_size", default=16)
    heads = positive(fields, "num_attention_heads", default=12)
    head = divided(width, heads, "the vision tower's width", "num_attention_heads")
    listed = fields.items("global_attn_indexes") or [2, 5, 8, 11]
    wide = len({index for index in listed if isinstance(index, int) and 0 <= index < depth})
    window = fields.whole("window_size", default=14)
    if not window:
        wide = depth
    out = positive(fields, "output_channels", default=256)
    layer = f"{name}.layers.{{}}"
    relative = fields.flag("use_rel_pos", default=True)

    def reach(count: int, length: int) -> Tensors:
        if not relative:
            return ()
        tables = (
            weights(f"{layer}.attn.rel_pos_h", 2 * length - 1, head),
            weights(f"{layer}.attn.rel_pos_w", 2 * length - 1, head),
        )
        return repeated(count, tables)

    if across < 1:
        raise contradiction("an image is smaller than a patch", "image_size")
    absolute = fields.flag("use_abs_pos", default=True)
    return (
        *((weights(f"{name}.pos_embed", across * across, width),) if absolute else ()),
        *convolution(
            f"{name}.patch_embed.projection",
            width,
            positive(fields, "num_channels", default=3),
            kernel(fields, patch=16),
        ),
        *repeated(
            depth,
            layer_norm(f"{layer}.layer_norm1", width),
            fused_attention(f"{layer}.attn", width, bias=fields.flag("qkv_bias", default=True), out_bias=True),
            layer_norm(f"{layer}.layer_norm2", width),
            feed_forward(f"{layer}.mlp", width, inner, names=("lin1", "lin2")),
        ),
        *reach(depth - wide, window),
        *reach(wide, across),
        *sam_neck(f"{name}.neck", width, out),
    )


def sam_neck(name: str, width: int, out: int) -> Tensors:
    """Two convolutions to `out` channels, each normed."""
    return (
        *convolution(f"{name}.conv1", out, width, 1, bias=False),
        *layer_norm(f"{name}.layer_norm1", out),
        *convolution(f"{name}.conv2", out, out, 9, bias=False),
        *layer_norm(f"{name}.layer_norm2", out),
    )


def ovis2(fields: Fields, name: str) -> Tensors:
    """Ovis 2: AIMv2, then a head onto a vocabulary of visual words."""
    width = width_of(fields, default=1024)
    layer = f"{name}.transformer.encoder.layers.{{}}"
    words = positive(fields, "vocab_size", default=16384) - fields.whole("num_visual_indicator_tokens", default=5)
    stride = positive(fields, "hidden_stride", default=1)
    if words < 1:
        raise contradiction("it has fewer visual words than indicators", "vocab_size")
    return (
        *convolution(
            f"{name}.transformer.embeddings.patch_embedding",
            width,
            positive(fields, "num_channels", default=3),
            kernel(fields, patch=14),
        ),
        weights(f"{name}.transformer.embeddings.position_embedding.weight", patches(fields, size=224, patch=14), width),
        *norm(f"{name}.transformer.embeddings.rms_norm", width),
        *repeated(
            depth_of(fields, default=24),
            attention(f"{layer}.attention", width, bias=fields.flag("qkv_bias")),
            gated(
                f"{layer}.ffn", width, positive(fields, "intermediate_size", default=2816), bias=fields.flag("mlp_bias")
            ),
            norm(f"{layer}.rms_norm1", width),
            norm(f"{layer}.rms_norm2", width),
        ),
        *norm(f"{name}.transformer.rms_norm", width),
        *linear(f"{name}.head_linear", words, width * stride * stride),
        *layer_norm(f"{name}.head_norm", words),
    )


def radio(fields: Fields, name: str) -> Tensors:
    """C-RADIO: class and register tokens, scaled residuals, a second patch embedding for video."""
    width = width_of(fields)
    taps = positive(fields, "num_channels", default=3) * kernel(fields)
    frames = positive(fields, "video_temporal_patch_size", default=1)
    across = positive(fields, "max_img_size", default=2048) // side(fields, "patch_size")
    tokens = fields.whole("num_cls_tokens", default=3) + fields.whole("num_registers", default=7)
    layer = f"{name}.encoder.layer.{{}}"
    video = linear(f"{name}.embeddings.video_patch_projection", width, frames * taps)
    return (
        weights(f"{name}.embeddings.position_embedding", across * across, width),
        weights(f"{name}.embeddings.cls_register_token", tokens, width),
        *linear(f"{name}.embeddings.patch_projection", width, taps),
        *(video if fields.get("video_temporal_patch_size") is not None else ()),
        *repeated(
            depth_of(fields),
            layer_norm(f"{layer}.norm1", width),
            attention(
                f"{layer}.attention",
                width,
                names=_O_PROJ,
                bias=fields.flag("qkv_bias", default=True),
                out_bias=True,
            ),
            (weights(f"{layer}.layer_scale1.lambda1", width), weights(f"{layer}.layer_scale2.lambda1", width)),
            layer_norm(f"{layer}.norm2", width),
            feed_forward(f"{layer}.mlp", width, int(width * ratio_of(fields, 4.0))),
        ),
    )
