"""Models that see and whose code is published beside their checkpoint: sizes and names as there.

`internvl_chat` is InternVL 1.5 to 3.5, `deepseek_vl_v2` DeepSeek-VL2 and -OCR, `minicpmv` MiniCPM-V 2.5 to 4.5.
"""

from collections.abc import Mapping
from dataclasses import replace

from heliosd.errors import BadRequest
from heliosd.estimation.families.family import Family, Head
from heliosd.estimation.families.sizes import hidden_of, positive
from heliosd.estimation.families.vision_blocks import (
    Tensors,
    convolution,
    depth_of,
    feed_forward,
    fused_attention,
    gated,
    joint_attention,
    kernel,
    layer_norm,
    patches,
    repeated,
    weights,
    width_of,
)
from heliosd.estimation.families.vision_clip import clip, pooling_head, siglip_without_head
from heliosd.estimation.families.vision_language import language_layout, language_of, with_towers
from heliosd.estimation.families.vision_others import sam
from heliosd.estimation.families.vision_qwen import merged, merger
from heliosd.estimation.fields import Fields
from heliosd.estimation.layout import Layout, Split, Tensor, linear, norm

_CLIP_LARGE = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "patch_size": 14,
    "image_size": 336,
}
_SIGLIP = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "patch_size": 14, "image_size": 384}
_DOTS = {
    "embed_dim": 1536,
    "hidden_size": 1536,
    "intermediate_size": 4224,
    "num_hidden_layers": 42,
    "patch_size": 14,
    "num_channels": 3,
}
_INTERNVIT = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "patch_size": 14,
    "image_size": 448,
    "qkv_bias": True,
}
_POSITIONS = 70
"""Places along a side in MiniCPM-V's position table."""


def _seen(fields: Fields, assumed: Mapping[str, object], name: str = "vision_config") -> Fields:
    given = fields.get(name)
    return Fields({**assumed, **(given if isinstance(given, Mapping) else {}), "model_type": ""})


def internvl_chat(fields: Fields, text: int) -> Tensors:
    """InternViT with fused attention; norms of queries and keys and scales alone in the large one."""
    seen = _seen(fields, _INTERNVIT)
    width = width_of(seen)
    shift = seen.text("norm_type", default="layer_norm") == "layer_norm"
    name, layer = "vision_model", "vision_model.encoder.layers.{}"
    ratio = fields.get("downsample_ratio")
    ratio = float(ratio) if isinstance(ratio, int | float) and 0.001 < ratio <= 1 else 0.5
    wide = width * int(1 / ratio) ** 2
    normed = (*norm(f"{layer}.attn.q_norm", width), *norm(f"{layer}.attn.k_norm", width))
    return (
        weights(f"{name}.embeddings.class_embedding", width),
        weights(f"{name}.embeddings.position_embedding", patches(seen) + 1, width),
        *convolution(f"{name}.embeddings.patch_embedding", width, 3, kernel(seen)),
        *repeated(
            depth_of(seen),
            fused_attention(f"{layer}.attn", width, bias=seen.flag("qkv_bias"), out_bias=True),
            normed if seen.flag("qk_normalization") else (),
            (weights(f"{layer}.ls1", width), weights(f"{layer}.ls2", width)),
            feed_forward(f"{layer}.mlp", width, positive(seen, "intermediate_size")),
            norm(f"{layer}.norm1", width, bias=shift),
            norm(f"{layer}.norm2", width, bias=shift),
        ),
        *layer_norm("mlp1.0", wide),
        *feed_forward("mlp1", wide, text, names=("1", "3"), out=text),
    )


def phi3_v(fields: Fields, text: int) -> Tensors:
    """CLIP ViT-L at 336 pixels, four neighbours side by side, two layers; separators of rows and of pictures."""
    seen = _seen(fields, _CLIP_LARGE)
    wide = 4 * width_of(seen)
    stem = "model.vision_embed_tokens"
    return (
        *clip(seen, f"{stem}.img_processor.vision_model"),
        weights(f"{stem}.glb_GN", wide),
        weights(f"{stem}.sub_GN", wide),
        *feed_forward(f"{stem}.img_projection", wide, text, names=("0", "2"), out=text),
    )


def dots_ocr(fields: Fields, text: int) -> Tensors:
    """Plain norms, a gated feed-forward, no biases but the merger's."""
    seen = _seen(fields, _DOTS)
    width, name = positive(seen, "embed_dim"), "vision_tower"
    block = f"{name}.blocks.{{}}"
    bias = seen.flag("use_bias")
    taps = kernel(seen) * positive(seen, "temporal_patch_size", default=1)
    return (
        *convolution(f"{name}.patch_embed.patchifier.proj", width, positive(seen, "num_channels"), taps),
        *norm(f"{name}.patch_embed.patchifier.norm", width),
        *repeated(
            depth_of(seen),
            norm(f"{block}.norm1", width),
            norm(f"{block}.norm2", width),
            fused_attention(f"{block}.attn", width, bias=bias),
            gated(f"{block}.mlp", width, positive(seen, "intermediate_size"), names=("fc1", "fc3", "fc2"), bias=bias),
        ),
        *(norm(f"{name}.post_trunk_norm", width) if seen.flag("post_norm", default=True) else ()),
        *layer_norm(f"{name}.merger.ln_q", width),
        *merger(f"{name}.merger.mlp", merged(seen, width), positive(seen, "hidden_size", default=text), ("0", "2")),
    )


def deepseek_vl_v2(fields: Fields, head: Head) -> Layout:
    """The small ones' decoder has ordinary attention where the configuration says `use_mla: false`."""
    text = language_of(fields, "deepseek_v2")
    if text.explicit("use_mla") is False or (text.given("kv_lora_rank") and not text.explicit("kv_lora_rank")):
        text = text.changed(model_type="deepseek_ocr2_text")
    layout = language_layout(fields, text, head, "model.")
    unsaid = () if fields.given("vision_config") else ("vision_config",)
    return replace(layout, towers=deepseek_encoders(fields, hidden_of(text)), guessed=(*layout.guessed, *unsaid))


def deepseek_encoders(fields: Fields, text: int) -> Tensors:
    """SigLIP and a merger of four; or, where `vision_config.width` names two encoders, SAM and CLIP and one matrix."""
    given = fields.get("vision_config")
    widths = given.get("width") if isinstance(given, Mapping) else None
    separators = (weights("model.image_newline", text), weights("model.view_seperator", text))
    if isinstance(widths, Mapping):
        near = Fields({**_CLIP_LARGE, "image_size": 224, "model_type": ""})
        fine = Fields({"model_type": ""})
        return (
            *sam(fine, "model.sam_model"),
            *convolution("model.sam_model.net_2", 512, 256, 9, bias=False),
            *convolution("model.sam_model.net_3", 1024, 512, 9, bias=False),
            *(tensor for tensor in clip(near, "model.vision_model") if ".post_layernorm." not in tensor.name),
            *linear("model.projector.layers", text, 2048, bias=True),
            *separators,
        )
    seen = _seen(fields, _SIGLIP)
    if isinstance(widths, int):
        seen = seen.changed(hidden_size=widths)
    wide = 4 * width_of(seen)
    return (
        *siglip_without_head(seen, "vision"),
        *pooling_head(seen, "vision.attn_pool", width_of(seen)),
        *feed_forward("projector.layers", wide, text, names=("0", "2"), out=text),
        *separators,
    )


def minicpmv_towers(fields: Fields, text: int) -> Tensors:
    """SigLIP without its last layer where `drop_vision_last_layer` says so, then queries that attend to the patches."""
    seen = _seen(fields, _SIGLIP)
    if fields.flag("drop_vision_last_layer", default=True):
        seen = seen.changed(num_hidden_layers=max(0, depth_of(seen) - 1))
    seen = seen.changed(image_size=_POSITIONS * kernel_side(seen))
    name = "resampler"
    return (
        *siglip_without_head(seen, "vpm"),
        weights(f"{name}.query", positive(fields, "query_num", default=64), text),
        *linear(f"{name}.kv_proj", text, width_of(seen)),
        *joint_attention(f"{name}.attn", text),
        *layer_norm(f"{name}.ln_q", text),
        *layer_norm(f"{name}.ln_kv", text),
        *layer_norm(f"{name}.ln_post", text),
        Tensor(f"{name}.proj", text, text, split=Split.WHOLE),
    )


def kernel_side(fields: Fields) -> int:
    """Pixels along a patch."""
    return positive(fields, "patch_size")


def minicpmv(fields: Fields, head: Head) -> Layout:
    """Which decoder it is follows from the version, or, unsaid, from the switches that only one of them has."""
    from heliosd.estimation.families.registry import families

    version = str(fields.get("version") or "")
    names = {"2.5": "llama", "2.6": "qwen2", "4.0": "llama", "4": "llama", "4.5": "qwen3"}
    name = names.get(version, "qwen3" if fields.explicit("head_dim") else "qwen2")
    known = families().get(name)
    if known is None:
        raise BadRequest(
            f"cannot read the configuration: no family knows the language part {name!r}",
            code="bad_config",
            param="version",
        )
    layout = known(fields.changed(model_type=name), head)
    unsaid = () if version else ("version",)
    return replace(layout, towers=minicpmv_towers(fields, hidden_of(fields)), guessed=(*layout.guessed, *unsaid))


FAMILIES: Mapping[str, Family] = {
    "deepseek_vl_v2": deepseek_vl_v2,
    "dots_ocr": with_towers(dots_ocr, prefix="model.", language="qwen2"),
    "internvl_chat": with_towers(internvl_chat, prefix="language_model.model.", language="qwen2", generates=True),
    "minicpmv": minicpmv,
    "phi3_v": with_towers(phi3_v, prefix="model.", language="phi3"),
}
