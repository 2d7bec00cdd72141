"""Moves that make room are found when there are any, and are the cheapest, as an exact solver says."""

from tests.bench.defragment import scored


def test_moves_are_found_and_hardly_any_cheaper_ones_exist() -> None:
    score, _ = scored(60, seed=7)
    assert score.within >= 30
    assert score.found_within >= 0.9 * score.within
    assert score.cheapest >= 0.95 * score.found_within
    assert score.ours_s <= 1.02 * score.best_s
