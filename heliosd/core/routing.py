"""Which of several ready replicas serves a request: the one that knows most of its prompt, unless it is too busy."""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from heliosd.core.names import ReplicaId

REMEMBERED = 4096
"""Beginnings of prompts that a replica is taken to still have in its prefix cache."""
MOST_AHEAD = 1.5
"""A replica that knows the prompt is left alone when it has so many times the requests of the idlest, and two more."""


@dataclass
class Prefixes:
    """What a replica has read lately."""

    known: "OrderedDict[int, None]" = field(default_factory=OrderedDict)

    def read(self, prefix: tuple[int, ...]) -> None:
        for each in prefix:
            self.known[each] = None
            self.known.move_to_end(each)
        while len(self.known) > REMEMBERED:
            self.known.popitem(last=False)

    def shared(self, prefix: tuple[int, ...]) -> int:
        """How many of the ever longer beginnings it has read."""
        for length in range(len(prefix), 0, -1):
            if prefix[length - 1] in self.known:
                return length
        return 0


class Choice(Protocol):
    """A ready replica with room for one more request."""

    @property
    def id(self) -> ReplicaId: ...
    @property
    def load(self) -> int: ...
    @property
    def prefixes(self) -> Prefixes: ...


C = TypeVar("C", bound=Choice)


def choose(ready: Iterable[C], prefix: tuple[int, ...]) -> C | None:
    """The best of `ready`; None when there is none."""
    candidates = sorted(ready, key=lambda each: (each.load, each.id))
    if not candidates:
        return None
    idlest = candidates[0]
    shared = {each.id: each.prefixes.shared(prefix) for each in candidates}
    knows = max(candidates, key=lambda each: (shared[each.id], -each.load))
    if not shared[knows.id] or knows.load > idlest.load * MOST_AHEAD + 2:
        return idlest
    return knows
