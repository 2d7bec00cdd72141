"""Pix2Struct, whose encoder takes patches of any aspect ratio, and Kosmos, whose queries attend to an encoder."""

from collections.abc import Mapping

from heliosd.estimation.families.assembly import vocabulary_head
from heliosd.estimation.families.family import Family, Head
from heliosd.estimation.families.sizes import layers_of, positive
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
from heliosd.estimation.families.vision_captions import word_table
from heliosd.estimation.families.vision_clip import clip
from heliosd.estimation.families.vision_language import needed
from heliosd.estimation.fields import Fields
from heliosd.estimation.layout import Block, Layout, linear, norm

_BERT = ("self.query", "self.key", "self.value", "output.dense")
_T5 = ("query", "key", "value", "output")
_O_PROJ = ("q_proj", "k_proj", "v_proj", "o_proj")


def kosmos2(fields: Fields, head: Head) -> Layout:
    """CLIP, queries that attend to it, a decoder with a norm inside attention and one inside its feed-forward."""
    seen = needed(fields, "vision_config", "kosmos_2_vision_model")
    return _kosmos(fields, head, "kosmos_2_text_model", clip(seen, "vision_model.model"), width_of(seen), inside=True)


def kosmos2_5(fields: Fields, head: Head) -> Layout:
    """Kosmos-2 with Pix2Struct's encoder and a table that tells pictures from words."""
    seen = needed(fields, "vision_config", "kosmos_2_5_vision_model")
    width = width_of(seen)
    taken, places = positive(seen, "patch_embed_hidden_size"), positive(seen, "max_num_patches")
    inner = positive(seen, "num_attention_heads") * positive(seen, "head_dim", default=64)
    tower = _pix2struct_encoder(seen, "vision_model", width, taken, places, inner, positive(seen, "intermediate_size"))
    return _kosmos(fields, head, "kosmos_2_5_text_model", tower, width, inside=False)


def _kosmos(fields: Fields, head: Head, kind: str, tower: Tensors, seen: int, *, inside: bool) -> Layout:
    text = needed(fields, "text_config", kind)
    width, inner = positive(text, "embed_dim"), positive(text, "ffn_dim")
    words = positive(text, "vocab_size")
    layer, bridge = "text_model.model.layers.{}", "image_to_text_projection"
    tied = fields.flag("tie_word_embeddings", default=True)
    output = vocabulary_head("text_model.lm_head", words, width, tied=tied) if head is Head.VOCABULARY else ()
    segments = () if inside else (weights("text_model.model.segment_emb.weight", 2, width),)
    return Layout(
        first=(word_table("text_model.model.embed_tokens", words, width), *segments),
        blocks=(
            Block(
                tuple(range(layers_of(text, "layers"))),
                (
                    *attention(f"{layer}.self_attn", width),
                    *(layer_norm(f"{layer}.self_attn.inner_attn_ln", width) if inside else ()),
                    *layer_norm(f"{layer}.self_attn_layer_norm", width),
                    *feed_forward(f"{layer}.ffn", width, inner),
                    *layer_norm(f"{layer}.ffn.ffn_layernorm", inner),
                    *layer_norm(f"{layer}.final_layer_norm", width),
                ),
            ),
        ),
        last=(*layer_norm("text_model.model.layer_norm", width), *output),
        towers=(
            *tower,
            weights(f"{bridge}.latent_query", positive(fields, "latent_query_num"), width),
            *linear(f"{bridge}.dense", width, seen, bias=True),
            *attention(f"{bridge}.x_attn", width),
        ),
        tied=tied and head is Head.VOCABULARY,
    )


def pix2struct(fields: Fields, head: Head) -> Layout:
    """T5's layers under other names over patches of any aspect ratio."""
    seen = needed(fields, "vision_config", "pix2struct_vision_model")
    text = needed(fields, "text_config", "pix2struct_text_model")
    seen_width, width = positive(seen, "hidden_size"), positive(text, "hidden_size")
    heads = positive(text, "num_heads")
    layer = "decoder.layer.{}"
    words = positive(text, "vocab_size")
    tied = fields.flag("tie_word_embeddings")
    output = vocabulary_head("decoder.lm_head", words, width, tied=tied) if head is Head.VOCABULARY else ()

    def attend(name: str) -> Tensors:
        return (
            *attention(f"{layer}.{name}.attention", width, names=_T5, bias=False),
            *norm(f"{layer}.{name}.layer_norm", width),
        )

    whole = (
        *attend("self_attention"),
        *attend("encoder_decoder_attention"),
        *gated(f"{layer}.mlp.DenseReluDense", width, positive(text, "d_ff"), names=("wi_0", "wi_1", "wo")),
        *norm(f"{layer}.mlp.layer_norm", width),
    )
    buckets = positive(text, "relative_attention_num_buckets")
    bias = linear(f"{layer}.self_attention.attention.relative_attention_bias", buckets, heads)
    depth = layers_of(text, "num_layers")
    rest = (Block(tuple(range(1, depth)), whole),) if depth > 1 else ()
    return Layout(
        first=(word_table("decoder.embed_tokens", words, width),),
        blocks=(Block((0,), (*whole, *bias)), *rest),
        last=(*norm("decoder.final_layer_norm", width), *output),
        towers=_pix2struct_encoder(
            seen,
            "encoder",
            seen_width,
            positive(seen, "patch_embed_hidden_size"),
            positive(seen, "seq_len"),
            positive(seen, "num_attention_heads") * positive(seen, "d_kv"),
            positive(seen, "d_ff"),
        ),
        tied=tied and head is Head.VOCABULARY,
    )


def _pix2struct_encoder(
    seen: Fields, name: str, width: int, taken: int, places: int, heads: int, inner: int
) -> Tensors:
    layer = f"{name}.encoder.layer.{{}}"
    return (
        *linear(f"{name}.embeddings.patch_projection", width, taken, bias=True),
        weights(f"{name}.embeddings.row_embedder.weight", places, width),
        weights(f"{name}.embeddings.column_embedder.weight", places, width),
        *repeated(
            depth_of(seen),
            attention(f"{layer}.attention", width, inner=heads, names=_T5, bias=False),
            gated(f"{layer}.mlp", width, inner, names=("wi_0", "wi_1", "wo")),
            norm(f"{layer}.pre_mlp_layer_norm", width),
            norm(f"{layer}.pre_attention_layer_norm", width),
        ),
        *norm(f"{name}.layernorm", width),
    )


FAMILIES: Mapping[str, Family] = {
    "kosmos-2": kosmos2,
    "kosmos-2.5": kosmos2_5,
    "pix2struct": pix2struct,
}
