"""Ridge regression by normal equations: a handful of features, a few hundred loads, no library.

The features are brought to mean 0 and spread 1 first, so that one penalty suits them all; the intercept is free.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from math import log2, sqrt

from heliosd.core.units import GiB
from heliosd.estimation.launch import Version

PENALTY = 4.0
"""Counts like so many loads that say that a feature does not matter."""
_BEYOND = 0.1
"""How far outside what it was fitted on a feature may lie, as a share of its range."""

Row = Sequence[float]
_Matrix = list[list[float]]


def features(
    *,
    weights_bytes: int,
    layers: int,
    hidden: int,
    vocabulary: int,
    sequences: int,
    batched_tokens: int,
    tensor_parallel: int,
    version: Version,
) -> dict[str, float]:
    """What the residual of a law may follow, in numbers of similar size. `weights_bytes`: of one device."""
    return {
        "log_weights": log2(1 + weights_bytes),
        "layers": float(layers),
        "hidden": float(hidden),
        "logits_gib": vocabulary * sequences * 4 / GiB,
        "tokens_gib": batched_tokens * hidden * 2 / GiB,
        "tensor_parallel": float(tensor_parallel),
        "era": version[0] * 100.0 + version[1],
    }


@dataclass(frozen=True, slots=True)
class Ridge:
    """A fitted model of one number."""

    names: tuple[str, ...]
    means: tuple[float, ...]
    spreads: tuple[float, ...]
    lows: tuple[float, ...]
    highs: tuple[float, ...]
    weights: tuple[float, ...]
    """The intercept, then one for each feature."""

    def knows(self, row: Mapping[str, float]) -> bool:
        """Whether all features are there and within what it was fitted on: it does not guess beyond."""
        if any(name not in row for name in self.names):
            return False
        return all(
            low - _BEYOND * (high - low) <= row[name] <= high + _BEYOND * (high - low)
            for name, low, high in zip(self.names, self.lows, self.highs, strict=True)
        )

    def predict(self, row: Mapping[str, float]) -> float:
        scaled = _scaled([row[name] for name in self.names], self.means, self.spreads)
        return _dot(self.weights, scaled)


def fit(rows: Sequence[Mapping[str, float]], targets: Row, groups: Sequence[Hashable]) -> tuple[Ridge, list[float]]:
    """The model of all rows, and for each row what a model that saw nothing of its group says of it.

    The rows must have the same features. A held-out group is subtracted from the normal equations, which gives
    exactly what fitting without it would.
    """
    names = tuple(sorted(rows[0]))
    raw = [[row[name] for name in names] for row in rows]
    columns = list(zip(*raw, strict=True))
    means = tuple(sum(column) / len(column) for column in columns)
    spreads = tuple(
        sqrt(sum((value - mean) ** 2 for value in column) / len(column)) or 1.0
        for column, mean in zip(columns, means, strict=True)
    )
    scaled = [_scaled(row, means, spreads) for row in raw]
    size = len(names) + 1
    matrix: _Matrix = [[0.0] * size for _ in range(size)]
    right = [0.0] * size
    for index in range(1, size):
        matrix[index][index] = PENALTY
    for row, target in zip(scaled, targets, strict=True):
        _add(matrix, right, row, target, 1.0)
    held_out = [0.0] * len(rows)
    members: dict[Hashable, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    for indexes in members.values():
        less, less_right = [list(line) for line in matrix], list(right)
        for index in indexes:
            _add(less, less_right, scaled[index], targets[index], -1.0)
        without = _solved(less, less_right)
        for index in indexes:
            held_out[index] = _dot(without, scaled[index])
    lows = tuple(min(column) for column in columns)
    highs = tuple(max(column) for column in columns)
    return Ridge(names, means, spreads, lows, highs, tuple(_solved(matrix, right))), held_out


def _scaled(row: Row, means: Row, spreads: Row) -> list[float]:
    return [1.0, *((value - mean) / spread for value, mean, spread in zip(row, means, spreads, strict=True))]


def _dot(left: Row, right: Row) -> float:
    return sum(a * b for a, b in zip(left, right, strict=True))


def _add(matrix: _Matrix, right: list[float], row: Row, target: float, sign: float) -> None:
    for line, value in zip(matrix, row, strict=True):
        factor = sign * value
        for column, other in enumerate(row):
            line[column] += factor * other
    for index, value in enumerate(row):
        right[index] += sign * value * target


def _solved(matrix: _Matrix, right: Row) -> list[float]:
    """Gauss with the largest pivot. Without any row left the intercept's line is empty: it is then 0."""
    size = len(matrix)
    lines = [[*line, value] for line, value in zip(matrix, right, strict=True)]
    for column in range(size):
        pivot = max(range(column, size), key=lambda line: abs(lines[line][column]))
        lines[column], lines[pivot] = lines[pivot], lines[column]
        if abs(lines[column][column]) < 1e-9:
            lines[column][column] = 1.0
        for line in range(column + 1, size):
            factor = lines[line][column] / lines[column][column]
            if factor:
                for index in range(column, size + 1):
                    lines[line][index] -= factor * lines[column][index]
    answer = [0.0] * size
    for line in reversed(range(size)):
        known = sum(lines[line][index] * answer[index] for index in range(line + 1, size))
        answer[line] = (lines[line][size] - known) / lines[line][line]
    return answer
