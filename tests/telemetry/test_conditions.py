"""Quantities and conditions over readings, and how they read in PromQL."""

import pytest
from prometheus_client.core import GaugeMetricFamily

from heliosd.telemetry.conditions import (
    Condition,
    Highest,
    Increase,
    Magnitude,
    Now,
    Quantity,
    Reading,
    Share,
    Sum,
    reading_of,
    span,
)

A, B = (("device", "a"),), (("device", "b"),)


def reading(at: float, **values: dict[tuple[tuple[str, str], ...], float]) -> Reading:
    return Reading(at, values)


def test_each_set_of_labels_is_judged_by_itself() -> None:
    now = reading(0, x={A: 5.0, B: 1.0})
    assert Condition(Now("x"), ">", 3).met([now]) == {A: 5.0}
    assert Condition(Now("x"), "<", 3).met([now]) == {B: 1.0}
    assert Condition(Now("x", B), ">", 3).met([now]) == {}
    assert Condition(Now("x", without=A), ">", 0).met([now]) == {B: 1.0}
    assert Condition(Now("nothing"), ">", 3).met([now]) == {}


def test_an_increase_is_counted_from_the_oldest_reading_of_its_window() -> None:
    history = [reading(at, n={A: value}) for at, value in ((0, 0.0), (50, 4.0), (100, 6.0))]
    assert Increase("n", 60).values(history) == {A: 2.0}
    assert Increase("n", 100).values(history) == {A: 6.0}


def test_a_counter_that_began_anew_has_grown_by_what_it_is() -> None:
    assert Increase("n", 60).values([reading(0, n={A: 9.0}), reading(10, n={A: 2.0})]) == {A: 2.0}


def test_the_highest_of_a_window_outlives_its_series() -> None:
    history = [reading(0, x={A: 1.0}), reading(30, x={A: 0.0, B: 0.0}), reading(60)]
    assert Highest("x", 60).values(history) == {A: 1.0, B: 0.0}
    assert Highest("x", 30).values(history) == {A: 0.0, B: 0.0}


def test_shares_sums_and_magnitudes_match_labels() -> None:
    now = [reading(0, part={A: -2.0, B: 1.0}, whole={A: 8.0, B: 0.0})]
    assert Share(Now("part"), Now("whole")).values(now) == {A: -0.25}
    assert Magnitude(Share(Now("part"), Now("whole"))).values(now) == {A: 0.25}
    assert Sum(Now("part"), Now("whole")).values(now) == {A: 6.0, B: 1.0}


@pytest.mark.parametrize(
    ("quantity", "promql"),
    [
        (Now("x", (("a", "b"),), (("c", "d"),)), 'x{a="b",c!="d"}'),
        (Increase("n_total", 900, (("a", "b"),)), 'increase(n_total{a="b"}[15m])'),
        (Highest("x", 90), "max_over_time(x[90s])"),
        (Magnitude(Share(Now("p"), Now("w"))), "abs(p / w)"),
        (Sum(Now("p"), Now("w")), "p + w"),
    ],
)
def test_quantities_in_promql(quantity: Quantity, promql: str) -> None:
    assert quantity.promql() == promql


def test_what_a_quantity_needs() -> None:
    quantity = Sum(Increase("n", 900), Share(Now("p"), Highest("w", 60)))
    assert quantity.names == {"n", "p", "w"}
    assert quantity.window_s == 900
    assert [span(seconds) for seconds in (15, 90, 60, 3600, 5400)] == ["15s", "90s", "1m", "1h", "90m"]


def test_a_reading_has_the_samples_that_are_wanted_and_no_empty_labels() -> None:
    family = GaugeMetricFamily("x", "", labels=["tier", "device"])
    family.add_metric(["", "a"], 3)
    found = reading_of(1.0, [family, GaugeMetricFamily("y", "", 4)], frozenset({"x"}))
    assert found == Reading(1.0, {"x": {A: 3.0}})
