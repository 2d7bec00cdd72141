"""Finds the vision tower of a configuration by its class, for models that accept any of several."""

from collections.abc import Mapping

from heliosd.estimation.families import vision_clip, vision_others, vision_qwen
from heliosd.estimation.families.audio_encoders import whisper
from heliosd.estimation.families.vision_blocks import Tensors, feed_forward, width_of
from heliosd.estimation.families.vision_clip import Tower
from heliosd.estimation.fields import Fields

TOWERS: Mapping[str, Tower] = {
    "blip_2_vision_model": vision_clip.blip,
    "blip_vision_model": vision_clip.blip,
    "clip_vision_model": vision_clip.clip,
    "cohere_compass_vision": vision_qwen.qwen3_5,
    "cosmos3_edge_vision": vision_clip.siglip2_without_head,
    "ernie4_5_vl_moe_vision": vision_qwen.ernie,
    "exaone4_5_vision": vision_qwen.qwen2_5_vl,
    "gemma4_vision": vision_others.gemma4,
    "git_vision_model": vision_clip.clip,
    "glm4v_moe_vision": vision_qwen.glm4v,
    "glm4v_vision": vision_qwen.glm4v,
    "glm5_next_vision": vision_qwen.glm_ocr,
    "glm_ocr_vision": vision_qwen.glm_ocr,
    "idefics2_vision": vision_clip.siglip_without_head,
    "idefics3_vision": vision_clip.siglip_without_head,
    "idefics_vision": vision_clip.clip,
    "instructblip_vision_model": vision_clip.blip,
    "instructblipvideo_vision_model": vision_clip.blip,
    "internvl_vision": vision_others.internvit,
    "janus_vision_model": vision_clip.janus,
    "kimi_k25_vision": vision_qwen.moonvit,
    "kosmos_2_vision_model": vision_clip.clip,
    "llama4_vision_model": vision_others.llama4,
    "minicpmv4_6_vision": vision_clip.siglip_without_head,
    "minicpmv4_7_vision": vision_clip.siglip_without_head,
    "minimax_m3_vl_vision": vision_clip.minimax,
    "mllama_vision_model": vision_others.mllama,
    "muse_glimmer_vision": vision_qwen.muse,
    "ovis2": vision_others.ovis2,
    "paddleocr_vl_vision": vision_clip.siglip_without_head,
    "phi4_multimodal_vision": vision_clip.siglip,
    "pixtral": vision_others.pixtral,
    "qianfan_ocr_vision": vision_others.internvit,
    "qwen2_5_omni_vision_encoder": vision_qwen.qwen2_5_vl,
    "qwen2_5_vl_vision": vision_qwen.qwen2_5_vl,
    "qwen2_vl_vision": vision_qwen.qwen2_vl,
    "qwen3_5_moe_vision": vision_qwen.qwen3_5,
    "qwen3_5_vision": vision_qwen.qwen3_5,
    "qwen3_omni_moe_vision_encoder": vision_qwen.qwen3_vl,
    "qwen3_vl_moe_vision": vision_qwen.qwen3_vl,
    "qwen3_vl_vision": vision_qwen.qwen3_vl,
    "qwen4_exp_vision": vision_qwen.qwen3_5,
    "radio": vision_others.radio,
    "sam_vision_model": vision_others.sam,
    "siglip2_vision_model": vision_clip.siglip2,
    "siglip_vision_model": vision_clip.siglip,
    "smolvlm_vision": vision_clip.siglip_without_head,
    "step3p5_vision": vision_clip.step,
    "video_llama_3_vision": vision_clip.video_llama,
}


def tower(fields: Fields, name: str) -> Tensors:
    """The tower that `fields.model_type` names; CLIP's layers stand for one that is not known."""
    known = TOWERS.get(fields.model_type)
    if known is not None:
        return known(fields, name)
    return vision_clip.clip(fields.changed(**_assumed(fields)), name)


def unknown_encoders(fields: Fields, text: int) -> Tensors:
    """What the encoders of an unknown architecture are likely to hold: CLIP's layers for pictures, Whisper's for
    sounds, each with two layers to the language model's width. None for parts that the configuration lacks."""
    seen, heard = fields.explicit("vision_config"), fields.explicit("audio_config")
    made: Tensors = ()
    if isinstance(seen, Mapping):
        part = Fields({**seen, "model_type": str(seen.get("model_type") or "")})
        width = part.whole("hidden_size", "embed_dim", "vt_hidden_size", "width", default=1024)
        made += tower(part, "vision_tower")
        made += feed_forward("multi_modal_projector", width, text, names=("linear_1", "linear_2"), out=text)
    if isinstance(heard, Mapping):
        part = Fields({**heard, "model_type": "qwen2_audio_encoder"})
        made += whisper(part, "audio_tower")
        made += feed_forward("audio_projector", width_of(part), text, names=("linear_1", "linear_2"), out=text)
    return made


def _assumed(fields: Fields) -> dict[str, int]:
    """Sizes that an unknown tower does not give, from those of CLIP ViT-L."""
    width = fields.whole("hidden_size", "embed_dim", "vt_hidden_size", "width", default=1024)
    return {
        "hidden_size": width,
        "intermediate_size": fields.whole("intermediate_size", "vt_intermediate_size", default=4 * width),
        "num_hidden_layers": fields.whole("num_hidden_layers", "depth", "vt_num_hidden_layers", "layers", default=24),
        "patch_size": fields.whole("patch_size", default=14) or 14,
        "image_size": fields.whole("image_size", default=448) or 448,
    }
