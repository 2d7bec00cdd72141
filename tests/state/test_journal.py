"""The journal keeps what was noted, in order, and shows nothing that is not on disk."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import sqlite_utils

from heliosd.state.database import Database
from heliosd.state.journal import FOLLOWER_BACKLOG, Journal


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    database = Database(tmp_path / "helios.db")
    await database.open()
    journal = Journal(database)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(journal.run())
        yield journal
        running.cancel()
    await database.close()


async def test_entries_come_back_in_order_and_by_subject(journal: Journal) -> None:
    journal.note("grant", "r1 is ready", ticket="t1", replica="r1", model="llama")
    journal.note("hold", "waits", ticket="t2", model="qwen", detail={"free_bytes": 7})
    await journal.flushed()
    first, second = await journal.read()
    assert (first.kind, first.ticket, first.id) == ("grant", "t1", 1)
    assert second.detail == {"free_bytes": 7}
    assert [entry.ticket for entry in await journal.read(subject="qwen")] == ["t2"]
    assert [entry.ticket for entry in await journal.read(subject="r1")] == ["t1"]
    assert await journal.read(after=second.id) == []
    assert [entry.kind for entry in await journal.read(kinds=("hold", "stop"))] == ["hold"]
    assert await journal.read(subject="r1", kinds=("hold",)) == []
    assert [entry.id for entry in await journal.read(limit=1)] == [second.id]


async def test_a_follower_sees_what_comes_after(journal: Journal) -> None:
    journal.note("old", "before")
    await journal.flushed()
    following = journal.follow()
    seen = asyncio.ensure_future(anext(following))  # noqa: TID251
    await asyncio.sleep(0)
    journal.note("new", "after")
    assert (await seen).kind == "new"
    await following.aclose()  # type: ignore[attr-defined]


async def test_a_follower_that_does_not_keep_up_is_ended(journal: Journal) -> None:
    following = journal.follow()
    first = asyncio.ensure_future(anext(following))  # noqa: TID251
    await asyncio.sleep(0)
    for number in range(FOLLOWER_BACKLOG + 10):
        journal.note("many", str(number))
    await journal.flushed()
    await first
    rest = [entry async for entry in following]
    assert len(rest) <= FOLLOWER_BACKLOG


async def test_what_is_queued_at_the_end_is_still_written(tmp_path: Path) -> None:
    database = Database(tmp_path / "helios.db")
    await database.open()
    journal = Journal(database)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0):
            journal.note("last", "words")
            await journal.run()
    assert [entry.kind for entry in await journal.read()] == ["last"]
    await database.close()


WRITER = """
import asyncio, sys
from pathlib import Path
from heliosd.state.database import Database
from heliosd.state.journal import Journal

async def main():
    database = Database(Path(sys.argv[1]))
    await database.open()
    journal = Journal(database)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(journal.run())
        number = 0
        while True:
            number += 1
            journal.note("n", str(number))
            await journal.flushed()
            print(number, flush=True)

asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.parametrize("after_lines", [1, 7, 40])
async def test_kill_9_loses_nothing_committed(tmp_path: Path, after_lines: int) -> None:
    path = tmp_path / "helios.db"
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    said = [int(writer.stdout.readline()) for _ in range(after_lines)]
    os.kill(writer.pid, signal.SIGKILL)
    said += [int(line) for line in writer.stdout.read().split()]
    writer.wait()
    database = Database(path)
    await database.open()
    kept = [int(entry.message) for entry in await Journal(database).read(limit=100_000)]
    await database.close()
    assert kept[: len(said)] == list(range(1, said[-1] + 1))


def refuse_lines(db: sqlite_utils.Database) -> None:
    """From now on the database says what it says when the disk is full."""
    db.execute("create trigger full before insert on journal begin select raise(fail, 'database or disk is full'); end")


async def test_a_full_disk_costs_lines_and_nothing_else(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    database = Database(tmp_path / "helios.db")
    await database.open()
    journal = Journal(database)
    await database.run(refuse_lines)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(journal.run())
        for number in range(3):
            journal.note("n", str(number))
            async with asyncio.timeout(5):
                await journal.flushed()
        assert (journal.lost, journal.written) == (3, 0)
        await database.run(lambda db: db.execute("drop trigger full"))
        journal.note("n", "there is room")
        await journal.flushed()
        running.cancel()
    assert (journal.lost, journal.written) == (3, 1)
    assert [entry.message for entry in await journal.read()] == ["there is room"]
    await database.close()
    said = [(record.message, record.lost) for record in caplog.records]  # type: ignore[attr-defined]
    assert said == [("journal cannot be written", 1), ("journal written again", 3)]


async def test_who_reads_on_from_an_id_misses_nothing(journal: Journal) -> None:
    for number in range(1, 8):
        journal.note("n", str(number))
    await journal.flushed()
    assert [entry.id for entry in await journal.read(limit=3)] == [5, 6, 7]
    seen = [1]
    while page := await journal.read(after=seen[-1], limit=2):
        seen += [entry.id for entry in page]
    assert seen == [1, 2, 3, 4, 5, 6, 7]
