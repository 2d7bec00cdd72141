"""Vision-language models that take any of several towers and put a projector between it and the language model."""

from heliosd.estimation.families import vision
from heliosd.estimation.families.sizes import contradiction, positive
from heliosd.estimation.families.vision_blocks import (
    Tensors,
    feed_forward,
    layer_norm,
    weights,
    width_of,
)
from heliosd.estimation.families.vision_language import Towers, needed
from heliosd.estimation.fields import Fields
from heliosd.estimation.layout import Split, linear, norm

TOWER = "vision_tower"
PROJECTOR = "multi_modal_projector"
_LINEARS = ("linear_1", "linear_2")


def llava(fields: Fields, text: int) -> Tensors:
    """LLaVA: two layers from the features of one or several layers of the tower."""
    seen = needed(fields, "vision_config", fallback="clip_vision_model")
    wide = width_of(seen) * feature_layers(fields, "vision_feature_layer")
    bias = fields.flag("multimodal_projector_bias", default=True)
    return (
        *vision.tower(seen, f"{TOWER}.vision_model"),
        *feed_forward(PROJECTOR, wide, text, names=_LINEARS, out=text, bias=bias),
    )


def llava_next(fields: Fields, text: int) -> Tensors:
    """LLaVA with a learned end of line."""
    return (weights("image_newline", text), *llava(fields, text))


def vipllava(fields: Fields, text: int) -> Tensors:
    seen = needed(fields, "vision_config", fallback="clip_vision_model")
    layers = feature_layers(fields, "vision_feature_layers", default=5)
    wide = width_of(seen) * layers
    return (
        *vision.tower(seen, f"{TOWER}.vision_model"),
        *layer_norm(f"{PROJECTOR}.projector_layernorm", wide),
        *feed_forward(PROJECTOR, wide, text, names=_LINEARS, out=text),
    )


def video_llava(fields: Fields, text: int) -> Tensors:
    """Two towers of one configuration: images and videos."""
    seen = needed(fields, "vision_config", fallback="clip_vision_model")
    wide = width_of(seen) * feature_layers(fields, "vision_feature_layer")
    return (
        *vision.tower(seen, "video_tower.vision_model"),
        *vision.tower(seen, "image_tower.vision_model"),
        *feed_forward(PROJECTOR, wide, text, names=_LINEARS, out=text),
    )


def mistral3(fields: Fields, text: int) -> Tensors:
    """Mistral 3 and LightOnOCR: neighbours merged, then LLaVA's two layers without biases."""
    seen = needed(fields, "vision_config", fallback="pixtral")
    width = width_of(seen)
    wide = width * feature_layers(fields, "vision_feature_layer")
    bias = fields.flag("multimodal_projector_bias")
    side_by_side = width * positive(fields, "spatial_merge_size", default=2) ** 2
    return (
        *vision.tower(seen, TOWER),
        *norm(f"{PROJECTOR}.norm", width),
        *linear(f"{PROJECTOR}.patch_merger.merging_layer", width, side_by_side),
        *feed_forward(PROJECTOR, wide, text, names=_LINEARS, out=text, bias=bias),
    )


def gemma3(fields: Fields, text: int) -> Tensors:
    """Pooled patches, normed, through one matrix. Published towers have no pooling head; only configurations that
    the class itself wrote, which then tell everything, leave the switch out and have one."""
    seen = needed(fields, "vision_config", fallback="siglip_vision_model")
    if not seen.given("vision_use_head") and not seen.given("hidden_act"):
        seen = seen.changed(vision_use_head=False)
    width = width_of(seen)
    return (
        *vision.tower(seen, f"{TOWER}.vision_model"),
        weights(f"{PROJECTOR}.mm_input_projection_weight", width, text),
        *norm(f"{PROJECTOR}.mm_soft_emb_norm", width),
    )


def paligemma(fields: Fields, text: int) -> Tensors:
    seen = needed(fields, "vision_config", fallback="siglip_vision_model")
    if seen.get("vision_use_head") is None:
        seen = seen.changed(vision_use_head=False)
    out = positive(seen, "projection_dim", default=text)
    return (
        *vision.tower(seen, f"{TOWER}.vision_model"),
        *linear(f"{PROJECTOR}.linear", out, width_of(seen), bias=True),
    )


def internvl(fields: Fields, text: int) -> Tensors:
    """Neighbours shuffled together by `downsample_ratio`, normed, two layers."""
    seen = needed(fields, "vision_config", fallback="internvl_vision")
    ratio = fields.get("downsample_ratio")
    ratio = float(ratio) if isinstance(ratio, int | float) and 0.001 < ratio <= 1 else 0.5
    wide = width_of(seen) * int(1 / ratio) ** 2
    return (
        *vision.tower(seen, TOWER),
        *layer_norm(f"{PROJECTOR}.layer_norm", wide),
        *feed_forward(PROJECTOR, wide, text, names=_LINEARS, out=text),
    )


def nemotron_omni(fields: Fields, text: int) -> Tensors:
    seen = needed(fields, "vision_config", fallback="radio")
    ratio = fields.get("downsample_ratio")
    ratio = float(ratio) if isinstance(ratio, int | float) and 0.001 < ratio <= 1 else 0.5
    wide = positive(fields, "vision_hidden_size", default=width_of(seen)) * int(1 / ratio) ** 2
    inner = positive(fields, "projector_hidden_size")
    return (
        *vision.tower(seen, TOWER),
        *norm(f"{PROJECTOR}.layer_norm", wide),
        *feed_forward(PROJECTOR, wide, inner, names=_LINEARS, out=text, bias=False),
    )


def lfm2(fields: Fields, text: int) -> Tensors:
    seen = needed(fields, "vision_config", fallback="siglip2_vision_model")
    wide = width_of(seen) * positive(fields, "downsample_factor", default=2) ** 2
    inner = positive(fields, "projector_hidden_size", default=2560)
    normed = fields.flag("projector_use_layernorm", default=True)
    bias = fields.flag("projector_bias", default=True)
    return (
        *vision.tower(seen, f"{TOWER}.vision_model"),
        *(layer_norm(f"{PROJECTOR}.layer_norm", wide) if normed else ()),
        *feed_forward(PROJECTOR, wide, inner, names=_LINEARS, out=text, bias=bias),
    )


def cohere2(fields: Fields, text: int) -> Tensors:
    """Half of the hidden layer gates the other half."""
    seen = needed(fields, "vision_config", fallback="siglip_vision_model")
    wide = width_of(seen) * positive(fields, "downsample_factor", default=2) ** 2
    inner = positive(fields, "alignment_intermediate_size", default=36864)
    return (*vision.tower(seen, f"{TOWER}.vision_model"), *_halved(wide, inner, text))


def aya(fields: Fields, text: int) -> Tensors:
    seen = needed(fields, "vision_config", fallback="siglip_vision_model")
    wide = width_of(seen) * positive(fields, "downsample_factor", default=2) ** 2
    inner = positive(fields, "alignment_intermediate_size", default=text)
    return (
        *vision.tower(seen, f"{TOWER}.vision_model"),
        *layer_norm(f"{PROJECTOR}.layernorm", wide),
        *_halved(wide, inner, text),
    )


def visual(model_type: str, name: str = "visual") -> Towers:
    """Towers that merge neighbours themselves and need no projector."""

    def towers(fields: Fields, text: int) -> Tensors:
        seen = needed(fields, "vision_config", model_type)
        if seen.explicit("out_hidden_size") is None:
            seen = seen.changed(out_hidden_size=text)
        return vision.tower(seen, name)

    return towers


def feature_layers(fields: Fields, name: str, default: int = 1) -> int:
    """How many layers of the tower give features: one, or as many as are listed."""
    value = fields.get(name)
    if isinstance(value, list | tuple):
        if not value:
            raise contradiction("no layer of the tower gives features", name)
        return len(value)
    return 1 if isinstance(value, int) else default


def _halved(wide: int, inner: int, text: int) -> Tensors:
    return (
        *linear(f"{PROJECTOR}.linear_1", inner, wide, Split.ROWS, bias=True),
        *linear(f"{PROJECTOR}.linear_2", text, inner // 2, Split.COLUMNS, bias=True),
    )
