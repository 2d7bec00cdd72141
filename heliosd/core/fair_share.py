"""Whose request is served next: deficit round robin over keys, by tokens.

In each round a key may spend a quantum of tokens times its share, and what it could not spend for its next request is
carried over, as long as it has requests waiting. In which round a request will be served follows from what its key has
asked for before it, so it is worked out once, on arrival: `ceil((spent + work) / (quantum · share))` rounds after the
one in which the key began to wait. Shreedhar and Varghese, Efficient Fair Queuing using Deficit Round Robin, 1996.
"""

import math
from dataclasses import dataclass, field

from heliosd.core.messages import Terms

QUANTUM_TOKENS = 4096


@dataclass
class FairShare:
    """The rounds of all keys that have requests waiting."""

    round: int = 0
    """The one that is being served."""
    spent: dict[str, float] = field(default_factory=dict)
    """The round, with its fraction, up to which each key has asked; one that lags behind `round` has no claim to it."""

    def enter(self, terms: Terms) -> int:
        """The round in which a request that comes now is served."""
        began = max(float(self.round), self.spent.get(terms.key, 0.0))
        ends = began + max(1, terms.work_tokens) / (QUANTUM_TOKENS * terms.share)
        self.spent[terms.key] = ends
        return math.ceil(ends)

    def served(self, round_: int) -> None:
        """A request of this round was served: the rounds before it are over."""
        if round_ - 1 > self.round:
            self.round = round_ - 1
            self.spent = {key: ends for key, ends in self.spent.items() if ends > self.round}
