"""Decoders that share little with the others: several stacks, bytes instead of tokens, projections without norms."""

from collections.abc import Mapping
from dataclasses import replace

from heliosd.estimation.families.assembly import LAYER, blocks, decoder, vocabulary_head
from heliosd.estimation.families.attention import attention
from heliosd.estimation.families.classic import Classic, classic_heads
from heliosd.estimation.families.family import Family, Head
from heliosd.estimation.families.mlp import mlp
from heliosd.estimation.families.sizes import (
    HEADS,
    Heads,
    contradiction,
    divided,
    heads_of,
    hidden_of,
    labels_of,
    layers_of,
    positive,
)
from heliosd.estimation.fields import Fields
from heliosd.estimation.layout import Block, Kind, Layout, Split, Tensor, linear, norm


def gpt_neox_japanese(fields: Fields, head: Head) -> Layout:
    """GPT-NeoX without biases but for one after the last layer's attention."""
    hidden, layers = hidden_of(fields), layers_of(fields)
    wide = hidden * positive(fields, "intermediate_multiple_size")
    style = replace(JAPANESE, output="embed_out")
    layout = style.build(fields, head, classic_heads(fields), style.norms, wide)
    (block,) = layout.blocks
    bias = Tensor(f"{style.layer}.attention.dense_bias", hidden)
    last = Block(block.layers[-1:], (*block.tensors, bias))
    rest = (Block(block.layers[:-1], block.tensors),) if layers > 1 else ()
    return replace(layout, blocks=(*rest, last))


JAPANESE = Classic(
    layer="gpt_neox_japanese.layers.{}", embedding="embed_in",
    attend=(*("attention.query_key_value",) * 3, "attention.dense"),
    feed=("mlp.dense_h_to_4h", "mlp.dense_4h_to_h"), norms=("input_layernorm", "post_attention_layernorm"),
    final="final_layer_norm", qkv_bias=False, out_bias=False, feed_bias=False,
)  # fmt: skip


def cpmant(fields: Fields, head: Head) -> Layout:
    """Prompts of several kinds have embeddings beside the tokens'; places are biased by buckets and segments."""
    hidden, query, dim = hidden_of(fields), positive(fields, *HEADS), positive(fields, "dim_head")
    heads, wide = Heads(hidden, query, query, dim), positive(fields, "dim_ff")
    vocabulary = positive(fields, "vocab_size")
    kinds, length = fields.whole("prompt_types", default=32), fields.whole("prompt_length", default=32)
    segments = positive(fields, "segment_types")
    where = "cpmant.encoder.layers.{}"
    names = ("project_q", "project_k", "project_v", "attention_out")
    both = ("w_in.w_0", "w_in.w_1", "w_out")

    def layer(kind: str) -> tuple[Tensor, ...]:
        return (
            *attention(f"{where}.self_att.self_attention", heads, names=names),
            *norm(f"{where}.self_att.layernorm_before_attention", hidden),
            *mlp(f"{where}.ffn.ffn", hidden, wide, names=both),
            *norm(f"{where}.ffn.layernorm_before_ffn", hidden),
        )

    rows = vocabulary + kinds * length
    buckets = fields.whole("position_bias_num_buckets", default=512) + segments * segments
    return Layout(
        first=(
            Tensor("cpmant.input_embedding.weight", rows, hidden, Kind.EMBEDDING, Split.VOCABULARY),
            Tensor("cpmant.segment_embedding.weight", segments, hidden, Kind.EMBEDDING),
            Tensor("cpmant.position_bias.relative_attention_bias", buckets, query),
        ),
        blocks=blocks([""] * layers_of(fields), layer),
        # Of another height than the embedding, so never tied to it, whatever the configuration says.
        last=norm("cpmant.encoder.output_layernorm", hidden)
        + (vocabulary_head("lm_head", vocabulary, hidden) if head is Head.VOCABULARY else ()),
    )


def moshi(fields: Fields, head: Head) -> Layout:
    """The text decoder of Moshi: one more row in the embedding, gate and up projection as one matrix."""
    layers, heads = layers_of(fields), heads_of(fields)
    hidden, vocabulary = heads.hidden, positive(fields, "vocab_size")
    wide = divided(positive(fields, "ffn_dim"), 2, "the width", "ffn_dim")

    def layer(kind: str) -> tuple[Tensor, ...]:
        return (
            *attention(
                f"{LAYER}.self_attn", heads,
                names=("q_proj.linear", "k_proj.linear", "v_proj.linear", "o_proj.linear"),
            ),
            *mlp(f"{LAYER}.mlp", hidden, wide, names=("fc1", "fc1", "fc2")),
            *norm(f"{LAYER}.input_layernorm", hidden),
            *norm(f"{LAYER}.post_attention_layernorm", hidden),
        )  # fmt: skip

    layout = decoder(fields, head, [""] * layers, layer, tied=False)
    embedding = Tensor("model.embed_tokens.weight", vocabulary + 1, hidden, Kind.EMBEDDING, Split.VOCABULARY)
    return replace(layout, first=(embedding,))


def modernbert(fields: Fields, head: Head) -> Layout:
    """ModernBERT as a decoder: the embedding's norm serves as the first layer's, the head has a layer of its own."""
    layers, hidden, wide = layers_of(fields), hidden_of(fields), positive(fields, "intermediate_size")
    query = positive(fields, *HEADS)
    heads = Heads(hidden, query, query, divided(hidden, query, "the hidden size", "num_attention_heads"))
    shift, bias, inner = fields.flag("norm_bias"), fields.flag("attention_bias"), fields.flag("mlp_bias")

    def layer(first: bool) -> tuple[Tensor, ...]:
        made = (
            *attention(
                f"{LAYER}.attn", heads, qkv_bias=bias, out_bias=bias, names=("q_proj", "k_proj", "v_proj", "Wo")
            ),
            *mlp(f"{LAYER}.mlp", hidden, wide, bias=inner, names=("Wi", "Wi", "Wo")),
            *norm(f"{LAYER}.mlp_norm", hidden, bias=shift),
        )
        return made if first else made + norm(f"{LAYER}.attn_norm", hidden, bias=shift)

    before = "lm_head" if head is Head.VOCABULARY else "head"
    step = (
        *linear(f"{before}.dense", hidden, hidden, bias=fields.flag("classifier_bias")),
        *norm(f"{before}.norm", hidden, bias=shift),
    )
    layout = decoder(
        fields, head if head is Head.VOCABULARY else Head.NONE, [index == 0 for index in range(layers)], layer,
        embedding="embeddings.tok_embeddings", also_first=norm("model.embeddings.norm", hidden, bias=shift),
        final=norm("model.final_norm", hidden, bias=shift), also_last=step if head is not Head.NONE else (),
        output="decoder", output_bias=fields.flag("decoder_bias", default=True),
    )  # fmt: skip
    if head is not Head.CLASSES:
        return layout
    scores = linear("classifier", labels_of(fields), hidden, bias=fields.flag("classifier_bias"))
    return replace(layout, last=layout.last + scores)


def hrm(fields: Fields, head: Head) -> Layout:
    """Two stacks that are run in turns, fast and slow; `num_hidden_layers` counts the turns once they are told
    apart from `num_layers_per_stack`."""
    heads = heads_of(fields, kv=positive(fields, *HEADS))
    told = fields.explicit("num_layers_per_stack")
    layers = layers_of(fields, "num_layers_per_stack" if told is not None else "num_hidden_layers")
    hidden, bias = heads.hidden, fields.flag("attention_bias")
    stacks = ("L_module", "H_module")

    def layer(stack: str) -> tuple[Tensor, ...]:
        where = f"model.{stack}.layers.{{}}"
        return (
            *attention(f"{where}.self_attn", heads, qkv_bias=bias, out_bias=bias),
            *linear(f"{where}.self_attn.gate_proj", heads.query * heads.dim, hidden, Split.ROWS, bias=bias),
            *mlp(f"{where}.mlp", hidden, positive(fields, "intermediate_size"), bias=fields.flag("mlp_bias")),
        )

    kinds = [stack for stack in stacks for _ in range(layers)]
    return decoder(fields, head, kinds, layer, also_first=(Tensor("model.z_L_init", hidden),), final=())


def byte_latent(fields: Fields, head: Head) -> Layout:
    """Byte Latent Transformer: a small decoder finds patches of bytes, encoders and decoders of bytes surround the
    large decoder of patches. All but the latter stand first or last."""
    parts = {name: fields.part(f"{name}_config") for name in ("patcher", "encoder", "decoder", "global")}
    if any(part is None for part in parts.values()):
        raise contradiction("a part of it is missing", "global_config")
    patcher, encoder, over, large = (part for part in parts.values() if part is not None)
    vocabulary, wide = positive(fields, "vocab_size"), hidden_of(large)
    groups = len(fields.items("encoder_hash_byte_group_size") or range(3, 9))
    rows = (
        positive(fields, "encoder_hash_byte_group_vocab")
        * positive(fields, "encoder_hash_byte_group_nb_functions")
        * groups
    )
    small = hidden_of(encoder)
    first: tuple[Tensor, ...] = (
        Tensor("model.encoder_hash_tok_embedding.weight", rows, small, Kind.EMBEDDING),
        Tensor("model.local_encoder.embed_tokens.weight", positive(encoder, "vocab_size"), small, Kind.EMBEDDING),
        *_repeated("model.local_encoder", encoder),
        *_between("model.local_encoder", encoder, fields, wide),
        *linear("model.local_encoder.patch_embedding_projection", *_patches(fields, encoder, wide, small)),
    )
    if fields.flag("patch_in_forward", default=True):
        where, size = "model.patcher", hidden_of(patcher)
        first += (
            Tensor(f"{where}.embed_tokens.weight", positive(patcher, "vocab_size"), size, Kind.EMBEDDING),
            *_repeated(where, patcher),
            *norm(f"{where}.norm", size),
            *vocabulary_head(f"{where}.lm_head", positive(patcher, "vocab_size"), size),
        )
    crossing = fields.optional("encoder_cross_output_size") or large.optional("encoder_cross_output_size")
    if crossing:
        first += linear("model.global_transformer.token_embedding_projection", wide, crossing)
    end = hidden_of(over)
    last = (
        *_repeated("model.local_decoder", over),
        *_between("model.local_decoder", over, fields, wide),
        *linear("model.local_decoder.patch_embedding_projection", *_patches(fields, over, end, wide)),
        *norm("model.local_decoder.norm", end),
    )
    tied = fields.flag("tie_word_embeddings") and head is Head.VOCABULARY
    if head is Head.VOCABULARY and not tied:
        last += vocabulary_head("lm_head", vocabulary, end)
    layer = _layer("model.global_transformer.layers.{}", large)
    return Layout(first=first, blocks=blocks([""] * layers_of(large), lambda _: layer), last=last, tied=tied)


def _patches(fields: Fields, part: Fields, rows: int, columns: int) -> tuple[int, int]:
    """A patch is as wide as `cross_attn_k` bytes on the byte's side."""
    ratio = part.whole("cross_attn_k", default=fields.whole("cross_attn_k", default=2))
    return (columns * ratio, columns) if part.model_type == "blt_local_encoder" else (rows * ratio, columns)


def _layer(where: str, part: Fields) -> tuple[Tensor, ...]:
    heads = heads_of(part)
    # The class of the byte encoder derives its width; the others have constants.
    derived = part.model_type == "blt_local_encoder" and part.explicit("intermediate_size") is None
    wide = 8 * heads.hidden // 3 if derived else positive(part, "intermediate_size")
    return (
        *attention(f"{where}.self_attn", heads),
        *mlp(f"{where}.mlp", heads.hidden, wide),
        *norm(f"{where}.input_layernorm", heads.hidden),
        *norm(f"{where}.post_attention_layernorm", heads.hidden),
    )


def _repeated(where: str, part: Fields) -> tuple[Tensor, ...]:
    """All layers of a small stack at once: `copies` stand for the layers."""
    layers = layers_of(part)
    return tuple(replace(tensor, copies=layers) for tensor in _layer(f"{where}.layers.0", part))


def _between(where: str, part: Fields, fields: Fields, wide: int) -> tuple[Tensor, ...]:
    """Cross-attention between bytes and patches, in every layer or once."""
    heads = heads_of(part)
    count = layers_of(part) if part.flag("cross_attn_all_layers") else 1
    made = attention(f"{where}.cross_attn_layers.0", heads)
    made += norm(f"{where}.cross_attn_layers.0.q_norm", heads.hidden)
    made += norm(f"{where}.cross_attn_layers.0.k_norm", heads.hidden)
    return tuple(replace(tensor, copies=count) for tensor in made)


FAMILIES: Mapping[str, Family] = {
    "blt": byte_latent,
    "cpmant": cpmant,
    "gpt_neox_japanese": gpt_neox_japanese,
    "hrm_text": hrm,
    "modernbert-decoder": modernbert,
    "moshi": moshi,
}
