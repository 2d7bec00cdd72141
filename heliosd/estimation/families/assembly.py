"""Puts a decoder together: embeddings, layers by their kinds, final norm, and what follows the last layer.

    kinds = ["dense"] * 3 + ["sparse"] * 58
    decoder(fields, head, kinds, layer)     # layer("dense") -> the tensors of one such layer

`layer` is called once for each distinct kind, so that sixty layers cost as little as two. Names begin with `model.`;
a wrapper that keeps the decoder elsewhere moves the layout with `moved(layout, "model.language_model.")`.
"""

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import replace
from typing import TypeVar

from heliosd.estimation.families.family import Head
from heliosd.estimation.families.sizes import HIDDEN, LAYERS, hidden_of, labels_of, positive
from heliosd.estimation.fields import Fields
from heliosd.estimation.layout import Block, Kind, Layout, Split, Tensor, linear, norm

LAYER = "model.layers.{}"
T = TypeVar("T", bound=Hashable)


def decoder(
    fields: Fields,
    head: Head,
    kinds: Sequence[T],
    layer: Callable[[T], tuple[Tensor, ...]],
    *,
    prefix: str = "model.",
    embedding: str = "embed_tokens",
    width: int | None = None,
    also_first: tuple[Tensor, ...] = (),
    final: tuple[Tensor, ...] | None = None,
    also_last: tuple[Tensor, ...] = (),
    output: str = "lm_head",
    output_bias: bool = False,
    score: str = "score",
    score_width: int | None = None,
    tied: bool | None = None,
    drafts: tuple[Tensor, ...] = (),
) -> Layout:
    """A whole decoder. `kinds` has one entry for each layer.

    `width`: of the embeddings where it is not the hidden size (what projects between them comes in `also_first` and
    `also_last`). `final`: the norm after the layers, a scale named `{prefix}norm` unless given. `tied`: what
    `tie_word_embeddings` says unless given. `output_bias` belongs to the projection onto the vocabulary and stays
    when its matrix is tied.
    """
    hidden, vocabulary = hidden_of(fields), positive(fields, "vocab_size", "padded_vocab_size")
    wide = width or hidden
    shared = fields.flag("tie_word_embeddings") if tied is None else tied
    last = norm(f"{prefix}norm", hidden) if final is None else final
    last += also_last
    if head is Head.VOCABULARY:
        last += vocabulary_head(output, vocabulary, wide, bias=output_bias, tied=shared)
    elif head is Head.CLASSES:
        last += linear(score, labels_of(fields), score_width or hidden)
    return Layout(
        first=(Tensor(f"{prefix}{embedding}.weight", vocabulary, wide, Kind.EMBEDDING, Split.VOCABULARY), *also_first),
        blocks=blocks(kinds, layer),
        last=last,
        drafts=drafts if head is Head.VOCABULARY else (),
        tied=shared and head is Head.VOCABULARY,
        guessed=unsaid(fields),
    )


def unsaid(fields: Fields) -> tuple[str, ...]:
    """Which of a decoder's main sizes the configuration leaves to its class: true of its first release, perhaps."""
    main = HIDDEN, LAYERS, ("vocab_size", "padded_vocab_size")
    return tuple(names[0] for names in main if fields.explicit(*names) is None)


def blocks(kinds: Sequence[T], layer: Callable[[T], tuple[Tensor, ...]], start: int = 0) -> tuple[Block, ...]:
    """Layers of the same kind together, in the order in which their kinds first appear; indices begin at `start`."""
    if len(set(kinds)) == 1:
        return (Block(tuple(range(start, start + len(kinds))), layer(kinds[0])),)
    of: dict[T, list[int]] = {}
    for index, kind in enumerate(kinds, start):
        of.setdefault(kind, []).append(index)
    return tuple(Block(tuple(indices), layer(kind)) for kind, indices in of.items())


def vocabulary_head(
    name: str, vocabulary: int, width: int, *, bias: bool = False, tied: bool = False
) -> tuple[Tensor, ...]:
    """The projection onto the vocabulary; of a tied one only the bias is its own."""
    weight = () if tied else (Tensor(f"{name}.weight", vocabulary, width, Kind.HEAD, Split.VOCABULARY),)
    return (*weight, Tensor(f"{name}.bias", vocabulary, 1, Kind.PLAIN, Split.VOCABULARY)) if bias else weight


def moved(layout: Layout, prefix: str, *, old: str = "model.") -> Layout:
    """The same layout with names that begin with `prefix` where they began with `old`."""

    def move(tensors: Iterable[Tensor]) -> tuple[Tensor, ...]:
        return tuple(
            tensor.named(prefix + tensor.name[len(old) :]) if tensor.name.startswith(old) else tensor
            for tensor in tensors
        )

    return replace(
        layout,
        first=move(layout.first),
        blocks=tuple(Block(block.layers, move(block.tensors)) for block in layout.blocks),
        last=move(layout.last),
        drafts=move(layout.drafts),
    )
