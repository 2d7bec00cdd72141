"""Measurements of engines, and what they are good for."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from heliosd.core.messages import Footprint
from heliosd.state.database import Database
from heliosd.state.records import KEPT_EACH, Measurement, Records

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


async def test_the_largest_of_the_last_few_counts(database: Database) -> None:
    records = Records(database)
    assert await records.overhead_bytes("rev", "vllm 1", "cuda", ONE.arguments) is None
    for overhead_bytes in (900, 10, 30, 20, 10, 10):
        await records.add(took(overhead_bytes))
    assert await records.overhead_bytes("rev", "vllm 1", "cuda", ONE.arguments) == 30


async def test_what_was_measured_with_other_settings_says_nothing(database: Database) -> None:
    records = Records(database)
    await records.add(took(100))
    assert await records.overhead_bytes("rev", "vllm 1", "cuda", '{"seqs":256}') is None
    for other in (("other", "vllm 1", "cuda"), ("rev", "vllm 2", "cuda"), ("rev", "vllm 1", "host")):
        assert await records.overhead_bytes(*other, ONE.arguments) is None


async def test_what_was_measured_before_settings_were_kept_says_nothing(database: Database) -> None:
    row = {"revision": "rev", "engine": "vllm 1", "device_kind": "cuda", "measured": '{"overhead_bytes": 5}'}
    await database.run(lambda db: db.table("measurements").insert(row) and None)
    assert await Records(database).overhead_bytes("rev", "vllm 1", "cuda", ONE.arguments) is None


async def test_only_the_last_of_each_are_kept(database: Database) -> None:
    records = Records(database)
    other = replace(ONE, revision="other")
    await records.add(took(1, other))
    for number in range(KEPT_EACH + 5):
        await records.add(took(number))
    rows = await database.run(lambda db: list(db.table("measurements").rows_where("revision = 'rev'")))
    assert len(rows) == KEPT_EACH
    assert await records.overhead_bytes("rev", "vllm 1", "cuda", ONE.arguments) == KEPT_EACH + 4
    assert await records.overhead_bytes("other", "vllm 1", "cuda", ONE.arguments) == 1
