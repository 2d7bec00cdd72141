"""Language models that hear: an encoder of sounds and what projects its output; omni models both see and hear."""

from dataclasses import replace

from heliosd.estimation.families import audio_conformers, audio_encoders, vision
from heliosd.estimation.families.audio_encoders import O_PROJ
from heliosd.estimation.families.family import Head
from heliosd.estimation.families.sizes import hidden_of, positive
from heliosd.estimation.families.vision_assumed import gemma4_encoders, gemma4_language
from heliosd.estimation.families.vision_blocks import (
    Tensors,
    attention,
    depth_of,
    feed_forward,
    gated,
    layer_norm,
    repeated,
    weights,
    width_of,
)
from heliosd.estimation.families.vision_language import language_layout, language_of, needed, part_of, text_only
from heliosd.estimation.families.vision_qformer import blip2_qformer
from heliosd.estimation.fields import Fields
from heliosd.estimation.layout import Layout, Split, linear, norm

TOWER = "audio_tower"
PROJECTOR = "multi_modal_projector"
_LINEARS = ("linear_1", "linear_2")
MOBILENET_V5 = 294_126_912
"""Parameters of `mobilenetv5_300m_enc`: what the published counts of both Gemma 3n leave for it, the same for each."""


def qwen2_audio(fields: Fields, text: int) -> Tensors:
    heard = needed(fields, "audio_config", "qwen2_audio_encoder")
    return (
        *audio_encoders.whisper(heard, TOWER),
        *linear(f"{PROJECTOR}.linear", text, width_of(heard), bias=True),
    )


def flamingo(fields: Fields, text: int) -> Tensors:
    """Audio Flamingo 3 and Music Flamingo: Whisper's encoder and two layers."""
    heard = needed(fields, "audio_config", "audioflamingo3_encoder")
    bias = fields.flag("projector_bias", default=True)
    return (
        *audio_encoders.whisper(heard, TOWER),
        *feed_forward(PROJECTOR, width_of(heard), text, names=_LINEARS, out=text, bias=bias),
    )


def voxtral(fields: Fields, text: int) -> Tensors:
    """Four frames side by side, which is as wide as the encoder's feed-forward."""
    heard = needed(fields, "audio_config", "voxtral_encoder")
    wide = positive(heard, "encoder_ffn_dim", "intermediate_size")
    return (
        *audio_encoders.whisper(heard, TOWER),
        *feed_forward(PROJECTOR, wide, text, names=_LINEARS, out=text, bias=False),
    )


def voxtral_realtime(fields: Fields, text: int) -> Tensors:
    heard = needed(fields, "audio_config", "voxtral_realtime_encoder")
    wide = width_of(heard) * positive(fields, "downsample_factor", default=4)
    return (
        *audio_encoders.voxtral_realtime(heard, TOWER),
        *feed_forward(PROJECTOR, wide, text, names=_LINEARS, out=text, bias=False),
    )


def glm_asr(fields: Fields, text: int) -> Tensors:
    heard = needed(fields, "audio_config", "glmasr_encoder")
    return (
        *audio_encoders.glm_asr(heard, TOWER),
        *feed_forward(PROJECTOR, positive(heard, "intermediate_size"), 2 * text, names=_LINEARS, out=text),
    )


def qwen3_asr(fields: Fields, text: int) -> Tensors:
    heard = needed(fields, "audio_config", "qwen3_asr_encoder")
    width = width_of(heard)
    return (
        *audio_encoders.qwen3_asr(heard, TOWER),
        *feed_forward(PROJECTOR, width, width, names=_LINEARS, out=positive(heard, "output_dim")),
    )


def fun_asr(fields: Fields, text: int) -> Tensors:
    """Attention with a filter over time; the first layer takes several frames stacked; an adaptor of its own layers."""
    heard = needed(fields, "audio_config", "fun_asr_nano_encoder")
    adaptor = needed(fields, "adaptor_config", "fun_asr_nano_adaptor")
    width, inner = width_of(heard), positive(heard, "intermediate_size")
    depth = depth_of(heard)
    stacked = positive(heard, "num_mel_bins") * positive(heard, "num_stacked_frames")
    taps = positive(heard, "fsmn_kernel_size")
    layer, extra = f"{TOWER}.layers.{{}}", f"{PROJECTOR}.layers.{{}}"
    out = positive(adaptor, "hidden_size", default=text)
    wide = positive(adaptor, "projector_hidden_size", default=2048)

    def encoder(count: int, source: int) -> Tensors:
        queries = (linear(f"{layer}.self_attn.{one}", width, source, Split.ROWS, bias=True) for one in O_PROJ[:3])
        return repeated(
            count,
            *queries,
            linear(f"{layer}.self_attn.o_proj", width, width, Split.COLUMNS, bias=True),
            (weights(f"{layer}.self_attn.fsmn.conv.weight", width, taps),),
            feed_forward(f"{layer}.mlp", width, inner),
            layer_norm(f"{layer}.input_layernorm", source),
            layer_norm(f"{layer}.post_attention_layernorm", width),
        )

    return (
        *encoder(min(depth, 1), stacked),
        *encoder(max(depth - 1, 0), width),
        *repeated(2, layer_norm(f"{layer}.final_layernorm", width)),
        *feed_forward(PROJECTOR, width, wide, names=_LINEARS, out=out),
        *repeated(
            depth_of(adaptor, default=2),
            attention(f"{extra}.self_attn", out, names=O_PROJ),
            feed_forward(f"{extra}.mlp", out, positive(adaptor, "intermediate_size", default=256)),
            layer_norm(f"{extra}.input_layernorm", out),
            layer_norm(f"{extra}.post_attention_layernorm", out),
        ),
    )


def granite_speech(fields: Fields, text: int) -> Tensors:
    """A few queries for each window of frames, through a Q-Former."""
    heard = needed(fields, "encoder_config", "granite_speech_encoder")
    former = needed(fields, "projector_config", "blip_2_qformer")
    width = width_of(former)
    queries = positive(fields, "window_size") // positive(fields, "downsample_rate")
    return (
        *audio_conformers.granite(heard, "encoder"),
        weights("projector.query", queries, width),
        *blip2_qformer(former, "projector.qformer"),
        *linear("projector.linear", text, width, bias=True),
    )


def phi4(fields: Fields, text: int) -> Tensors:
    """Phi-4-multimodal: SigLIP and a conformer inside the embedding; speech is projected one way alone, another way
    beside an image."""
    seen = needed(fields, "vision_config", "phi4_multimodal_vision")
    heard = needed(fields, "audio_config", "phi4_multimodal_audio")
    image, audio = "model.embed_tokens_extend.image_embed", "model.embed_tokens_extend.audio_embed"
    width = width_of(seen)
    sound = width_of(heard) * positive(heard, "downsample_rate", default=1)
    return (
        weights(f"{image}.global_img_feature_extensor", width),
        weights(f"{image}.sub_img_feature_extensor", width),
        *vision.tower(seen, f"{image}.img_processor"),
        *feed_forward(image, width, text, names=("img_projection_up", "img_projection_down"), out=text),
        *audio_conformers.phi4(heard, f"{audio}.encoder"),
        *feed_forward(audio, sound, text, names=("up_proj_for_speech", "down_proj_for_speech"), out=text),
        *feed_forward(audio, sound, text, names=("up_proj_for_vision_speech", "down_proj_for_vision_speech"), out=text),
    )


def gemma4(fields: Fields, head: Head) -> Layout:
    """Gemma 4 sees, and its small models hear; a configuration with null for either has none of it."""
    text = gemma4_language(fields, language_of(fields))
    layout = language_layout(fields, text, head, "model.language_model.")
    if text_only(fields):
        return layout
    width = hidden_of(text)
    unsaid = () if fields.given("vision_config") else ("vision_config",)
    fields = gemma4_encoders(fields, width)
    seen = part_of(fields, "vision_config", "gemma4_vision")
    heard = part_of(fields, "audio_config", "gemma4_audio")
    towers: Tensors = ()
    if seen is not None:
        towers += vision.tower(seen, "model.vision_tower")
        towers += linear("model.embed_vision.embedding_projection", width, width_of(seen))
    if heard is not None:
        towers += audio_conformers.gemma4(heard, "model.audio_tower")
        towers += linear(
            "model.embed_audio.embedding_projection", width, positive(heard, "output_proj_dims", default=1536)
        )
    return replace(layout, towers=towers, guessed=(*layout.guessed, *unsaid))


def gemma3n(fields: Fields, text: int) -> Tensors:
    """Gemma 3n: MobileNet, whose parameters are a constant here, and a conformer; both have tokens of their own."""
    heard = needed(fields, "audio_config", "gemma3n_audio")
    seen = needed(fields, "vision_config", "gemma3n_vision")
    towers: Tensors = (weights("model.vision_tower.timm_model", MOBILENET_V5),)
    for part, name in ((seen, "model.embed_vision"), (heard, "model.embed_audio")):
        width = positive(part, "hidden_size")
        towers += (
            weights(f"{name}.embedding.weight", positive(part, "vocab_size", default=128), width),
            *norm(f"{name}.hard_embedding_norm", width),
            *norm(f"{name}.soft_embedding_norm", width),
            *linear(f"{name}.embedding_projection", text, width),
        )
    return (*towers, *audio_conformers.gemma3n(heard, "model.audio_tower"))


def diffusion_gemma(fields: Fields, head: Head) -> Layout:
    """Gemma 4's mixture, which also reads what it wrote in the round before; encoder and decoder share all layers."""
    text = gemma4_language(fields, language_of(fields, "diffusion_gemma_text")).changed(
        enable_moe_block=True, attention_k_eq_v=True, hidden_size_per_layer_input=0
    )
    layout = language_layout(fields, text, Head.VOCABULARY, "model.decoder.")
    width, name = hidden_of(text), "model.decoder.self_conditioning"
    own = (*norm(f"{name}.pre_norm", width), *gated(name, width, positive(text, "intermediate_size")))
    seen = part_of(gemma4_encoders(fields, width), "vision_config", "gemma4_vision")
    towers: Tensors = ()
    if seen is not None:
        towers += vision.tower(seen, "model.encoder.vision_tower")
        towers += linear("model.encoder.embed_vision.embedding_projection", width, width_of(seen))
    unsaid = () if fields.given("vision_config") else ("vision_config",)
    return replace(layout, last=(*layout.last, *own), towers=towers, guessed=(*layout.guessed, *unsaid))


def qwen2_5_omni(fields: Fields, head: Head) -> Layout:
    """The thinker, which is what engines serve; the talker and the vocoder are not loaded."""
    return _omni(fields, "qwen2_5_omni", "audio_encoder", "vision_encoder", "qwen2_5_omni_text")


def qwen3_omni(fields: Fields, head: Head) -> Layout:
    """Like `qwen2_5_omni`."""
    return _omni(fields, "qwen3_omni_moe", "audio_encoder", "vision_encoder", "qwen3_omni_moe_text")


def _omni(fields: Fields, stem: str, audio: str, sight: str, language: str) -> Layout:
    nested = fields.get("thinker_config") if fields.given("thinker_config") else None
    thinker = Fields({"model_type": f"{stem}_thinker", **nested}) if isinstance(nested, dict) else fields
    text = language_of(thinker, language)
    if text.explicit("head_dim") is None:
        text = text.changed(head_dim=hidden_of(text) // positive(text, "num_attention_heads"))
    layout = language_layout(thinker, text, Head.VOCABULARY, "thinker.model.")
    width = hidden_of(text)
    heard = needed(thinker, "audio_config", f"{stem}_{audio}")
    seen = needed(thinker, "vision_config", f"{stem}_{sight}")
    if heard.explicit("output_dim") is None:
        heard = heard.changed(output_dim=width)
    if seen.explicit("out_hidden_size") is None:
        seen = seen.changed(out_hidden_size=width)
    encoder = audio_encoders.qwen2_5_omni if stem == "qwen2_5_omni" else audio_encoders.qwen3_omni
    unsaid = tuple(part for part in ("audio_config", "vision_config") if not thinker.given(part))
    return replace(
        layout,
        towers=(*encoder(heard, "thinker.audio_tower"), *vision.tower(seen, "thinker.visual")),
        guessed=(*layout.guessed, *unsaid),
    )
