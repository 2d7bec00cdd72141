"""Puts an encoder together from its parts, for the head that the architecture's name asks for."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from heliosd.estimation.families.family import Family, Head
from heliosd.estimation.families.sizes import divided, labels_of, layers_of, positive
from heliosd.estimation.fields import Fields
from heliosd.estimation.layout import Block, Kind, Layout, Split, Tensor, linear

Tensors = tuple[Tensor, ...]
Part = Callable[[Fields], Tensors]
"""The tensors of one part of the model, named relative to it."""
Stack = Callable[[Fields], tuple[Block, ...]]


class Task(StrEnum):
    """What an encoder's architecture adds to its body, by the ending of the name."""

    BODY = "body"
    """`...Model`: with the pooler, where the family has one."""
    WORDS = "words"
    """`...ForMaskedLM` and `...ForCausalLM`."""
    CLASSES = "classes"
    """`...ForSequenceClassification`."""
    TOKENS = "tokens"
    """`...ForTokenClassification`: a score of each class for each token."""
    SPANS = "spans"
    """`...ForQuestionAnswering`: the answer's beginning and end."""
    PRETRAINING = "pretraining"
    """`...ForPreTraining`: words, or whatever else the family was trained on first."""


@dataclass(frozen=True, slots=True)
class Encoder:
    """One family. Parts of the body are named relative to it; the heads' names are the checkpoint's."""

    root: str
    """The body's name inside a model with a head; the bare body's tensors have no prefix."""
    embed: Part
    stack: Stack
    words: Part
    classes: Part
    pooler: Part
    """In the bare body only; `classes` names its own where it has one."""
    after: Part
    """After the layers, whatever the head."""
    tokens: Part
    pretraining: Part


def nothing(_: Fields) -> Tensors:
    return ()


def classifier(fields: Fields) -> Tensors:
    return linear("classifier", labels_of(fields), width_of(fields), bias=True)


def spans(fields: Fields) -> Tensors:
    return linear("qa_outputs", 2, width_of(fields), bias=True)


def encoder(
    root: str,
    embed: Part,
    stack: Stack,
    words: Part = nothing,
    classes: Part = classifier,
    *,
    pooler: Part = nothing,
    after: Part = nothing,
    tokens: Part = classifier,
    pretraining: Part | None = None,
) -> Family:
    """The family of an encoder with these parts."""
    return family_of(Encoder(root, embed, stack, words, classes, pooler, after, tokens, pretraining or words))


def family_of(made: Encoder) -> Family:
    def family(fields: Fields, head: Head) -> Layout:
        return assembled(made, fields, task_of(fields, head))

    return family


def assembled(made: Encoder, fields: Fields, task: Task) -> Layout:
    """The layout of an encoder for a task. Raises BadRequest when sizes are missing or absurd."""
    prefix = "" if task is Task.BODY else f"{made.root}."
    body = made.after(fields) + (made.pooler(fields) if task is Task.BODY else ())
    match task:
        case Task.BODY:
            top: Tensors = ()
        case Task.WORDS:
            top = made.words(fields)
        case Task.CLASSES:
            top = made.classes(fields)
        case Task.TOKENS:
            top = made.tokens(fields)
        case Task.SPANS:
            top = spans(fields)
        case Task.PRETRAINING:
            top = made.pretraining(fields)
    blocks = tuple(Block(block.layers, under(prefix, block.tensors)) for block in made.stack(fields))
    return Layout(
        first=under(prefix, made.embed(fields)),
        blocks=tuple(block for block in blocks if block.layers),
        last=under(prefix, body) + top,
        tied=task in (Task.WORDS, Task.PRETRAINING) and tied(fields),
    )


def task_of(fields: Fields, head: Head) -> Task:
    """By the first architecture's name, by `head` where there is none."""
    name = architecture_of(fields)
    if name.endswith("ForTokenClassification"):
        return Task.TOKENS
    if name.endswith("ForQuestionAnswering"):
        return Task.SPANS
    if name.endswith("ForPreTraining"):
        return Task.PRETRAINING
    if name.endswith("Encoder"):
        return Task.BODY
    return {Head.NONE: Task.BODY, Head.CLASSES: Task.CLASSES, Head.VOCABULARY: Task.WORDS}[head]


def architecture_of(fields: Fields) -> str:
    names = fields.items("architectures")
    return names[0] if names and isinstance(names[0], str) else ""


def equal(path: str, layer: Part, *counts: str) -> Stack:
    """A stack of equal layers at `path`, as many as the first of `counts` says."""

    def stack(fields: Fields) -> tuple[Block, ...]:
        count = layers_of(fields, *(counts or ("num_hidden_layers",)))
        return (Block(tuple(range(count)), under(f"{path}.{{}}.", layer(fields))),)

    return stack


def joined(*parts: Part) -> Part:
    """Several parts one after another."""
    return lambda fields: tuple(tensor for part in parts for tensor in part(fields))


def under(prefix: str, tensors: Tensors) -> Tensors:
    """The same tensors, their names prefixed."""
    if not prefix:
        return tensors
    # Made anew rather than by `dataclasses.replace`, which takes three times as long.
    return tuple(
        Tensor(prefix + t.name, t.rows, t.columns, t.kind, t.split, t.copies, t.heads, t.dtype) for t in tensors
    )


def dense(name: str, rows: int, columns: int, split: Split = Split.WHOLE) -> Tensors:
    """A projection with a bias."""
    return linear(name, rows, columns, split, bias=True)


def table(name: str, rows: int, columns: int) -> Tensors:
    """An embedding looked up by token, position or segment; empty when it has no rows."""
    return (Tensor(f"{name}.weight", rows, columns, Kind.EMBEDDING, Split.VOCABULARY),) if rows else ()


def vocabulary(name: str, rows: int, columns: int, *, weight: bool, bias: bool = True) -> Tensors:
    """The output projection: its weight unless it is the embedding, and its bias."""
    matrix = (Tensor(f"{name}.weight", rows, columns, Kind.HEAD, Split.VOCABULARY),) if weight else ()
    return matrix + ((Tensor(f"{name}.bias", rows, 1, Kind.PLAIN, Split.VOCABULARY),) if bias else ())


def tied(fields: Fields) -> bool:
    """Whether the output projection is the embedding; encoders' classes assume so."""
    return fields.flag("tie_word_embeddings", default=True)


def width_of(fields: Fields) -> int:
    return positive(fields, "hidden_size", "d_model", "dim", "emb_dim")


def divided_heads(fields: Fields, width: int, *names: str) -> int:
    """The number of attention heads. Raises BadRequest unless they divide `width` evenly."""
    names = names or ("num_attention_heads",)
    heads = positive(fields, *names)
    divided(width, heads, "the width", names[0])
    return heads
