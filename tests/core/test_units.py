"""Sizes and times as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliosd.core.units import GiB, format_bytes, format_seconds, parse_bytes, parse_seconds


@pytest.mark.parametrize(
    ("text", "n_bytes"), [("40GiB", 40 * GiB), ("1.5 g", 3 * GiB // 2), ("4096", 4096), ("1GB", 10**9), ("2k", 2048)]
)
def test_sizes(text: str, n_bytes: int) -> None:
    assert parse_bytes(text) == n_bytes


@pytest.mark.parametrize("text", ["", "GiB", "-1GiB", "4 apples", "1e9"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="as a size"):
        parse_bytes(text)


@given(st.integers(0, 2**60))
def test_written_sizes_read_back(n_bytes: int) -> None:
    assert abs(parse_bytes(format_bytes(n_bytes)) - n_bytes) <= max(1, n_bytes * 0.06)


def test_times() -> None:
    assert parse_seconds("250ms") == 0.25
    assert parse_seconds("5m") == 300.0
    assert [format_seconds(span) for span in (0.04, 1.94, 200, 7500)] == ["40 ms", "1.9 s", "3m 20s", "2h 05m"]
    with pytest.raises(ValueError, match="time span"):
        parse_seconds("soon")
