"""Which models are asked for after which: "after a, b within the minute". Counts of first order, fading and bounded.

Only a model that wakes counts, one that was not asked for in the last minute: what is always asked for tells nothing.
"""

from dataclasses import dataclass, field

WINDOW_S = 60.0
MOST_RECENT = 16
MOST_SUCCESSORS = 8
FADE = 0.97
"""Of what is known of a model's successors, kept each time it wakes."""
DOUBT = 3.0
"""Times it was not followed, that are thought of beside those seen."""


@dataclass(slots=True)
class Successors:
    """Of one model."""

    wakes: float = 0.0
    follows: dict[str, float] = field(default_factory=dict)
    """By model: how often it followed."""

    def woke(self) -> None:
        self.wakes = self.wakes * FADE + 1
        for model in self.follows:
            self.follows[model] *= FADE

    def followed(self, model: str) -> None:
        """Of too many successors, the one that followed least often gives way."""
        if model not in self.follows and len(self.follows) >= MOST_SUCCESSORS:
            del self.follows[min(self.follows, key=lambda each: self.follows[each])]
        self.follows[model] = self.follows.get(model, 0.0) + 1

    def chance(self, model: str) -> float:
        """That `model` follows within `WINDOW_S`. Once may be chance, so the first time counts for nothing."""
        return max(0.0, self.follows.get(model, 0.0) - 1) / (self.wakes + DOUBT - 1)


@dataclass
class Sequences:
    """Of all models."""

    known: dict[str, Successors] = field(default_factory=dict)
    recent: list[tuple[float, str]] = field(default_factory=list)
    """Who woke last, and when."""

    def woke(self, model: str, at: float) -> None:
        for since, before in self.recent:
            if at - since <= WINDOW_S and before != model and before in self.known:
                self.known[before].followed(model)
        self.known.setdefault(model, Successors()).woke()
        self.recent = [*self.recent[-MOST_RECENT + 1 :], (at, model)]

    def expected(self, at: float) -> dict[str, tuple[float, str]]:
        """Who is likely to follow those that woke within the last minute: the probability, and after whom."""
        found: dict[str, tuple[float, str]] = {}
        for since, before in self.recent:
            left = 1 - (at - since) / WINDOW_S
            if left <= 0:
                continue
            successors = self.known.get(before)
            if successors is None:
                continue
            for model in successors.follows:
                whole = successors.chance(model)
                chance = whole * left / (1 - whole * (1 - left))  # they come at any time of the window alike
                if chance > found.get(model, (0.0, ""))[0]:
                    found[model] = (chance, before)
        return found

    def forget(self, model: str) -> None:
        self.known.pop(model, None)
