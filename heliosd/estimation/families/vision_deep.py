"""Models whose images enter the decoder in several places or through two encoders: Granite 4 Vision, HunYuan-VL,
DeepSeek-OCR."""

from heliosd.estimation.families import vision
from heliosd.estimation.families.sizes import contradiction, divided, positive
from heliosd.estimation.families.vision_blocks import (
    Tensors,
    attention,
    convolution,
    depth_of,
    feed_forward,
    gated,
    kernel,
    layer_norm,
    repeated,
    side,
    weights,
    width_of,
)
from heliosd.estimation.families.vision_language import needed, part_of
from heliosd.estimation.families.vision_others import sam
from heliosd.estimation.families.vision_qformer import blip2_qformer
from heliosd.estimation.fields import Fields
from heliosd.estimation.layout import Split, linear, norm

_CORNERS = 4
"""Projectors of Granite 4 Vision that sample the last layer, one for each corner of a window."""
_QUERIES = 144 + 256
"""DeepSeek-OCR 2's queries for pictures of 768 and of 1,024 pixels."""


def granite4(fields: Fields, text: int) -> Tensors:
    """A Q-Former over windows for each layer in `deepstack_layer_map`, and for each corner of a window."""
    seen = needed(fields, "vision_config", fallback="siglip_vision_model")
    width = width_of(seen)
    former = part_of(fields, "qformer_config", "blip_2_qformer") or Fields(
        {
            "model_type": "blip_2_qformer",
            "hidden_size": width,
            "num_hidden_layers": 1,
            "intermediate_size": 3072,
            "cross_attention_frequency": 1,
            "encoder_hidden_size": width,
        }
    )
    queries, window = _rate(fields)
    name = "model.layerwise_projectors.{}"
    projector = (
        *blip2_qformer(former, f"{name}.qformer"),
        *layer_norm(f"{name}.norm", width),
        weights(f"{name}.query", queries * queries, width),
        weights(f"{name}.image_positions", window * window, width),
        *linear(f"{name}.out_linear", text, width, bias=True),
    )
    return (
        *vision.tower(seen, "model.vision_tower"),
        weights("model.image_newline", text),
        *repeated(len(fields.items("deepstack_layer_map")) + _CORNERS, projector),
    )


def _rate(fields: Fields) -> tuple[int, int]:
    """`downsample_rate` as `4/8`: four queries along the side of a window of eight patches."""
    words = fields.text("downsample_rate", default="4/8").split("/")
    if len(words) != 2 or not all(word.isdecimal() and 0 < int(word) < 2**16 for word in words if len(word) < 6):
        raise contradiction("downsample_rate is not two numbers with a stroke between them", "downsample_rate")
    return int(words[0]), int(words[1])


def hunyuan(fields: Fields, text: int) -> Tensors:
    """A position table for the largest picture; neighbours merged by convolutions."""
    seen = needed(fields, "vision_config", "hunyuan_vl_vision")
    width, name = width_of(seen), "vit"
    out = text
    across = positive(seen, "max_image_size") // side(seen, "patch_size")
    layer, merger = f"{name}.layers.{{}}", f"{name}.perceive"
    taps = positive(seen, "spatial_merge_size", default=2) ** 2
    return (
        *convolution(
            f"{name}.embeddings.patch_embedding", width, positive(seen, "num_channels", default=3), kernel(seen)
        ),
        weights(f"{name}.embeddings.position_embedding.weight", across * across + 1, width),
        *repeated(
            depth_of(seen),
            layer_norm(f"{layer}.input_layernorm", width),
            layer_norm(f"{layer}.post_attention_layernorm", width),
            attention(f"{layer}.self_attn", width, names=("q_proj", "k_proj", "v_proj", "o_proj")),
            feed_forward(f"{layer}.mlp", width, positive(seen, "intermediate_size")),
        ),
        *convolution(f"{merger}.proj.0", 2 * width, width, taps),
        *convolution(f"{merger}.proj.2", 4 * width, 2 * width, 1),
        *linear(f"{merger}.mlp", out, 4 * width, bias=True),
        weights(f"{merger}.image_newline", 4 * width),
        weights(f"{merger}.image_begin", 3, out),
        *norm(f"{merger}.before_rms", width),
        *norm(f"{merger}.after_rms", out),
    )


def deepseek_ocr2(fields: Fields, text: int) -> Tensors:
    """SAM, then a small language model that reads its features in an order of its own."""
    seen = needed(fields, "vision_config", "deepseek_ocr2_vision")
    fine = needed(seen, "sam_config", "deepseek_ocr2_sam_vision_model")
    reader = needed(seen, "encoder_config", "deepseek_ocr2_encoder")
    width = positive(reader, "hidden_size")
    heads = positive(reader, "num_attention_heads")
    shared = divided(width, heads, "the vision encoder's width", "num_attention_heads")
    shared *= positive(reader, "num_key_value_heads", default=heads)
    channels = positive(fine, "output_channels", default=256)
    first, second = (
        ([*fine.items("downsample_channels"), 512, width][:2])
        if fine.items("downsample_channels")
        else (
            512,
            width,
        )
    )
    sam_name, name = "model.sam_model", "model.qwen2_model"
    layer = f"{name}.layers.{{}}"
    names = ("q_proj", "k_proj", "v_proj", "o_proj")
    return (
        *sam(fine, sam_name),
        *convolution(f"{sam_name}.net_2", int(first), channels, 9, bias=False),
        *convolution(f"{sam_name}.net_3", int(second), int(first), 9, bias=False),
        weights(f"{name}.queries", _QUERIES, width),
        *repeated(
            depth_of(reader),
            attention(f"{layer}.self_attn", width, shared=shared, names=names, out_bias=False),
            gated(f"{layer}.mlp", width, positive(reader, "intermediate_size")),
            norm(f"{layer}.input_layernorm", width),
            norm(f"{layer}.post_attention_layernorm", width),
        ),
        *norm(f"{name}.norm", width),
        *linear("model.projector.layers", text, width, Split.WHOLE, bias=True),
        weights("model.view_seperator", text),
    )
