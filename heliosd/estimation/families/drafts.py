"""Heads that predict further tokens (multi-token prediction): a layer each, fed by two norms and a projection.

The embedding and the projection onto the vocabulary that checkpoints repeat beside them are left out: the engine
lets the draft use the model's own.
"""

from heliosd.estimation.families.assembly import LAYER
from heliosd.estimation.families.sizes import contradiction
from heliosd.estimation.fields import Fields
from heliosd.estimation.layout import Tensor, linear, norm

MOST_DRAFTS = 64
"""Released models have one to seven."""
COUNTS = ("num_nextn_predict_layers", "mtp_num_hidden_layers", "num_mtp_modules")


def drafts_of(fields: Fields, *names: str) -> int:
    """How many further tokens the checkpoint predicts; what the configuration says, or its class."""
    count = fields.whole(*(names or COUNTS), default=0)
    if count > MOST_DRAFTS:
        raise contradiction(f"{count} draft layers is more than any model has", (names or COUNTS)[0])
    return count


def next_token(layers: int, count: int, hidden: int, block: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """`count` draft layers after `layers` of the model, each with the tensors of `block` (named with `{}`)."""
    around = (
        *norm(f"{LAYER}.enorm", hidden),
        *norm(f"{LAYER}.hnorm", hidden),
        *linear(f"{LAYER}.eh_proj", hidden, 2 * hidden),
        *norm(f"{LAYER}.shared_head.norm", hidden),
        *block,
    )
    return tuple(
        tensor.named(tensor.name.replace("{}", str(index), 1))
        for index in range(layers, layers + count)
        for tensor in around
    )
