"""How many requests a replica works on at once: the most that it did of late, which fades. Values in, values out."""

import math
from dataclasses import dataclass

HALF_LIFE_S = 86_400.0
TELLING = 20
"""After fewer requests nobody knows: the next may come a hundred at a time."""
HEADROOM = 2
"""So many times the most that was seen may come."""
LEAST = 8


@dataclass
class Crowd:
    """Of one model. Written by the scheduler alone."""

    most: float = 0.0
    at: float = 0.0
    requests: int = 0

    def saw(self, load: int, at: float) -> None:
        """A request came, and with it so many are worked on."""
        self.most = max(float(load), self.faded(at))
        self.at = max(self.at, at)
        self.requests += 1

    def faded(self, at: float) -> float:
        return self.most * math.exp2(-max(0.0, at - self.at) / HALF_LIFE_S)

    def expected(self, at: float) -> int | None:
        """How many are to be expected at once at most, as a power of two so that it seldom changes: what is chosen by
        it, an engine compiles for. None: nobody knows."""
        if self.requests < TELLING:
            return None
        most = max(LEAST, HEADROOM * self.faded(at))
        return 1 << (math.ceil(most) - 1).bit_length()
