"""The measurement itself, on a small file."""

from pathlib import Path

from heliosd.core.units import MiB
from tests.bench.store_ingest import Ingest, measure


def test_it_measures_both_states_and_leaves_nothing(tmp_path: Path) -> None:
    found = measure(tmp_path, 2 * MiB, rounds=1)
    assert list(found) == ["cold", "warm"]
    assert all(each.store_s > 0 and each.tools_s > 0 for each in found.values())
    assert list(tmp_path.iterdir()) == []


def test_twice_as_fast_is_two() -> None:
    assert Ingest(store_s=1.0, tools_s=2.0).ratio == 2.0
