"""What a family of architectures tells: a function from its configuration to the tensors of its models."""

from collections.abc import Callable
from enum import StrEnum

from heliosd.estimation.fields import Fields
from heliosd.estimation.layout import Layout


class Head(StrEnum):
    """What follows the last layer."""

    VOCABULARY = "vocabulary"
    """A projection onto the vocabulary: language models."""
    NONE = "none"
    """Hidden states or a pool of them: embedding models (`...Model`)."""
    CLASSES = "classes"
    """A score for each of `num_labels` classes: rerankers, reward models (`...ForSequenceClassification`)."""


Family = Callable[[Fields, Head], Layout]
"""`(configuration, head) -> layout`. The configuration is the whole one, as published; the family descends into its
parts. Raises BadRequest, naming the field, when a size is absurd or missing."""
