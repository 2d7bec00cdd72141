"""What a layer computes, read from its tensors: the sizes of attention and of the feed-forward part, and the norms."""

from dataclasses import dataclass

from heliosd.estimation.layout import Block, Kind, Tensor


@dataclass(frozen=True, slots=True)
class AttentionShape:
    """Ordinary attention: four projections, of which the first three may be one matrix."""

    query: Tensor
    key: Tensor
    value: Tensor
    output: Tensor
    head_norms: bool
    """Queries and keys are normalized."""

    @property
    def fused(self) -> bool:
        """One matrix gives queries, keys and values, which then share memory."""
        return self.query.name == self.key.name


@dataclass(frozen=True, slots=True)
class FeedForwardShape:
    """Gate (absent when not gated), up, down."""

    gate: Tensor | None
    up: Tensor
    down: Tensor

    @property
    def fused(self) -> bool:
        return self.gate is not None and self.gate.name == self.up.name


@dataclass(frozen=True, slots=True)
class LayerShape:
    """One layer. What is not understood is in `others`: projections whose input and output are counted as saved."""

    attention: AttentionShape | None
    feed_forward: FeedForwardShape | None
    experts: FeedForwardShape | None
    """One routed expert's projections; `copies` says how many there are."""
    others: tuple[Tensor, ...]
    norms: int
    """Of the hidden size, two for most."""
    norm_bias: bool
    """Norms with a shift: layer norms, computed in one fused operation; others are root-mean-square norms."""


def layer_shape(block: Block, hidden: int) -> LayerShape:
    """The shape of each of `block`'s layers; `hidden` is the width of the residual stream."""
    linears = [each for each in block.tensors if each.kind is Kind.LINEAR]
    inside = [each for each in linears if _in_attention(each.name)]
    outside = [each for each in linears if not _in_attention(each.name)]
    experts = [each for each in block.tensors if each.kind is Kind.EXPERT and each.columns > 1]
    vectors = [each for each in block.tensors if each.kind is Kind.PLAIN and _is_norm(each.name)]
    attention = _attention(inside, vectors, hidden)
    feed_forward, rest = _feed_forward(outside, hidden)
    routed, unrouted = _feed_forward(experts, hidden)
    routed_to = experts[0].copies if experts else 0
    others = tuple(
        each for each in (*(() if attention else inside), *rest, *unrouted) if not (routed and each.rows == routed_to)
    )
    stream = [each for each in vectors if each.rows == hidden and not _in_attention(each.name)]
    return LayerShape(
        attention=attention,
        feed_forward=feed_forward,
        experts=routed,
        others=others,
        norms=sum(1 for each in stream if each.name.endswith("weight")),
        norm_bias=any(each.name.endswith("bias") for each in stream),
    )


def _in_attention(name: str) -> bool:
    return any("attn" in part or "attention" in part for part in name.split(".")[:-2])


def _is_norm(name: str) -> bool:
    owner = name.split(".")[-2] if "." in name else name
    return "norm" in owner or owner.startswith("ln") or owner.endswith("ln")


def _attention(inside: list[Tensor], vectors: list[Tensor], hidden: int) -> AttentionShape | None:
    if len(inside) != 4:
        return None
    query, key, value, output = inside
    reads = query.columns == key.columns == value.columns == hidden
    if not reads or output.rows != hidden or output.columns != query.rows or key.rows != value.rows:
        return None
    return AttentionShape(query, key, value, output, any(_in_attention(each.name) for each in vectors))


def _feed_forward(outside: list[Tensor], hidden: int) -> tuple[FeedForwardShape | None, list[Tensor]]:
    """The last matrices of a gated or plain feed-forward part, and what else there is."""
    downs = [each for each in outside if each.rows == hidden and each.columns > 1]
    for down in downs:
        ups = [each for each in outside if each.rows == down.columns and each.columns == hidden and each is not down]
        if len(ups) in (1, 2):
            used = {id(down), *(id(each) for each in ups)}
            rest = [each for each in outside if id(each) not in used]
            return FeedForwardShape(ups[0] if len(ups) == 2 else None, ups[-1], down), rest
    return None, outside
