"""A start as a line of phases, from the decision on. Values in, values out."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

OTHER = "other"
"""What no phase tells of."""


@dataclass(frozen=True, slots=True)
class Span:
    """One phase; seconds count from the beginning: the decision to start, or what was done for it before that."""

    phase: str
    began_s: float
    ended_s: float
    within: str = ""
    """The phase that it is a part of, such as the compilation of a warm-up; empty: none."""

    @property
    def took_s(self) -> float:
        return self.ended_s - self.began_s


@dataclass(frozen=True, slots=True)
class Timeline:
    """Phases may overlap; what none covers is `other_s`."""

    spans: tuple[Span, ...] = ()
    total_s: float = 0.0
    lead_s: float = 0.0
    """How long before the decision to start it begins."""

    def seconds(self) -> dict[str, float]:
        """Of each phase that is no part of another, in the order in which they began."""
        found: dict[str, float] = {}
        for span in self.spans:
            if not span.within:
                found[span.phase] = round(found.get(span.phase, 0.0) + span.took_s, 4)
        return found

    @property
    def other_s(self) -> float:
        covered, end_s = 0.0, 0.0
        for span in sorted(self.spans, key=lambda each: each.began_s):
            covered += max(0.0, span.ended_s - max(span.began_s, end_s))
            end_s = max(end_s, span.ended_s)
        return max(0.0, self.total_s - covered)


def timeline(
    began_at: float,
    marks: Iterable[tuple[str, float]],
    parts: Iterable[tuple[str, str, float, float]] = (),
    until: float | None = None,
    before: Sequence[tuple[str, float, float]] = (),
) -> Timeline:
    """From the times at which phases ended, each of which began when the one before it ended.

    `parts`: name, the phase that it is a part of, begin and end. All times are of one clock, in any order; what ended
    before `began_at` is left out. `until`: the end of it all; None: that of the last phase. `before`: name, begin and
    end of what was done for this start before it was decided, such as fetching the model; it begins with that.
    """
    zero = min((begin for _, begin, _ in before), default=began_at)
    spans = [Span(phase, _since(zero, begin), _since(zero, end)) for phase, begin, end in before]
    last = began_at
    for phase, at in sorted(marks, key=lambda mark: mark[1]):
        if at >= began_at:
            spans.append(Span(phase, _since(zero, last), _since(zero, max(at, last))))
            last = max(at, last)
    inner = [
        Span(name, _since(zero, begin), _since(zero, end), within)
        for name, within, begin, end in parts
        if begin >= began_at
    ]
    whole = sorted([*spans, *inner], key=lambda span: (span.began_s, bool(span.within)))
    end = last if until is None else until
    return Timeline(tuple(whole), _since(zero, max(end, last)), _since(zero, began_at))


def as_rows(spans: Sequence[Span]) -> list[list[str | float]]:
    """As they are kept: phase, begin, end, the phase it is a part of."""
    return [[span.phase, span.began_s, span.ended_s, span.within] for span in spans]


def from_rows(rows: Iterable[Sequence[object]]) -> tuple[Span, ...]:
    """The inverse of `as_rows`."""
    return tuple(Span(str(phase), float(str(a)), float(str(b)), str(within)) for phase, a, b, within in rows)


def _since(began_at: float, at: float) -> float:
    return round(max(0.0, at - began_at), 4)
