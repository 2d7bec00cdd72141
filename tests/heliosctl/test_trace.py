"""How the command line shows a trace."""

import json

from tests.heliosctl.stand_in_replies import Refusal


def test_a_trace_is_a_tree_with_reasons_errors_and_what_is_missing(daemon, ctl):
    ended = ctl("trace", "t-1")
    assert ended.code == 0
    title, root, wait, why, start, failed, link, fork, missing, more = ended.out.splitlines()
    assert title.startswith("trace 4bf92f3577b34da6a3ce929d0e0e4736, ") and title.endswith(", 4.0 s")
    assert root.split() == ["POST", "/v1/chat/completions", "4.0", "s", "#" * 40]
    assert wait.split() == ["wait", "2.0", "s", "#" * 20] and why == "    because: r1 is busy"
    assert start.split() == ["start", "r2", "3.0", "s", "#" * 30], "it is under way until now"
    assert start.index("#") - root.index("#") == 10
    assert (failed, link) == ("    failed: no such kernel", "    see also: trace 5bf92f3577b34da6a3ce929d0e0e4736")
    assert fork.startswith("    fork") and fork.count("#") == 5
    assert (missing, more) == ("1.0 s are in none of these spans", "3 more spans were not kept")


def test_wide_adds_what_spans_know_and_json_is_the_body_s_own(daemon, ctl):
    wide = ctl("trace", "t-1", "-o", "wide").out.splitlines()
    assert "    helios.predicted_bytes = 1.0 MiB" in wide and "    helios.evicted = stop r1, stop r3" in wide
    assert json.loads(ctl("trace", "t-1", "-o", "json").out) == json.loads(daemon.trace.model_dump_json())
    daemon.refusals["GET /helios/v1/traces/t-9"] = Refusal(404, "trace_not_found", "cannot show the trace of t-9")
    assert ctl("trace", "t-9").code == 4
