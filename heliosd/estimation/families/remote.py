"""Decoders published with code of their own, which engines know: shapes as in those releases."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from heliosd.estimation.families.assembly import LAYER, decoder
from heliosd.estimation.families.attention import attention
from heliosd.estimation.families.choice import dense_first
from heliosd.estimation.families.dense import LLAMA, PLAIN, QWEN2
from heliosd.estimation.families.drafts import drafts_of
from heliosd.estimation.families.family import Family, Head
from heliosd.estimation.families.mlp import mlp
from heliosd.estimation.families.sizes import (
    HEADS,
    Heads,
    contradiction,
    divided,
    heads_of,
    hidden_of,
    layers_of,
    positive,
)
from heliosd.estimation.families.sparse import DEEPSEEK
from heliosd.estimation.families.standard import DENSE, Standard
from heliosd.estimation.fields import Fields
from heliosd.estimation.layout import Layout, Split, Tensor, linear, norm

ONE_MATRIX = ("self_attn.W_pack",) * 3


def renamed(
    fields: Fields, head: Head, heads: Heads, width: int, where: str, embedding: str, final: str, output: str,
    attend: tuple[str, str, str, str], feed: tuple[str, str, str], norms: tuple[str, str], *, qkv_bias: bool = False,
    bias: bool = False, norm_bias: bool = False,
) -> Layout:  # fmt: skip
    """Llama's shape under other names. `where`: a layer; the first words of `embedding` and `final` are their own."""
    hidden = heads.hidden

    def layer(kind: str) -> tuple[Tensor, ...]:
        made = attention(where, heads, names=attend, qkv_bias=qkv_bias or bias, out_bias=bias)
        made += mlp(where, hidden, width, names=feed, bias=bias)
        for name in norms:
            made += norm(f"{where}.{name}", hidden, bias=norm_bias)
        return made

    return decoder(
        fields, head, [DENSE] * layers_of(fields), layer, prefix="", embedding=embedding,
        final=norm(final, hidden, bias=norm_bias), output=output,
    )  # fmt: skip


def mimo(fields: Fields, head: Head) -> Layout:
    """Qwen 2 with a layer that drafts."""
    layout, heads = QWEN2(fields, head), heads_of(fields)
    count = drafts_of(fields, "num_nextn_predict_layers")
    if head is not Head.VOCABULARY or not count:
        return layout
    where, hidden = "model.mtp_layers.{}", heads.hidden
    drafted = (
        *(tensor for name in ("token_layernorm", "hidden_layernorm") for tensor in norm(f"{where}.{name}", hidden)),
        *linear(f"{where}.input_proj", hidden, 2 * hidden),
        *norm(f"{where}.final_layernorm", hidden),
        *(replace(one, name=one.name.replace(LAYER, where)) for one in QWEN2.layer(fields, heads, DENSE)),
    )
    drafts = tuple(replace(one, name=one.name.replace("{}", str(index))) for index in range(count) for one in drafted)
    return replace(layout, drafts=drafts)


def qwen(fields: Fields, head: Head) -> Layout:
    """The first Qwen; its `intermediate_size` is that of gate and up projection together."""
    width = divided(positive(fields, "intermediate_size"), 2, "the width", "intermediate_size")
    heads = heads_of(fields, kv=positive(fields, *HEADS))
    return renamed(
        fields, head, heads, width, "transformer.h.{}", "transformer.wte", "transformer.ln_f", "lm_head",
        (*("attn.c_attn",) * 3, "attn.c_proj"), ("mlp.w2", "mlp.w1", "mlp.c_proj"), ("ln_1", "ln_2"), qkv_bias=True,
    )  # fmt: skip


def phi3_small(fields: Fields, head: Head) -> Layout:
    """Biases everywhere, a gate and an up projection in one matrix."""
    return renamed(
        fields, head, heads_of(fields), positive(fields, "ff_intermediate_size", "intermediate_size"),
        LAYER, "model.embed_tokens", "model.final_layernorm", "lm_head",
        (*("self_attn.query_key_value",) * 3, "self_attn.dense"), ("mlp.up_proj", "mlp.up_proj", "mlp.down_proj"),
        ("input_layernorm", "post_attention_layernorm"), bias=True, norm_bias=True,
    )  # fmt: skip


def internlm2(fields: Fields, head: Head) -> Layout:
    return renamed(
        fields, head, heads_of(fields), positive(fields, "intermediate_size"), LAYER, "model.tok_embeddings",
        "model.norm", "output", (*("attention.wqkv",) * 3, "attention.wo"),
        ("feed_forward.w1", "feed_forward.w3", "feed_forward.w2"), ("attention_norm", "ffn_norm"),
        bias=fields.flag("bias"),
    )  # fmt: skip


def exaone(fields: Fields, head: Head) -> Layout:
    return renamed(
        fields, head, heads_of(fields), positive(fields, "intermediate_size"), "transformer.h.{}", "transformer.wte",
        "transformer.ln_f", "lm_head",
        ("attn.attention.q_proj", "attn.attention.k_proj", "attn.attention.v_proj", "attn.attention.out_proj"),
        ("mlp.c_fc_0", "mlp.c_fc_1", "mlp.c_proj"), ("ln_1", "ln_2"),
    )  # fmt: skip


def chatglm(fields: Fields, head: Head) -> Layout:
    """ChatGLM 2 and 3, GLM 4: few key-value groups when `multi_query_attention`, biases by two switches."""
    query, hidden = positive(fields, *HEADS), hidden_of(fields)
    few = fields.flag("multi_query_attention")
    dim = fields.whole("kv_channels", default=0) or divided(hidden, query, "the hidden size", "num_attention_heads")
    heads = heads_of(fields, dim=dim, kv=positive(fields, "multi_query_group_num") if few else query)
    return renamed(
        fields, head, heads, positive(fields, "ffn_hidden_size"), "transformer.encoder.layers.{}",
        "transformer.embedding.word_embeddings", "transformer.encoder.final_layernorm", "transformer.output_layer",
        (*("self_attention.query_key_value",) * 3, "self_attention.dense"),
        ("mlp.dense_h_to_4h", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h"),
        ("input_layernorm", "post_attention_layernorm"), qkv_bias=fields.flag("add_qkv_bias"),
        bias=fields.flag("add_bias_linear"),
    )  # fmt: skip


def baichuan(fields: Fields, head: Head) -> Layout:
    """Llama with one matrix for queries, keys and values."""
    return renamed(
        fields, head, heads_of(fields, kv=positive(fields, *HEADS)), positive(fields, "intermediate_size"), LAYER,
        "model.embed_tokens", "model.norm", "lm_head", (*ONE_MATRIX, "self_attn.o_proj"),
        ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"), ("input_layernorm", "post_attention_layernorm"),
    )  # fmt: skip


def nemotron_nas(fields: Fields, head: Head) -> Layout:
    """Llama whose layers were thinned one by one: `block_configs` tells for each its sharing of keys and values and
    its width, or that a part is missing or became a single matrix."""
    layers, hidden, query = layers_of(fields), hidden_of(fields), positive(fields, *HEADS)
    told = fields.get("block_configs")
    if not isinstance(told, list) or len(told) < layers:
        raise contradiction("it does not tell every layer", "block_configs")
    dim = divided(hidden, query, "the hidden size", "num_attention_heads")
    bias = fields.flag("attention_bias")

    def layer(kind: tuple[int | None, int | None]) -> tuple[Tensor, ...]:
        shared, width = kind
        made: tuple[Tensor, ...] = ()
        if shared:
            heads = Heads(hidden, query, divided(query, shared, "the number of heads", "n_heads_in_group"), dim)
            made += attention(f"{LAYER}.self_attn", heads, qkv_bias=bias, out_bias=bias)
        elif shared == 0:
            made += linear(f"{LAYER}.self_attn.linear_attn", hidden, hidden, Split.ROWS)
        if shared is not None:
            made += norm(f"{LAYER}.input_layernorm", hidden)
        if width:
            made += mlp(f"{LAYER}.mlp", hidden, width, bias=fields.flag("mlp_bias"))
        elif width == 0:
            made += linear(f"{LAYER}.mlp.linear_mlp", hidden, hidden, Split.ROWS)
        return made + norm(f"{LAYER}.post_attention_layernorm", hidden) if width is not None else made

    return decoder(fields, head, [_thinned(block, hidden) for block in told[:layers]], layer)


def _thinned(block: Any, hidden: int) -> tuple[int | None, int | None]:
    """(heads that share a key-value head, width); None where the part is missing, 0 where it is a single matrix."""
    parts = block if isinstance(block, Mapping) else {}
    attend, feed = _part(parts, "attention"), _part(parts, "ffn")
    shared, times = attend.get("n_heads_in_group"), feed.get("ffn_mult")
    group = None if attend.get("no_op") else 0 if attend.get("replace_with_linear") else shared
    if feed.get("no_op"):
        width = None
    elif feed.get("replace_with_linear"):
        width = 0
    elif isinstance(times, int | float) and 0 < times < 1000:
        # Two thirds, as gates take a third matrix, up to a multiple of 256.
        width = -(-int(2 * times * hidden / 3) // 256) * 256
    else:
        raise contradiction(f"{str(times)[:40]!r} is no multiple of the hidden size", "ffn_mult")
    if group is not None and not (isinstance(group, int) and 0 <= group < 2**20):
        raise contradiction(f"{str(group)[:40]!r} is no number of heads", "n_heads_in_group")
    return group, width


def _part(block: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = block.get(name)
    return part if isinstance(part, Mapping) else {}


FAMILIES: Mapping[str, Family] = {
    "baichuan": baichuan,
    "chatglm": chatglm,
    "deepseek": Standard(mlp_bias=False, sparse=DEEPSEEK, kinds=dense_first),
    "exaone": exaone,
    "internlm": Standard(qkv_bias="bias", out_bias="bias", mlp_bias=False),
    "internlm2": internlm2,
    "internlm3": Standard(qkv_bias="qkv_bias", out_bias="bias", mlp_bias="bias"),
    "mimo": mimo,
    "minicpm": PLAIN,
    "nemotron-nas": nemotron_nas,
    "orion": Standard(qkv_bias=False, out_bias=False, mlp_bias=False, norm_bias=True),
    "phi3small": phi3_small,
    "qwen": qwen,
    "solar": LLAMA,
    "xverse": PLAIN,
}
