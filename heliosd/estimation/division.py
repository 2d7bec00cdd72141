"""How a model is divided over some devices of this machine when the operator says only over how many.

Tensor ranks where they can be: every device works on every token. Stages of a pipeline where ranks cannot share the
model, or where the links would make them wait in every layer.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from heliosd.core.hardware import Device
from heliosd.core.stages import arranged, links
from heliosd.core.topology import described, groups, slow
from heliosd.estimation.model import Model
from heliosd.estimation.parallelism import Parallel, why_not


@dataclass(frozen=True, slots=True)
class Division:
    tensor: int
    """Devices of a stage."""
    pipeline: int
    """Stages."""
    reason: str = ""
    """Why there are several stages; empty where there is one."""


def division(model: Model | None, count: int, devices: Iterable[Device]) -> Division:
    """Over `count` of `devices`: the most tensor ranks that the engine would start, with links that bear them.

    Links that nobody knows bear them. Where nothing is known of the model, or it has no layers that could be cut into
    stages, it stays in one; so it does where no division would start, and the estimate says what is wrong.
    """
    whole = Division(count, 1)
    if count == 1 or model is None or model.sizes.pooling or model.sizes.encoder_positions:
        return whole
    known = tuple(devices)
    possible, reason = list[Division](), ""
    for tensor in range(count, 0, -1):
        if count % tensor:
            continue
        found = Division(tensor, count // tensor, reason)
        refused = why_not(model, Parallel(tensor, found.pipeline))
        if refused is None:
            possible.append(found)
            refused = _too_slow(found, known)
            if refused is None:
                return found
        reason = reason or refused
    return possible[0] if possible else whole


def _too_slow(found: Division, devices: tuple[Device, ...]) -> str | None:
    """What joins the devices of a stage in the best place there is, where that is too slow for tensor ranks."""
    by_id = {each.id: each for each in devices}
    sizes = {each.id: each.capacity_bytes for each in devices}
    there = groups(by_id, found.tensor * found.pipeline, sizes, 0, found.pipeline)
    places = [arranged(group, by_id, found.pipeline) for group in there]
    if not places:
        return None
    best = min(places, key=lambda place: links(place, by_id, found.pipeline))
    inside, _ = links(best, by_id, found.pipeline)
    if not slow(inside):
        return None
    stage = best[: found.tensor]
    return f"too slow for {found.tensor} tensor ranks is the best link here: {described(stage, by_id)}"
