"""Constants of the laws that only measurement tells, from the rows of all sources but one.

Graphs: a line over the layers by least absolute deviation (few rows are far off: where capturing gave memory back, logs
print negative numbers). Non-torch memory: medians. An era with too few rows keeps the one before it.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import median

from heliosd.core.units import MiB
from heliosd.errors import HeliosError
from heliosd.estimation.activations import activation_peak
from heliosd.estimation.constants import ERAS, Measured, era
from heliosd.estimation.graphs import kernel_bytes, size_share
from heliosd.estimation.launch import Platform
from heliosd.estimation.model import read_model
from heliosd.estimation.resolve import resolve
from tests.bench.truth_rows import Row

FEWEST = 2
MOST_BASE = 0.5
PLANE_ERA = "0.16"
"""Here the hidden size tells too: one cluster ran twenty models of all sizes on one kind of card."""
ENOUGH_FOR_A_PLANE = 12


@dataclass(frozen=True, slots=True)
class Sample:
    """What one row says about the constants of its era."""

    source: str
    era: str
    layers: int
    hidden: int
    graphs_bytes: float | None
    """At the usual capture sizes, without what kernels keep."""
    non_torch_bytes: int | None
    kind: str
    """`alone`, `older` or `together`."""


def samples(rows: Iterable[Row]) -> list[Sample]:
    found = []
    for row in rows:
        try:
            model = read_model(row.config, row.launch.quantization)
        except HeliosError:
            continue
        if not model.sizes.layers or row.launch.platform is Platform.ROCM or row.fork:
            continue
        resolved = resolve(model, row.launch)
        chosen = era(row.launch.version, v0=row.launch.v0)
        count = len(resolved.defaults.capture_sizes)
        graphs = row.measured.graphs_bytes
        usual = None
        if graphs is not None and count:
            graphs += given_back(row, activation_peak(model, resolved, chosen).layer_bytes)
        if graphs and graphs > 0 and count:
            usual = (graphs - kernel_bytes(model, row.launch, chosen)) / size_share(count, v0=row.launch.v0)
        capability = resolved.card.capability
        kind = "together" if row.launch.world_size > 1 else "older" if capability and capability < (9, 0) else "alone"
        found.append(
            Sample(
                row.source,
                chosen.name,
                model.sizes.layers,
                model.sizes.hidden,
                usual,
                row.measured.non_torch_bytes,
                kind,
            )
        )
    return found


GIVEN_BACK = 1.6
"""Times the layer's activation peak that capturing gives back of what the allocator had kept since the warm-up, in
engines of 0.11 to 0.17: their printed graph memory is the difference, often negative. 1.5 to 2.0 in nine starts."""


def given_back(row: Row, layer_bytes: int) -> int:
    return round(GIVEN_BACK * layer_bytes) if (0, 11, 0) <= row.launch.version < (0, 18, 0) and not row.launch.v0 else 0


def fit(found: Sequence[Sample], without: str | None = None) -> dict[str, Measured]:
    """Constants by era's name, from the samples of all sources but `without`."""
    used = [each for each in found if each.source != without]
    fitted: dict[str, Measured] = {}
    before = ERAS[0].measured
    for each in ERAS:
        here = [sample for sample in used if sample.era == each.name]
        before = fitted[each.name] = _era(here, before)
    return fitted


def _era(here: Sequence[Sample], before: Measured) -> Measured:
    used = [each for each in here if each.graphs_bytes and each.graphs_bytes > 0]
    result = replace(before, rows=len(here))
    if len(used) >= ENOUGH_FOR_A_PLANE and used[0].era == PLANE_ERA:
        layer, hidden, base = least_deviation_plane(
            [(each.layers, each.hidden / 1024, each.graphs_bytes or 0.0) for each in used]
        )
        result = replace(
            result,
            graph_layer_bytes=round(layer),
            graph_hidden_bytes=round(hidden),
            graph_base_bytes=round(base),
        )
    elif len(used) >= FEWEST and len({each.layers for each in used}) > 1:
        slope, base = least_deviation([(each.layers, each.graphs_bytes or 0.0) for each in used])
        result = replace(result, graph_layer_bytes=round(slope), graph_hidden_bytes=0, graph_base_bytes=round(base))
    for kind, name in (("alone", "alone_bytes"), ("older", "alone_older_bytes"), ("together", "together_bytes")):
        values = [each.non_torch_bytes for each in here if each.kind == kind and each.non_torch_bytes is not None]
        if len(values) >= 2:
            result = replace(result, **{name: round(median(values))})
    alone = [
        each.non_torch_bytes - (result.alone_bytes if each.kind == "alone" else result.alone_older_bytes)
        for each in here
        if each.kind != "together" and each.non_torch_bytes is not None
    ]
    together = [
        each.non_torch_bytes - result.together_bytes
        for each in here
        if each.kind == "together" and each.non_torch_bytes is not None
    ]
    return replace(
        result,
        alone_doubt_bytes=_doubt(alone, before.alone_doubt_bytes, 100 * MiB),
        together_doubt_bytes=_doubt(together, before.together_doubt_bytes, 350 * MiB),
    )


def _doubt(above: Sequence[int], before: int, least: int) -> int:
    """What nineteen of twenty starts stayed under; the era before tells it where fewer than two were seen."""
    if len(above) < 2:
        return before
    return max(least, sorted(above)[min(len(above) - 1, int(0.95 * len(above)))])


def least_deviation(points: Sequence[tuple[int, float]]) -> tuple[float, float]:
    """(slope, base), the base not negative, of the line with the least sum of absolute deviations from `points`.

    Such a line goes through two of the points, or through one and the origin. A flat line is no law of layers, and a
    base above half of the median is noise: then the line through the origin is taken.
    """

    def cost(line: tuple[float, float]) -> float:
        return sum(abs(y - line[0] * x - line[1]) for x, y in points)

    most = median(y for _, y in points) * MOST_BASE
    candidates = [(y / x, 0.0) for x, y in points if x]
    for index, (x, y) in enumerate(points):
        for other_x, other_y in points[index + 1 :]:
            if x != other_x:
                slope = (y - other_y) / (x - other_x)
                candidates.append((slope, y - slope * x))
    return min((each for each in candidates if each[0] > 0 and 0 <= each[1] <= most), key=cost)


def least_deviation_plane(points: Sequence[tuple[float, float, float]], rounds: int = 40) -> tuple[float, float, float]:
    """(a, b, c) of `y = a·x1 + b·x2 + c` with nearly the least sum of absolute deviations: least squares, weighted
    again and again by the inverse of each deviation."""
    weights = [1.0] * len(points)
    found = (0.0, 0.0, 0.0)
    floor = 1e-3 * max(abs(y) for _, _, y in points)
    for _ in range(rounds):
        rows = [
            (math.sqrt(w) * x1, math.sqrt(w) * x2, math.sqrt(w)) for w, (x1, x2, _) in zip(weights, points, strict=True)
        ]
        right = [math.sqrt(w) * y for w, (_, _, y) in zip(weights, points, strict=True)]
        found = _solve(rows, right)
        weights = [1 / max(floor, abs(y - found[0] * x1 - found[1] * x2 - found[2])) for x1, x2, y in points]
    return found


def _solve(rows: Sequence[tuple[float, float, float]], right: Sequence[float]) -> tuple[float, float, float]:
    """Least squares of three unknowns by Cramer's rule on the normal equations."""
    normal = [[sum(row[i] * row[j] for row in rows) for j in range(3)] for i in range(3)]
    side = [sum(row[i] * y for row, y in zip(rows, right, strict=True)) for i in range(3)]
    whole = _determinant(normal)
    parts = [
        _determinant([[side[i] if j == k else normal[i][j] for j in range(3)] for i in range(3)]) / whole
        for k in range(3)
    ]
    return parts[0], parts[1], parts[2]


def _determinant(m: Sequence[Sequence[float]]) -> float:
    return (
        m[0][0] * (m[1][1] * m[2][2] - m[1][2] * m[2][1])
        - m[0][1] * (m[1][0] * m[2][2] - m[1][2] * m[2][0])
        + m[0][2] * (m[1][0] * m[2][1] - m[1][1] * m[2][0])
    )
