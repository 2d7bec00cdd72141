"""Projections of ordinary attention: grouped queries, biases, norms of queries and keys, sinks, output gates.

    heads = heads_of(fields)
    attention("model.layers.{}.self_attn", heads, qkv_bias=True)                      # Qwen 2
    attention("model.layers.{}.self_attn", heads, norm_per_head=True)                 # Qwen 3

Shapes: queries (heads x dim, hidden), keys and values (kv heads x dim, hidden), output (hidden, heads x value dim).
What a model adds beyond these it appends itself with `linear` and `norm` of `layout`.
"""

from heliosd.estimation.families.sizes import Heads
from heliosd.estimation.layout import Kind, Split, Tensor, linear, norm

SEPARATE = ("q_proj", "k_proj", "v_proj", "o_proj")


def attention(
    where: str,
    heads: Heads,
    *,
    qkv_bias: bool = False,
    out_bias: bool = False,
    norm_per_head: bool = False,
    norm_whole: bool = False,
    norm_bias: bool = False,
    gated: bool = False,
    sinks: bool = False,
    names: tuple[str, str, str, str] = SEPARATE,
    norms: tuple[str, str] = ("q_norm", "k_norm"),
) -> tuple[Tensor, ...]:
    """The tensors below `where`. `norm_per_head`: one scale of `dim` shared by all heads; `norm_whole`: a scale for
    all of a projection's output; `gated`: the query projection is twice as tall (its second half gates the output);
    `sinks`: one logit for each head. Where `names` gives queries, keys and values one name, the checkpoint stores
    them as one matrix; they stay three tensors here, because ranks share them differently.
    """
    q, k, v, o = (f"{where}.{name}" for name in names)
    rows, keys, values = heads.query * heads.dim, heads.kv * heads.dim, heads.kv * heads.value
    made = (
        *linear(q, rows * (2 if gated else 1), heads.hidden, Split.ROWS, bias=qkv_bias),
        *linear(k, keys, heads.hidden, Split.HEADS, bias=qkv_bias, heads=heads.kv),
        *linear(v, values, heads.hidden, Split.HEADS, bias=qkv_bias, heads=heads.kv),
        *linear(o, heads.hidden, heads.query * heads.value, Split.COLUMNS, bias=out_bias),
    )
    if norm_per_head or norm_whole:
        of_query, of_key = (heads.dim, heads.dim) if norm_per_head else (rows, keys)
        made += norm(f"{where}.{norms[0]}", of_query, bias=norm_bias) + norm(
            f"{where}.{norms[1]}", of_key, bias=norm_bias
        )
    if sinks:
        made += (Tensor(f"{where}.sinks", heads.query, 1, Kind.PLAIN, Split.ROWS),)
    return made
