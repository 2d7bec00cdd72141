"""Decoders of the first generation: learned or no positions, norms with shifts, networks without gates.

All share one shape, told by names and switches: GPT-2 and its relatives, GPT-J, GPT-NeoX, BLOOM, Falcon, MPT, OPT.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from heliosd.estimation.families.assembly import decoder
from heliosd.estimation.families.attention import attention
from heliosd.estimation.families.family import Family, Head
from heliosd.estimation.families.mlp import mlp
from heliosd.estimation.families.sizes import Heads, divided, heads_of, hidden_of, layers_of, positive
from heliosd.estimation.families.standard import Switch, on
from heliosd.estimation.fields import Fields
from heliosd.estimation.layout import Kind, Layout, Tensor, norm

POSITIONS = ("n_positions", "max_position_embeddings")
WIDTH = ("n_inner", "intermediate_size", "ffn_dim", "dff")
HEADS = ("n_head", "num_attention_heads", "n_heads", "num_heads", "attention_heads")


@dataclass(frozen=True, slots=True)
class Classic:
    """A family of that shape; `{}` in names is the layer."""

    layer: str = "transformer.h.{}"
    embedding: str = "wte"
    positions: str = ""
    """Name of learned positions; empty: the model has none or computes them."""
    more_positions: int = 0
    """Rows before the first position."""
    attend: tuple[str, str, str, str] = ("attn.c_attn", "attn.c_attn", "attn.c_attn", "attn.c_proj")
    feed: tuple[str, str] = ("mlp.c_fc", "mlp.c_proj")
    norms: tuple[str, ...] = ("ln_1", "ln_2")
    norm_bias: Switch = True
    after_embedding: str = ""
    final: str = "ln_f"
    qkv_bias: Switch = True
    out_bias: Switch = True
    feed_bias: Switch = True
    output: str = "lm_head"
    output_bias: bool = False
    score: str = "score"

    @property
    def prefix(self) -> str:
        return self.layer.split("{}")[0].rsplit(".", 2)[0] + "."

    def __call__(self, fields: Fields, head: Head) -> Layout:
        return self.build(fields, head, classic_heads(fields), self.norms)

    def build(self, fields: Fields, head: Head, heads: Heads, norms: tuple[str, ...], width: int = 0) -> Layout:
        """With the heads and the norms of a layer that the family found out itself."""
        hidden = heads.hidden
        wide = width or fields.optional(*WIDTH) or 4 * hidden
        shift = on(fields, self.norm_bias)

        def layer(kind: str) -> tuple[Tensor, ...]:
            names = ("", *self.feed)
            made = attention(
                self.layer, heads, names=self.attend, qkv_bias=on(fields, self.qkv_bias),
                out_bias=on(fields, self.out_bias),
            ) + mlp(self.layer, hidden, wide, gated=False, bias=on(fields, self.feed_bias), names=names)  # fmt: skip
            for name in norms:
                made += norm(f"{self.layer}.{name}", hidden, bias=shift)
            return made

        first: tuple[Tensor, ...] = ()
        if self.positions:
            rows = positive(fields, *POSITIONS) + self.more_positions
            first = (Tensor(f"{self.prefix}{self.positions}.weight", rows, hidden, Kind.EMBEDDING),)
        if self.after_embedding:
            first += norm(f"{self.prefix}{self.after_embedding}", hidden, bias=shift)
        return decoder(
            fields, head, [""] * layers_of(fields), layer, prefix=self.prefix, embedding=self.embedding,
            also_first=first, final=norm(f"{self.prefix}{self.final}", hidden, bias=shift) if self.final else (),
            output=self.output, output_bias=self.output_bias, score=self.score,
        )  # fmt: skip


def below(where: str, q: str, k: str, v: str, out: str) -> tuple[str, str, str, str]:
    return f"{where}.{q}", f"{where}.{k}", f"{where}.{v}", f"{where}.{out}"


def classic_heads(fields: Fields, kv: int | None = None) -> Heads:
    """These classes have no width of a head: the heads divide the hidden size."""
    hidden, query = hidden_of(fields), positive(fields, *HEADS)
    return Heads(hidden, query, query if kv is None else kv, divided(hidden, query, "the hidden size", HEADS[1]))


def gpt_bigcode(fields: Fields, head: Head) -> Layout:
    """StarCoder: one key-value head for all (`multi_query`)."""
    heads = classic_heads(fields, 1 if fields.flag("multi_query", default=True) else None)
    return GPT2.build(fields, head, heads, GPT2.norms)


def falcon(fields: Fields, head: Head) -> Layout:
    """One, some or all key-value heads; one, two or side-by-side norms, by generation."""
    new, side = fields.flag("new_decoder_architecture"), fields.flag("parallel_attn", default=True)
    hidden, query = hidden_of(fields), positive(fields, *HEADS)
    divided(hidden, query, "the hidden size", HEADS[1])
    one = not new and fields.flag("multi_query", default=True)
    shared = heads_of(fields).kv if new else query
    two = fields.whole("num_ln_in_parallel_attn", default=2 if new else 0) == 2
    names: tuple[str, ...] = ("ln_attn", "ln_mlp") if new and two else ("input_layernorm",)
    if not side:
        names += ("post_attention_layernorm",)
    # Explicit only: the class derives the width from its own hidden size.
    told = fields.explicit("ffn_hidden_size")
    width = positive(fields, "ffn_hidden_size") if told is not None else 4 * hidden
    return FALCON.build(fields, head, classic_heads(fields, 1 if one else shared), names, width)


def opt(fields: Fields, head: Head) -> Layout:
    """Two unused rows before the positions; the embedding may be narrower, with projections in and out."""
    hidden, wide = hidden_of(fields), fields.explicit("word_embed_proj_dim")
    narrow = positive(fields, "word_embed_proj_dim") if wide is not None else hidden
    affine = fields.flag("layer_norm_elementwise_affine", default=True)
    last = fields.flag("do_layer_norm_before", default=True) and not fields.flag("_remove_final_layer_norm")
    style, where = OPT, "model.decoder."
    heads, switch = classic_heads(fields), on(fields, OPT.qkv_bias)

    def layer(kind: str) -> tuple[Tensor, ...]:
        made = attention(style.layer, heads, names=style.attend, qkv_bias=switch, out_bias=switch)
        made += mlp(style.layer, hidden, positive(fields, "ffn_dim"), gated=False, bias=switch, names=("", *style.feed))
        for name in style.norms if affine else ():
            made += norm(f"{style.layer}.{name}", hidden, bias=True)
        return made

    around: tuple[Tensor, ...] = ()
    out: tuple[Tensor, ...] = ()
    if narrow != hidden:
        around = (Tensor(f"{where}project_in.weight", hidden, narrow, Kind.LINEAR),)
        out = (Tensor(f"{where}project_out.weight", narrow, hidden, Kind.LINEAR),)
    rows = positive(fields, "max_position_embeddings") + 2
    return decoder(
        fields, head, [""] * layers_of(fields), layer, prefix=where, width=narrow,
        also_first=(Tensor(f"{where}embed_positions.weight", rows, hidden, Kind.EMBEDDING), *around),
        final=norm(f"{where}final_layer_norm", hidden, bias=True) if last and affine else (), also_last=out,
        score_width=narrow,
    )  # fmt: skip


GPT2 = Classic(positions="wpe")
GPTJ = Classic(
    attend=("attn.q_proj", "attn.k_proj", "attn.v_proj", "attn.out_proj"), feed=("mlp.fc_in", "mlp.fc_out"),
    norms=("ln_1",), qkv_bias=False, out_bias=False, output_bias=True,
)  # fmt: skip
FUSED = ("self_attention.query_key_value",) * 3
BLOOM = Classic(
    embedding="word_embeddings", after_embedding="word_embeddings_layernorm",
    attend=(*FUSED, "self_attention.dense"), feed=("mlp.dense_h_to_4h", "mlp.dense_4h_to_h"),
    norms=("input_layernorm", "post_attention_layernorm"),
)  # fmt: skip
FALCON = Classic(
    embedding="word_embeddings", attend=(*FUSED, "self_attention.dense"),
    feed=("mlp.dense_h_to_4h", "mlp.dense_4h_to_h"), qkv_bias="bias", out_bias="bias", feed_bias="bias",
)  # fmt: skip
NEOX = Classic(
    layer="gpt_neox.layers.{}", embedding="embed_in",
    attend=(*("attention.query_key_value",) * 3, "attention.dense"),
    feed=("mlp.dense_h_to_4h", "mlp.dense_4h_to_h"), norms=("input_layernorm", "post_attention_layernorm"),
    final="final_layer_norm", qkv_bias="attention_bias", out_bias="attention_bias", output="embed_out",
)  # fmt: skip
OUT = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj")
OPT = Classic(
    layer="model.decoder.layers.{}", embedding="embed_tokens", attend=OUT, feed=("fc1", "fc2"),
    norms=("self_attn_layer_norm", "final_layer_norm"), qkv_bias="enable_bias",
)  # fmt: skip

FAMILIES: Mapping[str, Family] = {
    "biogpt": Classic(
        layer="biogpt.layers.{}", embedding="embed_tokens", positions="embed_positions", more_positions=2, attend=OUT,
        feed=("fc1", "fc2"), norms=("self_attn_layer_norm", "final_layer_norm"), final="layer_norm",
        output="output_projection",
    ),
    "bloom": BLOOM,
    "codegen": Classic(
        attend=(*("attn.qkv_proj",) * 3, "attn.out_proj"), feed=("mlp.fc_in", "mlp.fc_out"), norms=("ln_1",),
        qkv_bias=False, out_bias=False, output_bias=True,
    ),
    "ctrl": Classic(
        embedding="w", attend=below("multi_head_attention", "Wq", "Wk", "Wv", "dense"),
        feed=("ffn.0", "ffn.2"), norms=("layernorm1", "layernorm2"), final="layernorm", output_bias=True,
        score="classifier",
    ),
    "falcon": falcon,
    "gpt-sw3": GPT2,
    "gpt2": GPT2,
    "gpt_bigcode": gpt_bigcode,
    "gpt_neo": Classic(
        positions="wpe", qkv_bias=False,
        attend=below("attn.attention", "q_proj", "k_proj", "v_proj", "out_proj"),
    ),
    "gpt_neox": NEOX,
    "gptj": GPTJ,
    "mpt": Classic(
        layer="transformer.blocks.{}", attend=(*("attn.Wqkv",) * 3, "attn.out_proj"),
        feed=("ffn.up_proj", "ffn.down_proj"), norms=("norm_1", "norm_2"), norm_bias=False, final="norm_f",
        qkv_bias=False, out_bias=False, feed_bias=False,
    ),
    "openai-gpt": Classic(embedding="tokens_embed", positions="positions_embed", final=""),
    "opt": opt,
    "xglm": Classic(
        layer="model.layers.{}", embedding="embed_tokens", attend=OUT, feed=("fc1", "fc2"),
        norms=("self_attn_layer_norm", "final_layer_norm"), final="layer_norm",
    ),
}  # fmt: skip
