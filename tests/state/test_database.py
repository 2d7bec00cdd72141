"""One thread, one transaction per piece of work, migrations once."""

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
