"""That the screen is really fed and drawn while its share of a core is measured; how large that is, the bench tells."""

import pytest

from tests.bench.tui_share import BUSY, MODELS, busy, measure, rows_of, snapshot


def test_of_a_thousand_replicas_a_hundred_work_and_each_time_others() -> None:
    told = [[row.id for row in snapshot(turn).replicas if row.leases] for turn in (0, 1)]
    assert [len(ids) for ids in told] == [BUSY, BUSY]
    assert told[0] != told[1]
    assert len(snapshot(0).replicas) == MODELS and sum(busy(3, number) for number in range(MODELS)) == BUSY


@pytest.mark.slow
async def test_the_screen_draws_while_it_is_measured() -> None:
    found = await measure(2.0, ["replicas"])
    share, drawn = found["replicas"]
    assert share > 0 and drawn > 0
    assert rows_of(found)[0][0] == "screen replicas, 1000 models, 2 Hz"
