"""Whether a learned model knows better than the groups of loads: both are asked about revisions they have not seen."""

from collections.abc import Hashable
from dataclasses import dataclass

from heliosd.estimation.groups import Groups, Point
from heliosd.estimation.ridge import Ridge, fit
from heliosd.estimation.robust import Moments, moments

LEAST_LOADS = 40
LEAST_REVISIONS = 12
MARGIN = 0.2
"""The learned model's mean error must be smaller by this share: less may be luck."""
_NEWEST = 150
"""Loads that are tried, the last ones: it takes time."""


@dataclass(frozen=True, slots=True)
class Contest:
    """Mean absolute errors on held-out loads, one revision at a time, in units of the term."""

    loads: int
    revisions: int
    table_error: float
    model_error: float
    model: Ridge
    errors: Moments
    """Of the learned model on held-out loads: (true - predicted)."""

    @property
    def won(self) -> bool:
        return self.model_error < (1 - MARGIN) * self.table_error

    @property
    def words(self) -> str:
        outcome = "so it is used" if self.won else f"not smaller by {MARGIN:.0%}, so it is not used"
        return (
            f"on {self.loads} held-out loads of {self.revisions} revisions a learned model errs by "
            f"{self.model_error:.2%} of the term's unit where the groups err by {self.table_error:.2%}, {outcome}"
        )


def contest(groups: Groups) -> dict[Hashable, Contest]:
    """By (kind of engine, kind of device), where there are loads enough of different revisions."""
    scopes: dict[Hashable, list[Point]] = {}
    for point in groups.points:
        if point.asked.features:
            scopes.setdefault((point.asked.engine_kind, point.asked.device_kind), []).append(point)
    return {scope: held for scope, points in scopes.items() if (held := _held(groups, points[-_NEWEST:])) is not None}


def _held(groups: Groups, points: list[Point]) -> Contest | None:
    names = points[-1].asked.features.keys()
    points = [point for point in points if point.asked.features.keys() == names]
    revisions = [point.asked.revision for point in points]
    if len(points) < LEAST_LOADS or len(set(revisions)) < LEAST_REVISIONS:
        return None
    targets = groups.believable([point.value for point in points])
    model, said = fit([point.asked.features for point in points], targets, revisions)
    errors = [target - guess for target, guess in zip(targets, said, strict=True)]
    table = [target - _table(groups, point) for target, point in zip(targets, points, strict=True)]
    return Contest(
        loads=len(points),
        revisions=len(set(revisions)),
        table_error=sum(map(abs, table)) / len(table),
        model_error=sum(map(abs, errors)) / len(errors),
        model=model,
        errors=moments(errors),
    )


def _table(groups: Groups, point: Point) -> float:
    """The mean that the groups would give without the point's revision; see `Calibration` for the weights."""
    mean = 0.0
    for _, seen in groups.rings(point.asked, without=point.asked.revision):
        mean = (mean + seen.count * seen.mean) / (1 + seen.count)
    return mean
