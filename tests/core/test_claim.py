"""Who asked decides before what is asked for, and a wish only lowers."""

import pytest

from heliosd.core.claim import Claim
from heliosd.core.messages import Priority, Terms

LOW, NORMAL, HIGH = Priority


@pytest.mark.parametrize(
    ("own", "wished", "of_model", "expected"),
    [
        (None, None, NORMAL, NORMAL),
        (None, None, HIGH, HIGH),
        (None, None, LOW, LOW),
        (None, LOW, HIGH, LOW),
        (None, HIGH, NORMAL, NORMAL),
        (None, HIGH, HIGH, HIGH),
        (LOW, None, HIGH, LOW),
        (LOW, HIGH, HIGH, LOW),
        (HIGH, None, LOW, HIGH),
        (HIGH, NORMAL, LOW, NORMAL),
        (NORMAL, None, HIGH, NORMAL),
    ],
)
def test_a_key_bounds_the_class(own: Priority | None, wished: Priority | None, of_model: Priority, expected: Priority):
    assert Claim("k", own=own, wished=wished, bounded=True).terms(of_model).priority is expected


@pytest.mark.parametrize("wished", Priority)
def test_without_keys_anything_goes(wished: Priority) -> None:
    assert Claim(wished=wished).terms(LOW).priority is wished


def test_the_rest_is_as_it_was_claimed() -> None:
    claim = Claim("k", 2.0, None, None, True, 7, (1, 2))
    assert claim.terms(HIGH) == Terms("k", 2.0, HIGH, 7, (1, 2))
