"""A start as a line of phases: nothing of it is lost between two marks."""

import json

from heliosd.core.timeline import Span, Timeline, as_rows, from_rows, timeline


def test_a_phase_begins_where_the_one_before_it_ended_in_whatever_order_they_are_told() -> None:
    told = timeline(100.0, [("weights", 103.0), ("fork", 100.5), ("ready", 103.5)])
    assert told.spans == (Span("fork", 0.0, 0.5), Span("weights", 0.5, 3.0), Span("ready", 3.0, 3.5))
    assert (told.total_s, told.other_s) == (3.5, 0.0)
    assert told.seconds() == {"fork": 0.5, "weights": 2.5, "ready": 0.5}


def test_what_no_phase_covers_is_other() -> None:
    assert timeline(0.0, [("fork", 1.0)], until=5.0).other_s == 4.0
    assert Timeline((Span("a", 1.0, 3.0), Span("b", 2.0, 4.0)), 10.0).other_s == 7.0, "overlapping phases count once"


def test_a_part_of_a_phase_is_shown_within_it_and_counted_once() -> None:
    told = timeline(0.0, [("weights", 2.0), ("warm_up", 6.0)], [("compile", "warm_up", 2.5, 5.0)])
    assert [(span.phase, span.within) for span in told.spans] == [
        ("weights", ""), ("warm_up", ""), ("compile", "warm_up"),
    ]  # fmt: skip
    assert told.seconds() == {"weights": 2.0, "warm_up": 4.0}
    assert told.other_s == 0.0


def test_spans_come_back_from_what_is_kept_of_them() -> None:
    spans = (Span("fork", 0.0, 0.5), Span("compile", 0.1, 0.2, "fork"))
    assert from_rows(json.loads(json.dumps(as_rows(spans)))) == spans


def test_it_begins_with_what_was_done_for_it_before_the_decision() -> None:
    told = timeline(100.0, [("fork", 101.0)], [("x", "fork", 100.2, 100.4)], 102.0, [("fetch", 90.0, 99.0)])
    assert told.spans == (
        Span("fetch", 0.0, 9.0), Span("fork", 10.0, 11.0), Span("x", 10.2, 10.4, "fork"),
    )  # fmt: skip
    assert (told.total_s, told.lead_s, told.other_s) == (12.0, 10.0, 2.0)
