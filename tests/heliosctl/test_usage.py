"""How the command line shows what was used, and asks for files of it."""

import pytest

from heliosd.wire import UsageRow

ANN = UsageRow(
    key="ann", model="org/m", currency="EUR", requests=1200, prompt_tokens=5000, cached_tokens=100,
    completion_tokens=70, gib_s=7200.0, memory_cost=1.0, prompt_cost=0.5, completion_cost=0.25, cost=1.75,
)  # fmt: skip


def test_a_table_by_key_unless_told_otherwise(daemon, ctl):
    daemon.usage = daemon.usage.model_copy(
        update={"usage": [ANN], "engine_prompt_tokens": 5000, "engine_completion_tokens": 70}
    )
    ended = ctl("usage")
    assert "by=key" in daemon.asked[-1][2] or daemon.asked[-1][2] == {"by": "key"}
    assert [line.split() for line in ended.out.splitlines()] == [
        ["KEY", "REQUESTS", "PROMPT", "CACHED", "ANSWERS", "GIB-HOURS", "COST"],
        ["ann", "1,200", "5,000", "100", "70", "2.000", "1.75", "EUR"],
    ]
    assert ended.err == ""
    wide = ctl("usage", "--by", "model", "-o", "wide").out.splitlines()
    assert wide[1].split()[0] == "org/m" and wide[1].split()[-4:] == ["1.00", "0.75", "1.75", "EUR"]


def test_a_difference_to_the_engines_is_told(daemon, ctl):
    daemon.usage = daemon.usage.model_copy(
        update={"usage": [ANN], "engine_prompt_tokens": 5001, "engine_completion_tokens": 70}
    )
    assert ctl("usage").err == "metered 5,070 tokens; the engines' own counters say 5,071\n"


def test_nothing_used_is_told(daemon, ctl):
    assert ctl("usage").out == "nothing was used from 2026-11-01 to 2026-11-26 (UTC)\n"


@pytest.mark.parametrize("kind", ["csv", "focus"])
def test_files_are_the_daemons(daemon, ctl, kind):
    assert ctl("usage", "-o", kind).out == f"a file\nas {kind}\n"


def test_an_unknown_format_is_a_usage_error(daemon, ctl):
    assert ctl("usage", "-o", "pdf").code == 2
