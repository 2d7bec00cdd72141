"""How the command line shows starts."""

import json

from tests.heliosctl.stand_in_replies import Refusal


def test_timeline_draws_where_each_phase_was_and_what_is_missing(daemon, ctl):
    ended = ctl("timeline", "org/small")
    assert ended.code == 0
    title, fork, warm_up, capture, other = ended.out.splitlines()
    assert title == "r1 of org/small started in 4.0 s"
    assert fork.split() == ["fork", "500", "ms", "12%", "#" * 6]
    assert warm_up.index("#") - fork.index("#") == 18, "1.5 of 4 s in 48 cells"
    assert capture.startswith("    capture") and capture.count("#") == 12
    assert other.split() == ["other", "1.0", "s", "25%"]


def test_timeline_as_json_is_the_bodys_own(daemon, ctl):
    assert json.loads(ctl("timeline", "r1", "-o", "json").out) == json.loads(daemon.timeline.model_dump_json())
    daemon.refusals["GET /helios/v1/replicas/r9/timeline"] = Refusal(404, "replica_not_found", "cannot show r9")
    assert ctl("timeline", "r9").code == 4


def test_load_tells_each_phase_as_it_ends_and_then_all(daemon, ctl):
    ended = ctl("load", "org/small", "--timeline")
    assert ended.code == 0
    assert ended.err.splitlines() == [
        "+500 ms  fork took 500 ms, 400 ms expected; 3.0 s left",
        "+4.0 s  warm_up took 2.5 s",
        "+3.0 s  capture took 1.0 s",
    ]
    assert ended.out.startswith("r1 of org/small started in 4.0 s\n")
    assert daemon.asked[-1][3] == {"model": "org/small", "stream": True}


def test_of_a_replica_that_was_ready_only_the_chart_is_shown(daemon, ctl):
    daemon.early = False
    ended = ctl("load", "org/small", "--timeline")
    assert (ended.err, ended.out.splitlines()[0]) == ("", "r1 of org/small started in 4.0 s")


def test_load_with_a_timeline_fails_as_without(daemon, ctl):
    daemon.cut = True
    assert "ended the answer early" in ctl("load", "org/small", "--timeline").err
    daemon.add_error = Refusal(503, "engine_failed", "cannot start org/small: no such kernel")
    ended = ctl("load", "org/small", "--timeline")
    assert ended.code != 0 and "no such kernel" in ended.err
