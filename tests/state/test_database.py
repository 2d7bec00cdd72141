"""One thread, one transaction per piece of work, migrations once."""

import asyncio
import threading
from pathlib import Path

import pytest

from heliosd.errors import HeliosError
from heliosd.state.database import Database


async def test_work_is_committed_whole_or_not_at_all(tmp_path: Path) -> None:
    database = Database(tmp_path / "state" / "helios.db")
    await database.open()

    def break_off(db: object) -> None:
        db.execute("insert into aliases values ('a', 'b', 'c')")  # type: ignore[attr-defined]
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        await database.run(break_off)
    assert await database.run(lambda db: db.table("aliases").count) == 0
    await database.close()


async def test_opening_again_keeps_everything(tmp_path: Path) -> None:
    for expected in (0, 1, 2):
        database = Database(tmp_path / "helios.db")
        await database.open()
        assert await database.run(lambda db: db.table("aliases").count) == expected
        await database.run(
            lambda db: db.table("aliases").insert({"alias": str(db.table("aliases").count), "name": "x"})
        )
        mode = await database.run(lambda db: db.execute("pragma journal_mode").fetchone()[0])
        assert mode == "wal"
        await database.close()


async def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    (tmp_path / "helios.db").write_text("certainly not a database, but long enough to be taken for one " * 100)
    with pytest.raises(HeliosError, match="cannot open the state database"):
        await Database(tmp_path / "helios.db").open()


async def test_it_tells_of_its_transactions_and_its_files(tmp_path: Path) -> None:
    told: list[tuple[str, float]] = []
    database = Database(tmp_path / "helios.db", lambda kind, seconds: told.append((kind, seconds)))
    assert database.sizes() == (0, 0)
    await database.open()
    await database.run(lambda db: db.table("aliases").insert({"alias": "a", "name": "x"}))
    await database.run(lambda db: db.table("aliases").count)
    with pytest.raises(ZeroDivisionError):
        await database.run(lambda db: 1 // 0)
    assert [kind for kind, _ in told] == ["write", "read", "read"]
    assert all(seconds >= 0 for _, seconds in told)
    assert min(database.sizes()) > 0
    assert database.backlog == 0
    await database.close()
    assert database.sizes()[1] == 0


async def test_what_waits_for_its_thread_is_counted(tmp_path: Path) -> None:
    database, go, begun = Database(tmp_path / "helios.db"), threading.Event(), asyncio.Event()
    await database.open()
    loop = asyncio.get_running_loop()

    def slow(db: object) -> None:
        loop.call_soon_threadsafe(begun.set)
        go.wait()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(database.run(slow))
        tasks.create_task(database.run(lambda db: None))
        await begun.wait()
        assert database.backlog == 2
        go.set()
    assert database.backlog == 0
    await database.close()
