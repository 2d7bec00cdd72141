"""Conditions on metrics that Helios judges by itself, and that Prometheus judges as PromQL: one thing, written once.

A condition compares a quantity with a limit, for each set of labels by itself, as Prometheus does. What it sees are
the same samples that a scrape shows.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from prometheus_client.core import Metric

Labels = tuple[tuple[str, str], ...]
"""Names and values, sorted."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Samples at one moment: by name, then by labels."""

    at: float
    samples: Mapping[str, Mapping[Labels, float]]

    def of(self, name: str, where: Labels = (), without: Labels = ()) -> dict[Labels, float]:
        """The samples of a name that have all labels of `where`, and none of `without`."""
        found = self.samples.get(name, {})
        wanted, refused = set(where), set(without)
        return {labels: value for labels, value in found.items() if wanted <= set(labels) and not refused & set(labels)}


def reading_of(at: float, families: Iterable[Metric], names: frozenset[str]) -> Reading:
    """What families say, of these names only. A label without a value is none, as for Prometheus."""
    samples: dict[str, dict[Labels, float]] = {}
    for family in families:
        for sample in family.samples:
            if sample.name in names:
                labels = tuple(sorted((label, value) for label, value in sample.labels.items() if value))
                samples.setdefault(sample.name, {})[labels] = sample.value
    return Reading(at, samples)


class Quantity(Protocol):
    """What a condition compares: a number for each set of labels."""

    def promql(self) -> str: ...

    def values(self, readings: Sequence[Reading]) -> Mapping[Labels, float]:
        """`readings`, oldest first; the last one is now."""
        ...

    @property
    def names(self) -> frozenset[str]:
        """Of the samples it needs."""
        ...

    @property
    def window_s(self) -> float:
        """How far it looks back."""
        ...


@dataclass(frozen=True, slots=True)
class Now:
    """A sample as it is."""

    name: str
    where: Labels = ()
    without: Labels = ()
    window_s: float = 0.0

    def promql(self) -> str:
        return _selector(self.name, self.where, self.without)

    def values(self, readings: Sequence[Reading]) -> Mapping[Labels, float]:
        return readings[-1].of(self.name, self.where, self.without)

    @property
    def names(self) -> frozenset[str]:
        return frozenset({self.name})


@dataclass(frozen=True, slots=True)
class Increase:
    """By how much a counter grew within a window. Prometheus extrapolates to the window's ends; this does not."""

    name: str
    window_s: float
    where: Labels = ()

    def promql(self) -> str:
        return f"increase({_selector(self.name, self.where)}[{span(self.window_s)}])"

    def values(self, readings: Sequence[Reading]) -> Mapping[Labels, float]:
        now = readings[-1]
        first = next(each for each in readings if each.at >= now.at - self.window_s)
        before = first.of(self.name, self.where)
        grown = {}
        for labels, value in now.of(self.name, self.where).items():
            was = before.get(labels, 0.0)
            grown[labels] = value - was if value >= was else value
        return grown

    @property
    def names(self) -> frozenset[str]:
        return frozenset({self.name})


@dataclass(frozen=True, slots=True)
class Highest:
    """The highest that a sample was within a window, also where it is gone now."""

    name: str
    window_s: float

    def promql(self) -> str:
        return f"max_over_time({self.name}[{span(self.window_s)}])"

    def values(self, readings: Sequence[Reading]) -> Mapping[Labels, float]:
        since, found = readings[-1].at - self.window_s, dict[Labels, float]()
        for reading in readings:
            if reading.at >= since:
                for labels, value in reading.of(self.name).items():
                    found[labels] = max(value, found.get(labels, value))
        return found

    @property
    def names(self) -> frozenset[str]:
        return frozenset({self.name})


@dataclass(frozen=True, slots=True)
class Sum:
    """Two quantities with the same labels together."""

    one: Quantity
    other: Quantity

    def promql(self) -> str:
        return f"{self.one.promql()} + {self.other.promql()}"

    def values(self, readings: Sequence[Reading]) -> Mapping[Labels, float]:
        others = self.other.values(readings)
        return {
            labels: value + others[labels] for labels, value in self.one.values(readings).items() if labels in others
        }

    @property
    def names(self) -> frozenset[str]:
        return self.one.names | self.other.names

    @property
    def window_s(self) -> float:
        return max(self.one.window_s, self.other.window_s)


@dataclass(frozen=True, slots=True)
class Share:
    """One quantity as a part of another with the same labels."""

    part: Quantity
    whole: Quantity

    def promql(self) -> str:
        return f"{self.part.promql()} / {self.whole.promql()}"

    def values(self, readings: Sequence[Reading]) -> Mapping[Labels, float]:
        wholes = self.whole.values(readings)
        return {
            labels: value / wholes[labels] for labels, value in self.part.values(readings).items() if wholes.get(labels)
        }

    @property
    def names(self) -> frozenset[str]:
        return self.part.names | self.whole.names

    @property
    def window_s(self) -> float:
        return max(self.part.window_s, self.whole.window_s)


@dataclass(frozen=True, slots=True)
class Magnitude:
    """A quantity without its sign."""

    of: Quantity

    def promql(self) -> str:
        return f"abs({self.of.promql()})"

    def values(self, readings: Sequence[Reading]) -> Mapping[Labels, float]:
        return {labels: abs(value) for labels, value in self.of.values(readings).items()}

    @property
    def names(self) -> frozenset[str]:
        return self.of.names

    @property
    def window_s(self) -> float:
        return self.of.window_s


@dataclass(frozen=True, slots=True)
class Condition:
    """True for each set of labels whose quantity is above, or below, the limit."""

    quantity: Quantity
    sign: Literal[">", "<"]
    limit: float

    def promql(self) -> str:
        return f"{self.quantity.promql()} {self.sign} {self.limit:.12g}"

    def met(self, readings: Sequence[Reading]) -> dict[Labels, float]:
        """Where it is true now, with the quantity's value there."""
        above = self.sign == ">"
        values = self.quantity.values(readings).items()
        return {labels: value for labels, value in values if (value > self.limit if above else value < self.limit)}


def span(seconds: float) -> str:
    """A whole number of seconds, minutes or hours as PromQL writes it."""
    for unit, length_s in (("h", 3600), ("m", 60)):
        if seconds >= length_s and seconds % length_s == 0:
            return f"{seconds / length_s:.0f}{unit}"
    return f"{seconds:.0f}s"


def _selector(name: str, where: Labels, without: Labels = ()) -> str:
    wanted = [f'{label}="{value}"' for label, value in where] + [f'{label}!="{value}"' for label, value in without]
    return f"{name}{{{','.join(wanted)}}}" if wanted else name
