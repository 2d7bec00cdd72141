"""Models that see or hear without a tower of their own, or whose decoder lies at the configuration's top level."""

from collections.abc import Mapping
from dataclasses import replace

from heliosd.estimation.families import audio
from heliosd.estimation.families.family import Family, Head
from heliosd.estimation.families.sizes import hidden_of, positive
from heliosd.estimation.families.vision_assumed import gemma4_language
from heliosd.estimation.families.vision_language import language_layout, language_of, needed, part_of, text_only
from heliosd.estimation.fields import Fields
from heliosd.estimation.layout import Layout, Tensor, linear, norm


def phi4_multimodal(fields: Fields, head: Head) -> Layout:
    """Phi-4-mini's decoder, whose sizes lie at the top level, with two encoders in its embedding."""
    from heliosd.estimation.families.registry import families

    layout = families()["phi3"](fields, head)
    unsaid = tuple(part for part in ("vision_config", "audio_config") if not fields.given(part))
    return replace(layout, towers=audio.phi4(fields, hidden_of(fields)), guessed=(*layout.guessed, *unsaid))


def fuyu(fields: Fields, head: Head) -> Layout:
    """Patches go through one matrix straight into Persimmon's decoder."""
    text = language_of(fields, "persimmon")
    layout = language_layout(fields, text, head, "language_model.model.")
    taps = positive(fields, "num_channels", default=3) * positive(fields, "patch_size", default=30) ** 2
    return replace(layout, towers=linear("vision_embed_tokens", hidden_of(text), taps, bias=True))


def gemma4_unified(fields: Fields, head: Head) -> Layout:
    """Gemma 4 without encoders: patches and frames of sound are normed and projected."""
    text = gemma4_language(fields, language_of(fields, "gemma4_unified_text"))
    layout = language_layout(fields, text, head, "model.language_model.")
    hidden = hidden_of(text)
    seen = needed(fields, "vision_config", "gemma4_unified_vision")
    heard = part_of(fields, "audio_config", "gemma4_unified_audio", fallback="gemma4_unified_audio")
    towers: tuple[Tensor, ...] = ()
    if not text_only(fields):
        if fields.explicit("vision_config") is not None or not fields.given("vision_config"):
            towers += _embedded_patches(seen, hidden)
        if heard is not None:
            wide = positive(heard, "audio_embed_dim")
            towers += linear("model.embed_audio.embedding_projection", hidden, wide)
    unsaid = () if fields.given("vision_config") else ("vision_config",)
    return replace(layout, towers=towers, guessed=(*layout.guessed, *unsaid))


def _embedded_patches(seen: Fields, hidden: int) -> tuple[Tensor, ...]:
    pixels = 3 * (positive(seen, "patch_size") * positive(seen, "pooling_kernel_size")) ** 2
    width = positive(seen, "mm_embed_dim")
    return (
        *norm("model.embed_vision.patch_ln1", pixels, bias=True),
        *linear("model.embed_vision.patch_dense", width, pixels, bias=True),
        *norm("model.embed_vision.patch_ln2", width, bias=True),
        Tensor("model.embed_vision.pos_embedding", positive(seen, "mm_posemb_size") * 2, width),
        *norm("model.embed_vision.pos_norm", width, bias=True),
        *linear("model.embed_vision.embedding_projection", hidden, positive(seen, "output_proj_dims", default=width)),
    )


FAMILIES: Mapping[str, Family] = {
    "fuyu": fuyu,
    "gemma4_unified": gemma4_unified,
    "phi4_multimodal": phi4_multimodal,
    "phi4mm": phi4_multimodal,
}
