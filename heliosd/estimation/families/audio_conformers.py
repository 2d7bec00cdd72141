"""Conformers: attention and convolution between two halves of a feed-forward network."""

from heliosd.estimation.families.audio_encoders import O_PROJ
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


def parakeet(fields: Fields, name: str) -> Tensors:
    """A conformer (Canary, Cohere ASR): halving by separable convolutions, then attention with relative positions."""
    width, inner = width_of(fields), positive(fields, "intermediate_size")
    bias = fields.flag("attention_bias", default=True)
    tap = positive(fields, "subsampling_conv_kernel_size", default=3) ** 2
    channels = positive(fields, "subsampling_conv_channels", default=256)
    halvings = positive(fields, "subsampling_factor", default=8).bit_length() - 1
    stride = positive(fields, "subsampling_conv_stride", default=2)
    bins = positive(fields, "num_mel_bins", default=80) // stride ** min(max(halvings, 1), 64)
    layer = f"{name}.layers.{{}}"
    stem = f"{name}.subsampling.layers.{{}}"
    convolved = fields.flag("convolution_bias", default=True)
    return (
        *convolution(stem, channels, 1, tap),
        *repeated(halvings - 1, convolution(stem, channels, 1, tap), convolution(stem, channels, channels, 1)),
        *linear(f"{name}.subsampling.linear", width, channels * bins, bias=True),
        *repeated(
            depth_of(fields),
            feed_forward(f"{layer}.feed_forward1", width, inner, names=("linear1", "linear2"), bias=bias),
            (weights(f"{layer}.self_attn.bias_u", width), weights(f"{layer}.self_attn.bias_v", width)),
            attention(f"{layer}.self_attn", width, names=O_PROJ, bias=bias),
            linear(f"{layer}.self_attn.relative_k_proj", width, width, Split.ROWS),
            convolution(f"{layer}.conv.pointwise_conv1", 2 * width, width, 1, bias=convolved),
            convolution(f"{layer}.conv.depthwise_conv", width, 1, positive(fields, "conv_kernel_size"), bias=convolved),
            layer_norm(f"{layer}.conv.norm", width),
            convolution(f"{layer}.conv.pointwise_conv2", width, width, 1, bias=convolved),
            feed_forward(f"{layer}.feed_forward2", width, inner, names=("linear1", "linear2"), bias=bias),
            *(
                layer_norm(f"{layer}.{where}", width)
                for where in ("norm_feed_forward1", "norm_self_att", "norm_conv", "norm_feed_forward2", "norm_out")
            ),
        ),
    )


def granite(fields: Fields, name: str) -> Tensors:
    """Granite Speech: a conformer with a classifier whose middle output is fed back."""
    width = positive(fields, "hidden_dim")
    inner = width * positive(fields, "feedforward_mult")
    heads, head = positive(fields, "num_heads"), positive(fields, "dim_head")
    wide = width * positive(fields, "conv_expansion_factor")
    out = positive(fields, "output_dim")
    layer = f"{name}.layers.{{}}"

    def half(stem: str) -> Tensors:
        return (
            *layer_norm(f"{stem}.pre_norm", width),
            *feed_forward(stem, width, inner, names=("up_proj", "down_proj")),
        )

    return (
        *linear(f"{name}.input_linear", width, positive(fields, "input_dim"), bias=True),
        *repeated(
            depth_of(fields, "num_layers"),
            half(f"{layer}.ff1"),
            layer_norm(f"{layer}.attn.pre_norm", width),
            linear(f"{layer}.attn.to_q", heads * head, width, Split.ROWS),
            linear(f"{layer}.attn.to_kv", 2 * heads * head, width, Split.ROWS),
            linear(f"{layer}.attn.to_out", width, heads * head, Split.COLUMNS, bias=True),
            (weights(f"{layer}.attn.rel_pos_emb.weight", 2 * positive(fields, "max_pos_emb") + 1, head),),
            layer_norm(f"{layer}.conv.norm", width),
            convolution(f"{layer}.conv.up_conv", 2 * wide, width, 1),
            convolution(f"{layer}.conv.depth_conv.conv", wide, 1, positive(fields, "conv_kernel_size"), bias=False),
            layer_norm(f"{layer}.conv.batch_norm", wide),
            convolution(f"{layer}.conv.down_conv", width, wide, 1),
            half(f"{layer}.ff2"),
            layer_norm(f"{layer}.post_norm", width),
        ),
        *linear(f"{name}.out", out, width, bias=True),
        *linear(f"{name}.out_mid", width, out, bias=True),
    )


def phi4(fields: Fields, name: str) -> Tensors:
    """Phi-4-multimodal: a conformer with gated pointwise convolutions and a table of relative positions."""
    width, inner = positive(fields, "hidden_size"), positive(fields, "intermediate_size")
    channels = positive(fields, "nemo_conv_channels")
    halvings = positive(fields, "time_reduction", default=8).bit_length() - 1
    bins = positive(fields, "input_size", default=80)
    for _ in range(halvings):
        bins = (bins + 1) // 2
    heads = positive(fields, "num_attention_heads")
    reach = positive(fields, "bias_max_distance") * (1 if fields.flag("bias_symmetric") else 2)
    out, deep = positive(fields, "ext_pw_out_channel"), positive(fields, "depthwise_separable_out_channel")
    many = width * positive(fields, "depthwise_multiplier", default=1)
    layer = f"{name}.encoders.{{}}"

    def half(stem: str) -> Tensors:
        return (
            *layer_norm(f"{stem}.layer_norm", width),
            *linear(f"{stem}.gate_up_proj", 2 * inner, width, Split.ROWS, bias=True),
            *linear(f"{stem}.down_proj", width, inner, Split.COLUMNS, bias=True),
        )

    return (
        *convolution(f"{name}.embed.conv.0", channels, 1, 9),
        *repeated(
            halvings - 1,
            convolution(f"{name}.embed.conv.{{}}", channels, 1, 9),
            convolution(f"{name}.embed.conv.{{}}", channels, channels, 1),
        ),
        *linear(f"{name}.embed.out", width, channels * bins, bias=True),
        weights(f"{name}.relative_attention_bias_layer.bias_values.weight", reach, heads),
        *repeated(
            depth_of(fields, "num_blocks"),
            half(f"{layer}.feed_forward_in"),
            attention(f"{layer}.self_attn", width, names=O_PROJ),
            layer_norm(f"{layer}.conv.layer_norm", width),
            (weights(f"{layer}.conv.glu.b1", out), weights(f"{layer}.conv.glu.b2", out)),
            convolution(f"{layer}.conv.glu.ext_pw_conv_1d", 2 * out, width, 1),
            convolution(f"{layer}.conv.dw_sep_conv_1d.dw_conv", many, 1, positive(fields, "kernel_size")),
            convolution(f"{layer}.conv.dw_sep_conv_1d.pw_conv", deep, many, 1),
            convolution(f"{layer}.conv.ext_pw_conv_1d", out, width, 1),
            half(f"{layer}.feed_forward_out"),
            layer_norm(f"{layer}.layer_norm_att", width),
            layer_norm(f"{layer}.layer_norm", width),
        ),
    )


def gemma4(fields: Fields, name: str) -> Tensors:
    """Gemma 4's conformer: two strided convolutions, feed-forward of four widths before and after attention."""
    width = width_of(fields)
    wide = positive(fields, "num_attention_heads")
    head = divided(width, wide, "the audio tower's width", "num_attention_heads")
    first, second = ([*fields.items("subsampling_conv_channels"), 128, 32])[:2]
    first, second = (positive(Fields({"subsampling_conv_channels": size}), "subsampling_conv_channels")
                     for size in (first, second))  # fmt: skip
    stem = f"{name}.subsample_conv_projection"
    layer = f"{name}.layers.{{}}"

    def half(part: str) -> Tensors:
        return (
            *feed_forward(part, width, 4 * width, names=("ffw_layer_1", "ffw_layer_2"), bias=False),
            *norm(f"{part}.pre_layer_norm", width),
            *norm(f"{part}.post_layer_norm", width),
        )

    return (
        *convolution(f"{stem}.layer0.conv", first, 1, 9, bias=False),
        *norm(f"{stem}.layer0.norm", first),
        *convolution(f"{stem}.layer1.conv", second, first, 9, bias=False),
        *norm(f"{stem}.layer1.norm", second),
        *linear(f"{stem}.input_proj_linear", width, first // 4 * second),
        *repeated(
            depth_of(fields),
            half(f"{layer}.feed_forward1"),
            attention(f"{layer}.self_attn", width, names=("q_proj", "k_proj", "v_proj", "post"), bias=False),
            linear(f"{layer}.self_attn.relative_k_proj", width, width, Split.ROWS),
            (weights(f"{layer}.self_attn.per_dim_scale", head),),
            linear(f"{layer}.lconv1d.linear_start", 2 * width, width, Split.ROWS),
            linear(f"{layer}.lconv1d.linear_end", width, width, Split.COLUMNS),
            convolution(
                f"{layer}.lconv1d.depthwise_conv1d", width, 1, positive(fields, "conv_kernel_size"), bias=False
            ),
            norm(f"{layer}.lconv1d.pre_layer_norm", width),
            norm(f"{layer}.lconv1d.conv_norm", width),
            half(f"{layer}.feed_forward2"),
            *(norm(f"{layer}.{where}", width) for where in ("norm_pre_attn", "norm_post_attn", "norm_out")),
        ),
        *linear(f"{name}.output_proj", positive(fields, "output_proj_dims", default=1536), width, bias=True),
    )


def gemma3n(fields: Fields, name: str) -> Tensors:
    """Gemma 3n's conformer: Gemma 4's but for a norm and where the positions are projected."""
    width = width_of(fields)
    heads = positive(fields, "conf_num_attention_heads", default=8)
    head = divided(width, heads, "the audio tower's width", "conf_num_attention_heads")
    bins = positive(fields, "input_feat_size", default=128)
    first, second = 128, 32
    stem, layer = f"{name}.subsample_conv_projection", f"{name}.conformer.{{}}"

    def half(part: str) -> Tensors:
        return (
            *norm(f"{part}.pre_layer_norm", width),
            *feed_forward(part, width, 4 * width, names=("ffw_layer_1", "ffw_layer_2"), bias=False),
            *norm(f"{part}.post_layer_norm", width),
        )

    taps = positive(fields, "conf_conv_kernel_size", default=5)
    return (
        *convolution(f"{stem}.conv_0.conv", first, 1, 9, bias=False),
        *norm(f"{stem}.conv_0.norm", first),
        *convolution(f"{stem}.conv_1.conv", second, first, 9, bias=False),
        *norm(f"{stem}.conv_1.norm", second),
        *linear(f"{stem}.input_proj_linear", width, second * (-(-bins // 4))),
        *repeated(
            depth_of(fields, "conf_num_hidden_layers", default=12),
            half(f"{layer}.ffw_layer_start"),
            attention(f"{layer}.attention.attn", width, names=("q_proj", "k_proj", "v_proj", "post"), bias=False),
            linear(f"{layer}.attention.attn.relative_position_embedding.pos_proj", width, width, Split.ROWS),
            (weights(f"{layer}.attention.attn.per_dim_scale", head),),
            norm(f"{layer}.attention.pre_attn_norm", width),
            norm(f"{layer}.attention.post_norm", width),
            norm(f"{layer}.lconv1d.pre_layer_norm", width),
            linear(f"{layer}.lconv1d.linear_start", 2 * width, width, Split.ROWS),
            convolution(f"{layer}.lconv1d.depthwise_conv1d", width, 1, taps, bias=False),
            norm(f"{layer}.lconv1d.conv_norm", width),
            linear(f"{layer}.lconv1d.linear_end", width, width, Split.COLUMNS),
            half(f"{layer}.ffw_layer_end"),
            norm(f"{layer}.norm", width),
        ),
    )
