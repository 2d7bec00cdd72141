"""Keys share by tokens, whatever each of them asks for."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from heliosd.core.fair_share import QUANTUM_TOKENS, FairShare
from heliosd.core.messages import Terms


def order(asked: list[Terms]) -> list[Terms]:
    """Who is served in which order when all of them come at once."""
    fair = FairShare()
    rounds = [(fair.enter(terms), number) for number, terms in enumerate(asked)]
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
        fair.served(fair.enter(Terms("a", work_tokens=QUANTUM_TOKENS)))
    assert fair.enter(Terms("b", work_tokens=1)) >= fair.round
    assert len(fair.spent) <= 2, "keys that are served are forgotten"


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
