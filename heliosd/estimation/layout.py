"""What tensors a model consists of, and how ranks share them. Values only; `families` makes them from a configuration.

Names and shapes are those of the published checkpoint (unfused projections), so that a count is the parameter count
and a quantization's list of exceptions can be matched by name. What an engine makes of them is `weights`' business.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from enum import StrEnum


class Kind(StrEnum):
    """What a tensor is to a quantizer and to an adapter."""

    LINEAR = "linear"
    """A matrix of a projection: what quantization replaces."""
    EXPERT = "expert"
    """A routed expert's matrix: quantized too, and divided by expert parallelism."""
    EMBEDDING = "embedding"
    """Looked up by token; never divided below the model's own precision by default."""
    HEAD = "head"
    """The projection onto the vocabulary."""
    PLAIN = "plain"
    """Norms, biases, convolutions, routers' corrections: kept as they are."""


class Split(StrEnum):
    """How tensor parallelism shares a tensor over its ranks."""

    WHOLE = "whole"
    """Every rank holds all of it."""
    ROWS = "rows"
    """Output features divided (column parallel, in the engine's words); biases of such projections too."""
    COLUMNS = "columns"
    """Input features divided (row parallel)."""
    HEADS = "heads"
    """Rows divided by whole heads; with fewer heads than ranks each rank holds one, repeated."""
    VOCABULARY = "vocabulary"
    """Rows divided after padding to a multiple of 64."""


@dataclass(frozen=True, slots=True, init=False)
class Tensor:
    """`copies` equal tensors of `rows` x `columns` elements.

    Models have hundreds, and making them was a fifth of an estimate: fields are set by their slots, which takes a
    third of what a frozen dataclass takes.
    """

    name: str
    """Path in the checkpoint with `{}` for the layer: `model.layers.{}.self_attn.q_proj.weight`."""
    rows: int
    """Output features; the length of a vector."""
    columns: int = 1
    """Input features; for convolutions, input channels times kernel."""
    kind: Kind = Kind.PLAIN
    split: Split = Split.WHOLE
    copies: int = 1
    """In each layer: routed experts, usually."""
    heads: int = 0
    """Granularity of `Split.HEADS`."""
    dtype: str | None = None
    """Where it is not the model's: `float32` for the state matrices of Mamba."""

    def __init__(
        self,
        name: str,
        rows: int,
        columns: int = 1,
        kind: Kind = Kind.PLAIN,
        split: Split = Split.WHOLE,
        copies: int = 1,
        heads: int = 0,
        dtype: str | None = None,
    ) -> None:
        _set_name(self, name)
        _set_rows(self, rows)
        _set_columns(self, columns)
        _set_kind(self, kind)
        _set_split(self, split)
        _set_copies(self, copies)
        _set_heads(self, heads)
        _set_dtype(self, dtype)

    @property
    def elements(self) -> int:
        return self.rows * self.columns * self.copies

    def named(self, name: str) -> "Tensor":
        """The same under another name; `dataclasses.replace` takes three times as long, and models have hundreds."""
        return Tensor(name, self.rows, self.columns, self.kind, self.split, self.copies, self.heads, self.dtype)

    def repeated(self, count: int) -> "Tensor":
        """`count` times as many."""
        return Tensor(
            self.name, self.rows, self.columns, self.kind, self.split, self.copies * count, self.heads, self.dtype
        )


_set_name, _set_rows, _set_columns, _set_kind, _set_split, _set_copies, _set_heads, _set_dtype = (
    vars(Tensor)[each.name].__set__ for each in fields(Tensor)
)


@dataclass(frozen=True, slots=True)
class Block:
    """Equal layers of the decoder, by their indices."""

    layers: tuple[int, ...]
    tensors: tuple[Tensor, ...]

    @property
    def elements(self) -> int:
        return len(self.layers) * sum(tensor.elements for tensor in self.tensors)


@dataclass(frozen=True, slots=True)
class Layout:
    """All parameters of a model, by where pipeline parallelism puts them."""

    first: tuple[Tensor, ...]
    """Before the layers: embeddings."""
    blocks: tuple[Block, ...]
    last: tuple[Tensor, ...]
    """After the layers: the final norm, the output projection unless it is tied."""
    towers: tuple[Tensor, ...] = ()
    """Encoders of images and sounds and their projectors: on the first stage, `copies` for their layers."""
    drafts: tuple[Tensor, ...] = ()
    """Heads that predict several tokens; part of the checkpoint, loaded for speculative decoding only, and not
    among the parameters that `transformers` counts."""
    tied: bool = False
    """The output projection is the embedding."""
    guessed: tuple[str, ...] = field(default=())
    """What the configuration did not say and was assumed instead; each widens the interval."""

    @property
    def parameters(self) -> int:
        """Elements of all tensors but the drafts; a tied output projection counts once."""
        outside = sum(tensor.elements for tensor in (*self.first, *self.last, *self.towers))
        return outside + sum(block.elements for block in self.blocks)

    @property
    def layers(self) -> int:
        return sum(len(block.layers) for block in self.blocks)

    def walk(self) -> Iterator[tuple[Tensor, int]]:
        """Each distinct tensor with how many of it there are in all; without drafts."""
        for tensor in (*self.first, *self.last, *self.towers):
            yield tensor, tensor.copies
        for block in self.blocks:
            for tensor in block.tensors:
                yield tensor, tensor.copies * len(block.layers)


def linear(
    name: str, rows: int, columns: int, split: Split = Split.WHOLE, *, bias: bool = False, heads: int = 0
) -> tuple[Tensor, ...]:
    """A projection `name`.weight and, when it has one, its bias: divided with the rows, whole otherwise."""
    weight = Tensor(f"{name}.weight", rows, columns, Kind.LINEAR, split, heads=heads)
    if not bias:
        return (weight,)
    shared = Split.WHOLE if split is Split.COLUMNS else split
    return weight, Tensor(f"{name}.bias", rows, 1, Kind.PLAIN, shared, heads=heads)


def experts(name: str, rows: int, columns: int, split: Split, count: int) -> Tensor:
    """`count` routed experts' matrices of one projection."""
    return Tensor(f"{name}.weight", rows, columns, Kind.EXPERT, split, copies=count)


def norm(name: str, size: int, *, bias: bool = False) -> tuple[Tensor, ...]:
    """A normalization's scale, and its shift where there is one."""
    scale = Tensor(f"{name}.weight", size)
    return (scale, Tensor(f"{name}.bias", size)) if bias else (scale,)
