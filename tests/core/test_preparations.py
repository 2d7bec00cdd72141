"""What was done for a model before its start: whose start shows it, and what is left of it."""

import pytest

from heliosd.core.preparations import FOLLOWS_S, KEPT_EACH, Preparations, Prepared, UnderWay

MB = 1_000_000


def fetched(*, asked: bool = True, source: str = "hub") -> Preparations:
    """100 MB in ten seconds, verified in two more, asked for meanwhile."""
    known = Preparations()
    known.told("m", UnderWay("list", 0.0, source=source))
    known.told("m", UnderWay("fetch", 1.0, 0, 100 * MB, None, source))
    if asked:
        known.wanted("m")
    known.told("m", UnderWay("fetch", 6.0, 50 * MB, 100 * MB, 10 * MB, source))
    known.told("m", UnderWay("verify", 11.0, 100 * MB, 100 * MB, None, source))
    known.told("m", UnderWay("commit", 13.0, 100 * MB, 100 * MB, None, source))
    known.over("m", 13.5)
    return known


def test_the_start_of_who_asked_meanwhile_shows_each_phase_without_a_gap() -> None:
    assert [(each.phase, each.began_at, each.ended_at) for each in fetched().before("m", 14.0)] == [
        ("list", 0.0, 1.0), ("fetch", 1.0, 11.0), ("verify", 11.0, 13.0), ("commit", 13.0, 13.5), ("ask", 13.5, 14.0),
    ]  # fmt: skip


def test_a_fetch_is_news_once_and_only_for_who_waited_for_it() -> None:
    known = fetched()
    assert known.before("m", 14.0)
    assert known.before("m", 14.0) == ()
    assert fetched().before("m", 13.5 + FOLLOWS_S + 0.1) == ()
    assert fetched(asked=False).before("m", 14.0) == ()
    nobody = Preparations()
    nobody.wanted("m")
    assert nobody.before("m", 1.0) == ()


def test_a_second_fetch_tells_nothing_of_the_first() -> None:
    known = fetched()
    known.told("m", UnderWay("list", 20.0))
    known.over("m", 21.0)
    assert known.before("m", 21.0) == ()


def test_a_model_that_goes_to_and_fro_without_a_start_is_not_kept_for_ever() -> None:
    known = Preparations()
    for number in range(100):
        known.staged("m", float(number), number + 0.5, MB)
    assert len(known.done["m"]) == KEPT_EACH


def test_what_was_staged_just_before_is_shown() -> None:
    known = Preparations()
    known.staged("m", 5.0, 8.0, 30 * MB)
    assert known.before("m", 9.0) == (Prepared("stage", 5.0, 8.0, 30 * MB), Prepared("ask", 8.0, 9.0))


@pytest.mark.parametrize(
    ("now", "at", "left_s"),
    [
        (UnderWay("list", 100.0, source="hub"), 100.0, None),
        (UnderWay("fetch", 100.0, 20 * MB, 60 * MB, None, "hub"), 100.0, 4.0 + 1.2),
        (UnderWay("fetch", 100.0, 20 * MB, 60 * MB, 20 * MB, "hub"), 100.0, 2.0 + 1.2),
        (UnderWay("fetch", 100.0, 20 * MB, 60 * MB, 20 * MB, "directory"), 100.0, 2.0),
        (UnderWay("fetch", 100.0, 20 * MB, 60 * MB, None, "directory"), 100.0, None),
        (UnderWay("verify", 100.0, 60 * MB, 60 * MB, None, "hub"), 100.5, 0.7),
        (UnderWay("verify", 100.0, 60 * MB, 60 * MB, None, "hub"), 109.0, 0.0),
        (UnderWay("commit", 100.0, 60 * MB, 60 * MB, None, "hub"), 100.0, 0.0),
    ],
)
def test_what_is_left_is_bytes_by_the_speed_of_late_or_that_of_earlier_ones_from_there(
    now: UnderWay, at: float, left_s: float | None
) -> None:
    known = fetched()
    known.told("new", now)
    assert known.left_s("new", at) == (None if left_s is None else pytest.approx(left_s))
    assert known.left_s("nobody", at) is None
