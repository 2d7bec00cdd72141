"""Answers are kept by content for a while."""

import pytest

from heliosd.errors import BadRequest
from heliosd.estimation.service import EstimateCache, content_digest
from tests.estimation.config_mutations import nested


class Counting:
    """Makes answers and says how many were made."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self) -> int:
        self.made += 1
        return self.made


def test_asked_again_it_is_not_made_again() -> None:
    cache, make = EstimateCache[int](), Counting()
    assert [cache.get("k", make, now_s) for now_s in (0.0, 1.0, 2.0)] == [1, 1, 1]
    assert (cache.counts.hits, cache.counts.misses, cache.counts.evicted) == (2, 1, 0)


def test_a_while_is_the_time_to_live() -> None:
    cache, make = EstimateCache[int](ttl_s=10), Counting()
    assert cache.get("k", make, 0.0) == 1
    assert cache.get("k", make, 9.9) == 1, "an answer is not younger for being used"
    assert cache.get("k", make, 10.0) == 2
    assert cache.get("k", make, 19.9) == 2
    assert len(cache) == 1


def test_the_least_recently_used_goes_first() -> None:
    cache, make = EstimateCache[int](capacity=2), Counting()
    for key in ("x", "y", "x", "z"):
        cache.get(key, make, 0.0)
    assert cache.counts.evicted == 1
    assert cache.get("x", make, 0.0) == 1
    assert cache.get("y", make, 0.0) == 4, "y was thrown out"
    assert len(cache) == 2


def test_what_fails_is_not_kept() -> None:
    cache, make = EstimateCache[int](), Counting()

    def fails() -> int:
        raise BadRequest("cannot do it", code="bad_config")

    with pytest.raises(BadRequest):
        cache.get("k", fails, 0.0)
    assert len(cache) == 0
    assert cache.get("k", make, 0.0) == 1


@pytest.mark.parametrize(("capacity", "ttl_s"), [(0, 1.0), (1, 0.0)])
def test_a_cache_without_room_or_time(capacity: int, ttl_s: float) -> None:
    with pytest.raises(ValueError, match="cannot keep"):
        EstimateCache[int](capacity, ttl_s)


def test_digests_tell_contents_apart_whatever_their_order() -> None:
    assert content_digest({"a": 1, "b": [2]}) == content_digest({"b": [2], "a": 1})
    assert content_digest({"a": 1}) != content_digest({"a": 2})
    assert content_digest(b"x") != content_digest(b"y")
    with pytest.raises(BadRequest, match="cannot read the configuration"):
        content_digest(nested(100_000))
