"""Measurements of engines, and what they are good for."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlite_utils

from heliosd.core.messages import Footprint
from heliosd.core.start_forecast import SeenStart
from heliosd.core.timeline import Span
from heliosd.estimation.loads import Asked, Load
from heliosd.state.database import Database
from heliosd.state.migrations import steps
from heliosd.state.records import KEPT, KEPT_EACH, Measurement, Records

ONE = Measurement(
    "org/m", "rev", "vllm 1", "cuda", '{"seqs":8}', Footprint(1, 1, 1), Footprint(1, 1, 100), {"fork": 0.1}
)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    made = Database(tmp_path / "helios.db")
    await made.open()
    yield made
    await made.close()


def took(overhead_bytes: int, measurement: Measurement = ONE) -> Measurement:
    return replace(measurement, measured=Footprint(1, 1, overhead_bytes))


async def test_what_was_measured_before_settings_were_kept_says_nothing(database: Database) -> None:
    row = {"revision": "rev", "engine": "vllm 1", "device_kind": "cuda", "measured": '{"overhead_bytes": 5}'}
    await database.run(lambda db: db.table("measurements").insert(row) and None)
    assert await Records(database).loads() == []


async def test_only_the_last_of_each_are_kept(database: Database) -> None:
    records = Records(database)
    other = replace(ONE, revision="other")
    await records.add(took(1, other))
    for number in range(KEPT_EACH + 5):
        await records.add(took(number))
    rows = await database.run(lambda db: list(db.table("measurements").rows_where("revision = 'rev'")))
    assert len(rows) == KEPT_EACH
    loads = await records.loads()
    assert [load.asked.revision for load in loads] == ["other", *["rev"] * KEPT_EACH]
    assert [load.measured["overhead"] for load in loads[1:]] == list(range(5, KEPT_EACH + 5))


# ---- loads to learn from -----------------------------------------------------

FULL = replace(
    ONE,
    architecture="LlamaForCausalLM",
    device_name="NVIDIA L4",
    tensor_parallel=2,
    law={"weights": 10, "kv_cache": 20, "overhead": 30},
    features={"layers": 12.0},
    measured=Footprint(11, 22, 33),
)


async def test_a_load_comes_back_as_it_was_kept(database: Database) -> None:
    records = Records(database)
    await records.add(FULL)
    asked = Asked("vllm 1", "LlamaForCausalLM", "cuda", "NVIDIA L4", 2, ONE.arguments, "rev", {"layers": 12.0})
    measured = {"weights": 11, "kv_cache": 22, "overhead": 33}
    assert await records.loads() == [Load(asked, FULL.law, measured)]


async def test_loads_are_the_last_ones_in_their_order(database: Database) -> None:
    records = Records(database)
    for number in range(6):
        await records.add(took(number, FULL))
    assert [load.measured["overhead"] for load in await records.loads(4)] == [2, 3, 4, 5]


async def test_another_heliosses_law_is_not_ours_but_what_it_measured_is_true(database: Database) -> None:
    records = Records(database)
    await records.add(FULL)
    await database.run(lambda db: db.execute("update measurements set law_of = '0.0.1'") and None)
    (load,) = await records.loads()
    assert load.law == {}
    assert load.measured["weights"] == 11


async def test_what_older_versions_wrote_is_read(tmp_path: Path) -> None:
    path = tmp_path / "helios.db"
    old = sqlite_utils.Database(path)
    steps.apply(old, stop_before="loads_to_learn_from")
    footprint = json.dumps({"weights_bytes": 1, "kv_cache_bytes": 2, "overhead_bytes": 3})
    row = {"at": 1.0, "model": "m", "revision": "r", "engine": "vllm 1", "device_kind": "cuda", "phases": "{}"}
    row |= {"predicted": footprint, "measured": footprint}
    old.table("measurements").insert_all([row | {"arguments": None}, row | {"arguments": "{}"}])
    old.conn.close()

    database = Database(path)
    await database.open()
    records = Records(database)
    asked = Asked("vllm 1", "", "cuda", "", 1, "{}", "r")
    assert await records.loads() == [Load(asked, {}, {"weights": 1, "kv_cache": 2, "overhead": 3})]
    assert (await records.accuracy())["total"].count == 2
    await database.close()


async def test_there_is_an_end_to_what_is_kept(database: Database) -> None:
    records = Records(database)
    await records.add(ONE)

    def many(db: sqlite_utils.Database) -> None:
        (row,) = db.table("measurements").rows
        rows = ({**row, "id": None, "revision": f"r{number}"} for number in range(KEPT + 10))
        db.table("measurements").insert_all(rows)

    await database.run(many)
    await records.add(FULL)
    assert await database.run(lambda db: db.table("measurements").count) == KEPT
    assert (await records.loads(1))[0].asked.architecture == "LlamaForCausalLM"


# ---- accuracy ----------------------------------------------------------------


async def test_errors_are_told_by_term_and_in_total(database: Database) -> None:
    records = Records(database)
    booked = Footprint(1000, 0, 200)
    await records.add(replace(ONE, predicted=booked, measured=Footprint(1000, 0, 160)))
    await records.add(replace(ONE, predicted=booked, likely=Footprint(1000, 0, 190), measured=Footprint(1000, 0, 250)))
    found = await records.accuracy()
    assert (found["weights"].count, found["weights"].worst, found["weights"].under_share) == (2, 0.0, 0.0)
    overhead = found["overhead"]
    assert overhead.median == pytest.approx((0.25 + 60 / 250) / 2)
    assert overhead.worst == pytest.approx(0.25)
    assert overhead.under_share == 0.5
    assert found["total"].worst == pytest.approx(60 / 1250)


async def test_what_was_before_does_not_count(database: Database) -> None:
    records = Records(database)
    await records.add(ONE)
    await database.run(lambda db: db.execute("update measurements set at = 100") and None)
    await records.add(ONE)
    assert (await records.accuracy(since=101))["weights"].count == 1
    assert (await records.accuracy(since=100))["weights"].count == 2
    assert await records.accuracy(since=1e12) == {}


async def test_starts_come_back_phase_by_phase_oldest_first_and_those_of_older_versions_do_not(
    database: Database,
) -> None:
    records = Records(database)
    spans = (Span("fork", 0.0, 0.5), Span("warm_up", 0.5, 3.0), Span("capture", 1.0, 2.0, "warm_up"))
    await records.add(replace(ONE, timeline=spans, tensor_parallel=2, predicted=Footprint(10, 1, 1)))
    await records.add(replace(ONE, model="org/other", timeline=spans[:1]))
    await database.run(lambda db: db.execute("update measurements set timeline = null where id = 2") and None)
    await records.add(replace(ONE, model="org/last", timeline=spans[:1]))
    assert await records.starts() == (
        ("org/m", SeenStart((("fork", 0.5), ("warm_up", 2.5)), 20, "cuda")),
        ("org/last", SeenStart((("fork", 0.5),), 1, "cuda")),
    )
