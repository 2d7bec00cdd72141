"""What models of an encoder and a decoder share: which of the two an architecture has, and where each is counted.

The decoder's layers are the layout's blocks. The encoder, which runs once for each prompt, is a tower on the first
stage; where it is the whole model, its layers are the blocks.
"""

from dataclasses import replace
from enum import StrEnum

from heliosd.estimation.families.encoding import architecture_of
from heliosd.estimation.families.family import Head
from heliosd.estimation.fields import Fields
from heliosd.estimation.layout import Block, Tensor


class Parts(StrEnum):
    """Which stacks an architecture has, by the ending of its name."""

    BOTH = "both"
    ENCODER = "encoder"
    """`...EncoderModel`, and heads upon tokens."""
    DECODER = "decoder"
    """`...ForCausalLM`."""


def parts_of(fields: Fields) -> Parts:
    name = architecture_of(fields)
    if name.endswith(("EncoderModel", "ForTokenClassification")):
        return Parts.ENCODER
    if name.endswith("ForCausalLM"):
        return Parts.DECODER
    return Parts.BOTH


def generates(fields: Fields, head: Head) -> bool:
    """Whether a projection onto the vocabulary follows; `MarianMTModel` has one despite its name."""
    name = architecture_of(fields)
    return name.endswith("MTModel") or (head is Head.VOCABULARY and not name.endswith("ForQuestionAnswering"))


def tower(blocks: tuple[Block, ...]) -> tuple[Tensor, ...]:
    """Layers as tensors with as many copies."""
    return tuple(
        replace(tensor, copies=tensor.copies * len(block.layers)) for block in blocks for tensor in block.tensors
    )
