"""What if there were other cards besides, or the weights in another precision: what models would need then."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from heliosd.api.asked import ref_of
from heliosd.api.estimate import subject_named
from heliosd.api.estimate_plan import Subject, fitted
from heliosd.api.estimate_target import Target, named_target, target_here
from heliosd.api.parts import Parts
from heliosd.core.units import format_bytes
from heliosd.errors import BadRequest, HeliosError
from heliosd.estimation.fit import room_of
from heliosd.estimation.precision import Precision, Support
from heliosd.lease import Judgement
from heliosd.state.hours import Asked
from heliosd.wire import EstimateRequest, ModelNeed

MOST_MODELS = 50
"""Those wanted in most hours; the others are taken to change as these do together."""
MOST_CARDS = 64
_SEVERAL = re.compile(r"(\d+)x(.+)")


@dataclass(frozen=True, slots=True)
class Change:
    words: str
    more_bytes: int
    target: Target
    """A card of those that come, or the one that is here."""
    precision: Precision | None = None


def change_of(text: str | None, parts: Parts) -> Change | None:
    """What `with` asks for. Raises BadRequest for a card nobody knows, and a precision that the card here has not."""
    if text is None:
        return None
    if text.lower() in tuple(Precision):
        return _precision(Precision(text.lower()), parts)
    several = _SEVERAL.fullmatch(text.strip())
    count, name = (int(several[1]), several[2]) if several else (1, text)
    if not 0 < count <= MOST_CARDS:
        raise BadRequest(f"cannot reckon with {text}: from 1 to {MOST_CARDS} cards can be asked about", param="with")
    target = named_target(name)
    return Change(f"{count} x {target.name} more", count * room_of(target.device_bytes), target)


def _precision(precision: Precision, parts: Parts) -> Change:
    here = target_here(account.device for account in parts.node.snapshot().devices)
    if here is None:
        raise BadRequest(f"cannot reckon with {precision}: this node has no device for engines", param="with")
    if here.gpu.support(precision) is Support.NONE:
        raise BadRequest(
            f"cannot reckon with {precision}: {here.name} does not compute with such weights",
            code="bad_precision",
            param="with",
        )
    return Change(f"weights in {precision}", 0, here, precision)


async def need_then(parts: Parts, asked: Mapping[str, Asked], change: Change) -> tuple[list[ModelNeed], float]:
    """What each model that was wanted needs then; and all of them together then against now, by their hours."""
    most = sorted((each for each in asked.values() if each.need_bytes), key=lambda each: -each.hours)[:MOST_MODELS]
    needs = [await _need(parts, each, change) for each in most]
    if change.precision is None:
        return needs, 1.0
    before = sum(each.hours * each.need_bytes for each in needs)
    after = sum(each.hours * (each.then_bytes or each.need_bytes) for each in needs)
    return needs, after / before if before else 1.0


async def _need(parts: Parts, asked: Asked, change: Change) -> ModelNeed:
    try:
        now = await parts.node.judge(ref_of(asked.model))
        subject, _ = await subject_named(EstimateRequest(model=asked.model), parts)
        then_bytes, reason = await parts.estimator.run(lambda: _then(asked, now, subject, change))
    except HeliosError as error:
        then_bytes, reason = None, error.message
    return ModelNeed(
        model=asked.model, hours=asked.hours, need_bytes=asked.need_bytes, then_bytes=then_bytes, reason=reason
    )


def _then(asked: Asked, now: Judgement, subject: Subject, change: Change) -> tuple[int | None, str]:
    ranks = now.device_count // now.pipeline_parallel if change.precision else 1
    stages = now.pipeline_parallel if change.precision else 1
    request = EstimateRequest(
        model=asked.model, context=now.max_model_len, tensor_parallel=ranks, pipeline_parallel=stages
    )
    if change.precision is None:
        fit = fitted(request, subject, change.target)
        return (fit.needed_bytes if fit.fits else None), fit.verdict
    before = fitted(request, subject, change.target).needed_bytes
    after = fitted(request.model_copy(update={"precision": change.precision.value}), subject, change.target)
    then_bytes = max(0, asked.need_bytes - (before - after.needed_bytes) * now.device_count)
    words = f"{format_bytes(before)} on each device, {format_bytes(after.needed_bytes)} in {change.precision}"
    return then_bytes, words
