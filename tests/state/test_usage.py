"""What is known of each model's use, across restarts, in a real database."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from heliosd.core.remembered import Remembered
from heliosd.core.usage import MOST_MODELS, Usage
from heliosd.state.database import Database
from heliosd.state.usage import UsageTable

FULL = Remembered(
    model="org/m",
    asked_at=1e9,
    heat=(1.0, 2.0, 3.5),
    reload_s=4.5,
    wake_s=0.5,
    gaps=((3, 1.0), (70, 2.25)),
    burst=0.25,
    began=277_777,
    hours=((9, 1653, 12.5),),
    wakes=7.5,
    follows=(("org/n", 3.0),),
)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    made = Database(tmp_path / "helios.db")
    await made.open()
    yield made
    await made.close()


async def test_it_comes_back_as_it_was_kept_and_the_last_asked_for_first(database: Database) -> None:
    table = UsageTable(database)
    older = Remembered("old", 5.0, (0.0, 0.0, 1.0))
    await table.keep([older, FULL])
    assert await table.load() == (FULL, older)
    newer = replace(older, asked_at=2e9)
    await table.keep([newer])
    assert await table.load() == (newer, FULL)


async def test_what_changed_is_written_once(database: Database) -> None:
    table, usage = UsageTable(database), Usage()
    usage.seeded(0.0, 1e9, ())
    for number in range(250):
        usage.asked(f"m{number}", float(number))
    await table.keep_changed(usage)
    assert usage.unsaved == set()
    assert len(await table.load()) == 250
    await database.run(lambda db: db.execute("delete from usage") and None)
    usage.asked("m7", 300.0)
    await table.keep_changed(usage)
    (kept,) = await table.load()
    assert (kept.model, kept.asked_at) == ("m7", 1e9 + 300.0)


async def test_what_changes_is_written_while_the_node_runs(database: Database) -> None:
    table, usage = UsageTable(database, keep_every_s=0.0), Usage()
    usage.seeded(0.0, 1e9, ())
    async with asyncio.TaskGroup() as tasks:
        following = tasks.create_task(table.follow(usage))
        for number in range(3):
            usage.asked("m", float(number))
            while [each.asked_at for each in await table.load()] != [1e9 + number]:
                pass
        following.cancel()


async def test_what_could_not_be_written_is_tried_again(database: Database) -> None:
    table, usage = UsageTable(database), Usage()
    usage.seeded(0.0, 1e9, ())
    usage.asked("m", 1.0)
    await database.run(
        lambda db: (
            db.execute("create trigger full before insert on usage begin select raise(abort, 'full'); end") and None
        )
    )
    await table.keep_changed(usage)
    assert usage.unsaved == {"m"}
    assert await table.load() == ()
    await database.run(lambda db: db.execute("drop trigger full") and None)
    await table.keep_changed(usage)
    assert [each.model for each in await table.load()] == ["m"]


async def test_a_row_that_cannot_be_read_is_left_out(database: Database) -> None:
    table = UsageTable(database)
    await table.keep([FULL, replace(FULL, model="broken")])
    await database.run(lambda db: db.execute("update usage set known = '{}' where model = 'broken'") and None)
    assert await table.load() == (FULL,)


async def test_there_is_an_end_to_what_is_kept(database: Database) -> None:
    table = UsageTable(database)
    await table.keep([Remembered(f"m{number}", float(number), (0.0, 0.0, 1.0)) for number in range(MOST_MODELS)])
    await table.keep([FULL])
    found = await table.load()
    assert len(found) == MOST_MODELS
    assert found[0] == FULL
    assert "m0" not in {each.model for each in found}
