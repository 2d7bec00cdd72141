"""ProphetNet: predicts several tokens at once through a second stream, with learned positions and distances."""

from heliosd.estimation.families.assembly import blocks
from heliosd.estimation.families.encoding import Tensors, dense, divided_heads, table, tied, under, vocabulary
from heliosd.estimation.families.family import Head
from heliosd.estimation.families.sizes import layers_of, positive
from heliosd.estimation.families.two_stacks import Parts, parts_of, tower
from heliosd.estimation.fields import Fields
from heliosd.estimation.layout import Block, Layout, Split, norm


def prophetnet(fields: Fields, head: Head) -> Layout:
    outer = "" if head is Head.NONE else "prophetnet."
    width, count = positive(fields, "hidden_size"), positive(fields, "vocab_size")
    parts, free = parts_of(fields), not tied(fields)
    sides = {Parts.BOTH: ("encoder", "decoder"), Parts.ENCODER: ("encoder",), Parts.DECODER: ("decoder",)}[parts]
    first = table(f"{outer}word_embeddings", count, width)
    if free:
        first += tuple(t for side in sides for t in table(f"{outer}{side}.word_embeddings", count, width))
    encoder = _stack(fields, outer, "encoder") if "encoder" in sides else ()
    decoder = _stack(fields, outer, "decoder") if "decoder" in sides else ()
    ends = {side: _around(fields, outer, side) for side in sides}
    alone = parts is Parts.ENCODER
    top = vocabulary("lm_head", count, width, weight=free, bias=False) if head is Head.VOCABULARY else ()
    return Layout(
        first=first,
        blocks=encoder if alone else decoder,
        last=ends["encoder"] if alone else ends["decoder"] + top,
        towers=() if alone else tower(encoder) + ends.get("encoder", ()),
        tied=head is Head.VOCABULARY and not free,
    )


def _around(fields: Fields, outer: str, side: str) -> Tensors:
    width = positive(fields, "hidden_size")
    ahead = fields.whole("ngram") if side == "decoder" else 0
    inside = (
        *table("position_embeddings", positive(fields, "max_position_embeddings"), width),
        *table("ngram_embeddings", ahead, width),
        *norm("embeddings_layer_norm", width, bias=True),
    )
    return under(f"{outer}{side}.", inside)


def _stack(fields: Fields, outer: str, side: str) -> tuple[Block, ...]:
    count = layers_of(fields, f"num_{side}_layers")
    return blocks([side] * count, lambda _: under(f"{outer}{side}.layers.{{}}.", _layer(fields, side)))


def _layer(fields: Fields, side: str) -> Tensors:
    width, inner = positive(fields, "hidden_size"), positive(fields, f"{side}_ffn_dim")
    heads = divided_heads(fields, width, f"num_{side}_attention_heads")
    distances: Tensors = ()
    crossing: Tensors = ()
    if side == "decoder":
        distances = dense("self_attn.relative_pos_embeddings", positive(fields, "num_buckets") * heads, width)
        if fields.flag("add_cross_attention", default=True):
            crossing = (*_attention("cross_attn", width), *norm("cross_attn_layer_norm", width, bias=True))
    return (
        *_attention("self_attn", width),
        *distances,
        *norm("self_attn_layer_norm", width, bias=True),
        *crossing,
        *dense("feed_forward.intermediate", inner, width, Split.ROWS),
        *dense("feed_forward.output", width, inner, Split.COLUMNS),
        *norm("feed_forward_layer_norm", width, bias=True),
    )


def _attention(where: str, width: int) -> Tensors:
    return (
        *dense(f"{where}.key_proj", width, width, Split.ROWS),
        *dense(f"{where}.value_proj", width, width, Split.ROWS),
        *dense(f"{where}.query_proj", width, width, Split.ROWS),
        *dense(f"{where}.out_proj", width, width, Split.COLUMNS),
    )
