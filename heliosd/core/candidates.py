"""Which of many models are worth a question to the forecast right now, so that not all are asked each time.

They are those asked for last, those whose usual pause is about to end, and those that the running hour of the week is
known for. Who follows another comes from `sequences`.
"""

import heapq
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

LEAD_S = 60.0
"""How long before a peak of its pauses begins a model becomes a candidate."""
MOST_RECENT = 64
STEP_S = 10.0
"""While a model is due, it is looked at so often: its chance rises as its pause goes on."""
_LEAST_S = 1.0
"""Between two looks at one model."""

Peak = tuple[float, float]


@dataclass
class Candidates:
    """Written by `Forecast` alone."""

    recent: dict[str, None] = field(default_factory=dict)
    """In order: the last one asked for comes last."""
    due: set[str] = field(default_factory=set)
    this_hour: tuple[str, ...] = ()
    hour: int = -1
    _agenda: list[tuple[float, str]] = field(default_factory=list)
    """A heap. A time may be too early: what is true is found out when it comes."""
    _next: dict[str, float] = field(default_factory=dict)
    """The one time of each model that counts."""

    def asked(self, model: str) -> None:
        self.recent.pop(model, None)
        self.recent[model] = None
        if len(self.recent) > MOST_RECENT:
            del self.recent[next(iter(self.recent))]
        self.due.discard(model)

    def forget(self, model: str) -> None:
        self.recent.pop(model, None)
        self.due.discard(model)
        self._next.pop(model, None)

    def look_at(self, model: str, at: float) -> None:
        """Find out at that time whether it is due, or earlier if that was said before."""
        if at < self._next.get(model, math.inf):
            self._next[model] = at
            heapq.heappush(self._agenda, (at, model))

    @property
    def next_at(self) -> float:
        """When a model may become due, more likely, or no longer due; infinite: never."""
        return self._agenda[0][0] if self._agenda else math.inf

    def come_due(self, at: float, peak_of: Callable[[str], Peak | None]) -> None:
        """Take off the agenda what has come. `peak_of` says from when to when a model is likely, None: it is not."""
        while self._agenda and self._agenda[0][0] <= at:
            looked_at, model = heapq.heappop(self._agenda)
            if self._next.get(model) != looked_at:
                continue
            del self._next[model]
            peak = peak_of(model)
            if peak is None:
                self.due.discard(model)
            elif peak[0] - LEAD_S <= at:
                self.due.add(model)
                self.look_at(model, max(min(peak[1], at + STEP_S), at + _LEAST_S))
            else:
                self.due.discard(model)
                self.look_at(model, max(peak[0] - LEAD_S, at + _LEAST_S))

    def names(self, others: Iterable[str]) -> list[str]:
        """All of them, `others` first."""
        return list(dict.fromkeys((*others, *sorted(self.due), *self.recent, *self.this_hour)))
