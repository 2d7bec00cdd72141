"""Whose request is served next: deficit round robin over keys, by tokens.

In each round a key may spend a quantum of tokens times its share, and what it could not spend for its next request is
carried over, as long as it has requests waiting. In which round a request will be served follows from what its key has
asked for before it, so it is worked out on arrival: `ceil((spent + work) / (quantum · share))` rounds after the
one in which the key began to wait. Who leaves before he was served spends nothing: those of his key behind him move up
by what he would have cost. Shreedhar and Varghese, Efficient Fair Queuing using Deficit Round Robin, 1996.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from heliosd.core.messages import Terms

QUANTUM_TOKENS = 4096


@dataclass(slots=True)
class Turn:
    """When a request will be served, in rounds and their fractions."""

    key: str
    since: int
    """The round that was served when it came: its turn begins no earlier."""
    begins: float
    cost: float

    @property
    def ends(self) -> float:
        return self.begins + self.cost

    @property
    def round(self) -> int:
        """The one in which it is served."""
        return math.ceil(self.ends)


@dataclass
class FairShare:
    """The rounds of all keys that have requests waiting."""

    round: int = 0
    """The one that is being served."""
    spent: dict[str, float] = field(default_factory=dict)
    """The round, with its fraction, up to which each key has asked; one that lags behind `round` has no claim to it."""

    def enter(self, terms: Terms) -> Turn:
        """The turn of a request that comes now."""
        begins = max(float(self.round), self.spent.get(terms.key, 0.0))
        turn = Turn(terms.key, self.round, begins, max(1, terms.work_tokens) / (QUANTUM_TOKENS * terms.share))
        self.spent[terms.key] = turn.ends
        return turn

    def refund(self, left: Turn, behind: Iterable[Turn]) -> None:
        """A request left unserved. `behind`: the turns of its key that came later and still wait, in their order."""
        saved = left.cost
        for turn in behind:
            begins = max(float(turn.since), turn.begins - saved)
            saved, turn.begins = turn.begins - begins, begins
        if left.key in self.spent:
            self.spent[left.key] -= saved

    def served(self, round_: int) -> None:
        """A request of this round was served: the rounds before it are over."""
        if round_ - 1 > self.round:
            self.round = round_ - 1
            self.spent = {key: ends for key, ends in self.spent.items() if ends > self.round}
