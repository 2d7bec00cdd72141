"""Keys share by tokens, whatever each of them asks for."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heliosd.core.fair_share import QUANTUM_TOKENS, FairShare
from heliosd.core.messages import Terms


def order(asked: list[Terms]) -> list[Terms]:
    """Who is served in which order when all of them come at once."""
    fair = FairShare()
    rounds = [(fair.enter(terms).round, number) for number, terms in enumerate(asked)]
    return [asked[number] for _, number in sorted(rounds)]


def test_one_key_is_served_in_order_of_arrival() -> None:
    asked = [Terms("a", work_tokens=tokens) for tokens in (9000, 10, 3000, 1)]
    assert order(asked) == asked


def test_a_flood_does_not_hold_up_another_key() -> None:
    served = order([Terms("flood", work_tokens=2000)] * 100 + [Terms("other", work_tokens=2000)])
    assert served.index(Terms("other", work_tokens=2000)) <= 2


def test_a_share_of_four_is_served_four_times_as_much() -> None:
    asked = [Terms("a", 1.0, work_tokens=1024)] * 400 + [Terms("b", 4.0, work_tokens=1024)] * 400
    first = Counter(terms.key for terms in order(asked)[:200])
    assert 3.5 <= first["b"] / first["a"] <= 4.5


def test_who_comes_late_has_no_claim_to_the_past() -> None:
    fair = FairShare()
    for _ in range(100):
        fair.served(fair.enter(Terms("a", work_tokens=QUANTUM_TOKENS)).round)
    assert fair.enter(Terms("b", work_tokens=1)).round >= fair.round
    assert len(fair.spent) <= 2, "keys that are served are forgotten"


def test_who_leaves_unserved_has_spent_nothing_and_those_behind_move_up() -> None:
    fair = FairShare()
    large, small = Terms("a", work_tokens=50 * QUANTUM_TOKENS), Terms("a", work_tokens=QUANTUM_TOKENS)
    gone, behind = fair.enter(large), fair.enter(small)
    assert (gone.round, behind.round) == (50, 51)
    fair.refund(gone, [behind])
    assert (behind.round, fair.enter(small).round) == (1, 2)


def test_nobody_moves_up_to_before_he_came() -> None:
    fair = FairShare()
    gone = fair.enter(Terms("a", work_tokens=5 * QUANTUM_TOKENS))
    fair.served(4)
    behind = fair.enter(Terms("a", work_tokens=QUANTUM_TOKENS))
    fair.refund(gone, [behind])
    assert (behind.begins, behind.round) == (3.0, 4)
    assert fair.enter(Terms("a", work_tokens=QUANTUM_TOKENS)).round == 5


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(1, 20_000), st.booleans()), min_size=1, max_size=30))
def test_a_key_is_served_as_if_those_that_left_had_never_come(asked: list[tuple[int, bool]]) -> None:
    fair, without = FairShare(), FairShare()
    turns = [fair.enter(Terms("a", work_tokens=tokens)) for tokens, _ in asked]
    for at, (_, leaves) in enumerate(asked):
        if leaves:
            fair.refund(turns[at], [turn for turn, (_, gone) in zip(turns[at + 1 :], asked[at + 1 :], strict=True)])
    stayed = [turn.ends for turn, (_, leaves) in zip(turns, asked, strict=True) if not leaves]
    alone = [without.enter(Terms("a", work_tokens=tokens)).ends for tokens, leaves in asked if not leaves]
    assert stayed == pytest.approx(alone)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 20_000)), min_size=1, max_size=60))
def test_no_key_gets_ahead_of_its_share_by_more_than_a_quantum_and_a_request(asked: list[tuple[str, int]]) -> None:
    """While two keys both have requests waiting, what they were served differs by a quantum and the largest request."""
    served = order([Terms(key, work_tokens=tokens) for key, tokens in asked])
    left = Counter(key for key, _ in asked)
    got: Counter[str] = Counter()
    largest = max(tokens for _, tokens in asked)
    for terms in served:
        got[terms.key] += terms.work_tokens
        left[terms.key] -= 1
        waiting = [key for key, n in left.items() if n]
        if len(waiting) > 1:
            assert max(got[key] for key in waiting) - min(got[key] for key in waiting) <= QUANTUM_TOKENS + 2 * largest
