"""Older models that describe pictures or read them: GIT, BLIP, IDEFICS, Florence-2, PP-FormulaNet."""

from collections.abc import Mapping
from dataclasses import replace

from heliosd.estimation.families import vision
from heliosd.estimation.families.assembly import vocabulary_head
from heliosd.estimation.families.audio_seq2seq import bart_layer
from heliosd.estimation.families.family import Family, Head
from heliosd.estimation.families.sizes import contradiction, layers_of, positive
from heliosd.estimation.families.vision_blocks import (
    Tensors,
    attention,
    convolution,
    depth_of,
    feed_forward,
    fused_attention,
    gated,
    layer_norm,
    repeated,
    weights,
    width_of,
)
from heliosd.estimation.families.vision_clip import clip
from heliosd.estimation.families.vision_language import language_layout, language_of, needed
from heliosd.estimation.families.vision_others import sam
from heliosd.estimation.fields import Fields
from heliosd.estimation.layout import Block, Kind, Layout, Split, Tensor, linear, norm

_BERT = ("self.query", "self.key", "self.value", "output.dense")
_T5 = ("query", "key", "value", "output")
_O_PROJ = ("q_proj", "k_proj", "v_proj", "o_proj")


def git(fields: Fields, head: Head) -> Layout:
    """BERT's layers over CLIP's patches and words in one sequence."""
    seen = needed(fields, "vision_config", "git_vision_model")
    width, words = positive(fields, "hidden_size"), positive(fields, "vocab_size")
    frames = fields.whole("num_image_with_embedding", default=0)
    tied = fields.flag("tie_word_embeddings")
    output = vocabulary_head("output", words, width, bias=True, tied=tied) if head is Head.VOCABULARY else ()
    return Layout(
        first=(
            word_table("git.embeddings.word_embeddings", words, width),
            weights("git.embeddings.position_embeddings.weight", positive(fields, "max_position_embeddings"), width),
            *layer_norm("git.embeddings.LayerNorm", width),
        ),
        blocks=(Block(tuple(range(layers_of(fields))), _bert_layer(fields, "git.encoder.layer.{}", width)),),
        last=output,
        towers=(
            *clip(seen, "git.image_encoder.vision_model"),
            *linear("git.visual_projection.visual_projection.0", width, width_of(seen), bias=True),
            *layer_norm("git.visual_projection.visual_projection.1", width),
            *repeated(frames, (weights("git.img_temporal_embedding.{}", width_of(seen)),)),
        ),
        tied=tied and head is Head.VOCABULARY,
    )


def blip(fields: Fields, head: Head) -> Layout:
    """A ViT, and BERT's layers that attend to it; the output projection is the embedding."""
    seen = needed(fields, "vision_config", "blip_vision_model")
    text = needed(fields, "text_config", "blip_text_model")
    width, words = positive(text, "hidden_size"), positive(text, "vocab_size")
    source = positive(text, "encoder_hidden_size", default=width_of(seen))
    stem, layer = "text_decoder.bert", "text_decoder.bert.encoder.layer.{}"
    across = (
        *attention(f"{layer}.crossattention", width, source=source, names=_BERT),
        *layer_norm(f"{layer}.crossattention.output.LayerNorm", width),
    )
    top = "text_decoder.cls.predictions"
    return Layout(
        first=(
            word_table(f"{stem}.embeddings.word_embeddings", words, width),
            weights(f"{stem}.embeddings.position_embeddings.weight", positive(text, "max_position_embeddings"), width),
            *layer_norm(f"{stem}.embeddings.LayerNorm", width),
        ),
        blocks=(Block(tuple(range(layers_of(text))), (*_bert_layer(text, layer, width), *across)),),
        last=(
            *linear(f"{top}.transform.dense", width, width, bias=True),
            *layer_norm(f"{top}.transform.LayerNorm", width),
            Tensor(f"{top}.bias", words, split=Split.VOCABULARY),
        ),
        towers=vision.tower(seen, "vision_model"),
        tied=True,
    )


def idefics(fields: Fields, head: Head) -> Layout:
    """Llama, before every `cross_layer_interval`th layer of which a gated layer attends to CLIP or a resampler."""
    seen = needed(fields, "vision_config", "idefics_vision")
    width, inner, wide = positive(fields, "hidden_size"), positive(fields, "intermediate_size"), width_of(seen)
    layer, gate = "model.layers.{}", "model.gated_cross_attn_layers.{}"
    vector = width if fields.text("alpha_type", default="float") == "vector" else 1
    depth = layers_of(fields)
    every = positive(fields, "cross_layer_interval", default=1)
    heads = positive(fields, "num_attention_heads")
    normed = fields.flag("qk_layer_norms")
    size = max(1, width // heads)

    def norms(name: str) -> Tensors:
        return (*norm(f"{name}.q_layer_norm", size), *norm(f"{name}.k_layer_norm", size)) if normed else ()

    gates = repeated(
        depth // every,
        (weights(f"{gate}.alpha_cross_attn", vector), weights(f"{gate}.alpha_dense", vector)),
        attention(f"{gate}.cross_attn", width, source=wide, names=_O_PROJ, bias=False),
        norms(f"{gate}.cross_attn"),
        gated(f"{gate}.mlp", width, inner),
        norm(f"{gate}.input_layernorm", width),
        norm(f"{gate}.post_attention_layernorm", width),
    )
    words, more = positive(fields, "vocab_size"), fields.whole("additional_vocab_size", default=0)
    tied = fields.flag("tie_word_embeddings")
    output: Tensors = ()
    if head is Head.VOCABULARY:
        output = vocabulary_head("lm_head", words, width, tied=tied)
        output += vocabulary_head("lm_head.additional_fc", more, width, tied=tied) if more else ()
    extra = (word_table("model.embed_tokens.additional_embedding", more, width),) if more else ()
    resampler = needed(fields, "perceiver_config", "idefics_perciever")
    used = fields.flag("use_resampler") or resampler.flag("use_resampler")
    return Layout(
        first=(word_table("model.embed_tokens", words, width), *extra),
        blocks=(
            Block(
                tuple(range(depth)),
                (
                    *attention(f"{layer}.self_attn", width, names=_O_PROJ, bias=False),
                    *gated(f"{layer}.mlp", width, inner),
                    *norm(f"{layer}.input_layernorm", width),
                    *norm(f"{layer}.post_attention_layernorm", width),
                ),
            ),
        ),
        last=(*norm("model.norm", width), *output),
        towers=(*clip(seen, "model.vision_model"), *(_resampler(resampler, wide) if used else ()), *gates),
        tied=tied and head is Head.VOCABULARY,
    )


def _resampler(fields: Fields, width: int) -> Tensors:
    name, layer = "model.perceiver_resampler", "model.perceiver_resampler.blocks.{}"
    heads, size = positive(fields, "resampler_n_heads"), positive(fields, "resampler_head_dim")
    names = ("q_proj", "k_proj", "v_proj", "output_proj")
    normed = fields.flag("qk_layer_norms_perceiver")
    inner = (*layer_norm(f"{layer}.0.q_layer_norm", size), *layer_norm(f"{layer}.0.k_layer_norm", size))
    return (
        weights(f"{name}.latents", positive(fields, "resampler_n_latents"), width),
        *repeated(
            depth_of(fields, "resampler_depth"),
            layer_norm(f"{layer}.0.context_layer_norm", width),
            layer_norm(f"{layer}.0.latents_layer_norm", width),
            inner if normed else (),
            attention(f"{layer}.0", width, inner=heads * size, names=names, bias=False),
            layer_norm(f"{layer}.1.ln", width),
            feed_forward(f"{layer}.1", width, 4 * width, names=("fc", "c_proj"), bias=False),
        ),
        *layer_norm(f"{name}.layer_norm", width),
    )


def florence2(fields: Fields, head: Head) -> Layout:
    """DaViT, then BART."""
    seen = needed(fields, "vision_config", "florence_vision")
    text = language_of(fields, "bart")
    layout = language_layout(fields, text, head, "model.")
    width = positive(text, "d_model")
    last = _sizes(seen, "embed_dim")[-1]
    places = positive(seen, "max_position_embeddings")
    half = last // 2
    return replace(
        layout,
        towers=(
            *layout.towers,
            *_davit(seen, "vision_tower"),
            *linear("multi_modal_projector.image_projection", width, last),
            *layer_norm("multi_modal_projector.image_proj_norm", width),
            weights("multi_modal_projector.image_position_embed.row_embeddings.weight", places, half),
            weights("multi_modal_projector.image_position_embed.column_embeddings.weight", places, last - half),
        ),
    )


def formulanet(fields: Fields, head: Head) -> Layout:
    """SAM, then BART's decoder, which writes formulas."""
    seen = needed(fields, "vision_config", "pp_formulanet_vision")
    text = needed(fields, "text_config", "pp_formulanet")
    width, words = positive(text, "d_model"), positive(text, "vocab_size")
    channels = positive(seen, "output_channels", default=256)
    middle = positive(seen, "post_conv_mid_channels", default=2 * channels)
    out = positive(seen, "post_conv_out_channels", default=4 * channels)
    tied = fields.flag("tie_word_embeddings")
    output = vocabulary_head("lm_head", words, width, tied=tied) if head is Head.VOCABULARY else ()
    return Layout(
        first=(
            word_table("decoder.embed_tokens", words, width),
            weights("decoder.embed_positions.weight", positive(text, "max_position_embeddings") + 2, width),
            *layer_norm("decoder.layernorm_embedding", width),
        ),
        blocks=(
            Block(
                tuple(range(layers_of(text, "decoder_layers"))),
                bart_layer(width, positive(text, "decoder_ffn_dim"), layer="decoder.layers.{}"),
            ),
        ),
        last=(*layer_norm("decoder.layer_norm", width), *output),
        towers=(
            *sam(seen, "encoder"),
            *convolution("encoder.multi_modal_projector.conv1", middle, channels, 9, bias=False),
            *convolution("encoder.multi_modal_projector.conv2", out, middle, 9, bias=False),
            *linear("encoder.multi_modal_projector.linear_1", out, out, bias=True),
            *linear("encoder.multi_modal_projector.linear_2", width, out, bias=True),
        ),
        tied=tied and head is Head.VOCABULARY,
    )


def _davit(fields: Fields, name: str) -> Tensors:
    """Stages of pairs of blocks, one attending within windows and one across channels."""
    widths, depths, patches = _sizes(fields, "embed_dim"), _sizes(fields, "depths"), _sizes(fields, "patch_size")
    before = fields.items("patch_prenorm")
    if not len(widths) == len(depths) == len(patches):
        raise contradiction("the stages of the vision tower differ in number", "depths")
    ratio = fields.get("mlp_ratio")
    bias = fields.flag("qkv_bias", default=True)
    inputs = positive(fields, "in_channels", default=3)
    made: Tensors = ()
    for stage, (width, depth, patch) in enumerate(zip(widths, depths, patches, strict=True)):
        first = bool(before[stage]) if stage < len(before) else stage > 0
        inner = int(width * ratio) if isinstance(ratio, int | float) and 0 < ratio < 1024 else 4 * width
        made += convolution(f"{name}.convs.{stage}.conv", width, inputs, patch * patch)
        made += layer_norm(f"{name}.convs.{stage}.norm", inputs if first else width)
        for block, attends in (("spatial_block", "window_attn"), ("channel_block", "channel_attn")):
            stem = f"{name}.blocks.{stage}.{{}}.{block}"
            made += repeated(
                depth,
                convolution(f"{stem}.conv1", width, 1, 9),
                layer_norm(f"{stem}.norm1", width),
                fused_attention(f"{stem}.{attends}", width, bias=bias, out_bias=True),
                convolution(f"{stem}.conv2", width, 1, 9),
                layer_norm(f"{stem}.norm2", width),
                feed_forward(f"{stem}.ffn", width, inner),
            )
        inputs = width
    return made


def _sizes(fields: Fields, name: str) -> list[int]:
    values = fields.items(name)
    if not values or len(values) > 64:
        raise contradiction(f"{name} is not a short list", name)
    return [positive(Fields({name: value}), name) for value in values]


def _bert_layer(fields: Fields, layer: str, width: int) -> Tensors:
    inner = positive(fields, "intermediate_size")
    return (
        *attention(f"{layer}.attention", width, names=_BERT),
        *layer_norm(f"{layer}.attention.output.LayerNorm", width),
        *linear(f"{layer}.intermediate.dense", inner, width, Split.ROWS, bias=True),
        *linear(f"{layer}.output.dense", width, inner, Split.COLUMNS, bias=True),
        *layer_norm(f"{layer}.output.LayerNorm", width),
    )


def word_table(name: str, rows: int, columns: int) -> Tensor:
    """The embedding of a vocabulary, divided by it."""
    return Tensor(f"{name}.weight", rows, columns, Kind.EMBEDDING, Split.VOCABULARY)


FAMILIES: Mapping[str, Family] = {
    "blip": blip,
    "florence2": florence2,
    "git": git,
    "idefics": idefics,
}
