"""A key is told how much it has used of what, and when it is renewed."""

from datetime import UTC, datetime

import pytest

from heliosd.core.budgets import Budget, Spent, exhausted, renewal

NOW = datetime(2026, 12, 31, 18, 0, tzinfo=UTC)


def test_without_a_limit_nothing_is_exhausted() -> None:
    assert exhausted("k", Budget(), Spent(1e9, 1e9, 10**12), NOW, "EUR") is None


@pytest.mark.parametrize(
    ("budget", "spent", "words"),
    [
        (Budget(tokens_per_day=1000), Spent(day_tokens=1000), "1,000 of 1,000 tokens of 2026-12-31"),
        (Budget(5.0, "day"), Spent(5.25, 5.25), "5.2500 of 5.0000 EUR of 2026-12-31"),
        (Budget(5.0, "month"), Spent(0.0, 6.0), "6.0000 of 5.0000 EUR of 2026-12 (UTC)"),
    ],
)
def test_what_is_used_up_is_told_with_the_arithmetic(budget: Budget, spent: Spent, words: str) -> None:
    found = exhausted("ann", budget, spent, NOW, "EUR")
    assert found is not None
    assert words in found.message and found.message.startswith("cannot") and "'ann'" in found.message
    assert "2027-01-01 00:00 UTC" in found.message
    assert found.renewed_in_s == 6 * 3600


def test_less_than_the_limit_is_not_used_up() -> None:
    assert exhausted("k", Budget(5.0, "month", 10), Spent(4.0, 4.99, 9), NOW, "EUR") is None
    assert exhausted("k", Budget(5.0, "day"), Spent(4.0, 100.0), NOW, "EUR") is None


def test_periods_end_with_the_day_and_the_month() -> None:
    assert renewal("day", datetime(2028, 2, 28, 23, 59, tzinfo=UTC)) == datetime(2028, 2, 29, tzinfo=UTC)
    assert renewal("month", datetime(2027, 1, 31, tzinfo=UTC)) == datetime(2027, 2, 1, tzinfo=UTC)
