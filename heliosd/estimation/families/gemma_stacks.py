"""T5Gemma: Gemma's layers in an encoder and a decoder, the second generation with images before its encoder."""

from heliosd.estimation.families.assembly import blocks
from heliosd.estimation.families.attention import attention
from heliosd.estimation.families.encoding import Tensors, dense, table, tied, under, vocabulary
from heliosd.estimation.families.family import Head
from heliosd.estimation.families.mlp import mlp
from heliosd.estimation.families.sizes import Heads, contradiction, heads_of, hidden_of, labels_of, layers_of, positive
from heliosd.estimation.families.two_stacks import Parts, parts_of, tower
from heliosd.estimation.families.vision_clip import siglip
from heliosd.estimation.fields import Fields
from heliosd.estimation.layout import Block, Kind, Layout, Split, Tensor, norm


def t5gemma(fields: Fields, head: Head) -> Layout:
    """Two stacks with a table each; the projection onto the vocabulary is the decoder's when tied."""
    outer = "" if head is Head.NONE else "model."
    encoder = _part(fields, "encoder")
    alone = parts_of(fields) is Parts.ENCODER or not fields.flag("is_encoder_decoder", default=True)
    first = table(f"{outer}encoder.embed_tokens", positive(encoder, "vocab_size"), hidden_of(encoder))
    layers = _stack(encoder, f"{outer}encoder.")
    end = norm(f"{outer}encoder.norm", hidden_of(encoder))
    if alone:
        return Layout(first=first, blocks=layers, last=end + _scores(fields, head, hidden_of(encoder)))
    decoder = _part(fields, "decoder")
    width = hidden_of(decoder)
    return Layout(
        first=first + table(f"{outer}decoder.embed_tokens", positive(decoder, "vocab_size"), width),
        blocks=_stack(decoder, f"{outer}decoder.", reads=hidden_of(encoder)),
        last=(*norm(f"{outer}decoder.norm", width), *_words(fields, head, decoder), *_scores(fields, head, width)),
        towers=tower(layers) + end,
        tied=head is Head.VOCABULARY and tied(fields),
    )


def t5gemma2(fields: Fields, head: Head) -> Layout:
    """One table for both stacks, with an embedding of its own for an image's end; the decoder attends once to both."""
    outer = "" if head is Head.NONE else "model."
    encoder, decoder = _part(fields, "encoder"), _part(fields, "decoder")
    text, seen = _part(encoder, "text_config"), _part(encoder, "vision_config")
    width, inside = hidden_of(text), f"{outer}encoder.text_model."
    projector, deep = f"{outer}encoder.multi_modal_projector", hidden_of(seen)
    second = () if tied(fields) else _marked(decoder, f"{outer}decoder.")
    return Layout(
        first=_marked(text, inside) + second,
        blocks=_stack(decoder, f"{outer}decoder.", normed=True),
        last=(*norm(f"{outer}decoder.norm", width), *_words(fields, head, decoder), *_scores(fields, head, width)),
        towers=(
            *tower(_stack(text, inside, normed=True)),
            *norm(f"{inside}norm", width),
            *siglip(seen, f"{outer}encoder.vision_tower"),
            Tensor(f"{projector}.mm_input_projection_weight", deep, width, Kind.LINEAR),
            *norm(f"{projector}.mm_soft_emb_norm", deep),
        ),
        tied=head is Head.VOCABULARY and tied(fields),
    )


def _part(fields: Fields, name: str) -> Fields:
    found = fields.part(name)
    if found is None:
        raise contradiction(f"it does not say its {name}", name)
    return found


def _marked(fields: Fields, prefix: str) -> Tensors:
    width = hidden_of(fields)
    return (
        *table(f"{prefix}embed_tokens", positive(fields, "vocab_size"), width),
        Tensor(f"{prefix}embed_tokens.eoi_embedding", width),
    )


def _stack(fields: Fields, prefix: str, *, reads: int = 0, normed: bool = False) -> tuple[Block, ...]:
    """Equal layers; those of a decoder that `reads` an encoder of that width have cross-attention."""
    heads, bias = heads_of(fields), fields.flag("attention_bias")
    width = heads.hidden
    crossing: Tensors = ()
    if reads:
        crossing = (
            *_cross(heads, reads, bias),
            *norm("pre_cross_attn_layernorm", width),
            *norm("post_cross_attn_layernorm", width),
        )
    layer = (
        *attention("self_attn", heads, qkv_bias=bias, out_bias=bias, norm_per_head=normed),
        *norm("pre_self_attn_layernorm", width),
        *norm("post_self_attn_layernorm", width),
        *crossing,
        *mlp("mlp", width, positive(fields, "intermediate_size")),
        *norm("pre_feedforward_layernorm", width),
        *norm("post_feedforward_layernorm", width),
    )
    return blocks(["layer"] * layers_of(fields), lambda _: under(f"{prefix}layers.{{}}.", layer))


def _cross(heads: Heads, reads: int, bias: bool) -> Tensors:
    """Queries from the decoder's width, keys and values from the encoder's."""
    own = attention("cross_attn", heads, qkv_bias=bias, out_bias=bias)
    read = attention("cross_attn", Heads(reads, heads.query, heads.kv, heads.dim), qkv_bias=bias, out_bias=bias)
    theirs = ("cross_attn.k_proj", "cross_attn.v_proj")
    return tuple(b if a.name.startswith(theirs) else a for a, b in zip(own, read, strict=True))


def _words(fields: Fields, head: Head, decoder: Fields) -> Tensors:
    if head is not Head.VOCABULARY:
        return ()
    count, width = positive(decoder, "vocab_size"), hidden_of(decoder)
    return vocabulary("lm_head.out_proj", count, width, weight=not tied(fields), bias=False)


def _scores(fields: Fields, head: Head, width: int) -> Tensors:
    scored = head is Head.CLASSES or (parts_of(fields) is Parts.ENCODER and head is not Head.NONE)
    return dense("score.out_proj", labels_of(fields), width, Split.WHOLE) if scored else ()
