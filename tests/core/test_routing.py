"""Requests with a known beginning go to the replica that knows it, unless that one is too busy."""

from dataclasses import dataclass, field

from heliosd.core.names import ReplicaId
from heliosd.core.routing import REMEMBERED, Prefixes, choose


@dataclass
class Candidate:
    id: ReplicaId
    load: int = 0
    prefixes: Prefixes = field(default_factory=Prefixes)


def two() -> tuple[Candidate, Candidate]:
    return Candidate(ReplicaId("r1")), Candidate(ReplicaId("r2"))


def test_the_longest_known_beginning_wins() -> None:
    one, other = two()
    one.prefixes.read((1,))
    other.prefixes.read((1, 2))
    assert choose([one, other], (1, 2, 3)) is other
    assert choose([one, other], (1, 9)) in (one, other)


def test_without_a_known_beginning_the_idlest_serves() -> None:
    one, other = two()
    one.load = 3
    assert choose([one, other], (7,)) is other
    assert choose([], (7,)) is None


def test_a_busy_one_is_left_alone_though_it_knows() -> None:
    one, other = two()
    one.prefixes.read((1, 2))
    one.load, other.load = 12, 2
    assert choose([one, other], (1, 2)) is other


def test_what_is_remembered_is_bounded() -> None:
    prefixes = Prefixes()
    prefixes.read(tuple(range(3 * REMEMBERED)))
    assert len(prefixes.known) == REMEMBERED
    assert prefixes.shared((0,)) == 0
    assert prefixes.shared((3 * REMEMBERED - 1,)) == 1
