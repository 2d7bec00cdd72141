"""Keys are shown once, found by their secret, and gone when removed."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from heliosd.core.messages import Priority
from heliosd.errors import Conflict, HeliosError, NotFound
from heliosd.state.database import Database
from heliosd.state.keys import Keys


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = Database(tmp_path / "state.db")
    await database.open()
    yield database
    await database.close()


async def test_a_key_is_found_by_its_secret_only(database: Database) -> None:
    keys = Keys(database)
    await keys.load()
    key, secret = await keys.add("ci", admin=False)
    assert secret.startswith("hk-")
    assert len(secret) >= 43 + 3  # 256 bits in base64
    assert keys.find(secret) == key
    assert keys.find(secret + "x") is None
    assert keys.find("") is None


async def test_the_secret_is_not_in_the_database(database: Database) -> None:
    keys = Keys(database)
    await keys.load()
    _, secret = await keys.add("ci", admin=True)
    rows = await database.run(lambda db: db.execute("select * from keys").fetchall())
    assert len(rows) == 1
    assert all(secret not in str(column) and secret[3:] not in str(column) for column in rows[0])
    assert database.path.read_bytes().find(secret[3:].encode()) == -1


async def test_keys_survive_a_restart(database: Database) -> None:
    first = Keys(database)
    await first.load()
    key, secret = await first.add("ci", admin=True)
    second = Keys(database)
    assert second.find(secret) is None
    await second.load()
    assert second.find(secret) == key
    assert second.all() == (key,)


async def test_a_removed_key_is_unknown_at_once_and_after_a_restart(database: Database) -> None:
    keys = Keys(database)
    await keys.load()
    _, secret = await keys.add("ci", admin=False)
    await keys.remove("ci")
    assert keys.find(secret) is None
    await keys.load()
    assert keys.find(secret) is None
    with pytest.raises(NotFound, match="it is not known; known are: none"):
        await keys.remove("ci")


async def test_a_name_is_taken_once(database: Database) -> None:
    keys = Keys(database)
    await keys.load()
    await keys.add("ci", admin=False)
    with pytest.raises(Conflict, match="there is one"):
        await keys.add("ci", admin=True)
    assert [key.admin for key in keys.all()] == [False]


async def test_terms_are_changed_one_by_one_and_survive_a_restart(database: Database) -> None:
    keys = Keys(database)
    await keys.load()
    key, secret = await keys.add("ci", admin=False)
    assert (key.priority, key.share) == (Priority.NORMAL, 1.0)
    await keys.add("ops", admin=True, priority=Priority.HIGH, share=2.0)
    await keys.change("ci", priority=Priority.LOW)
    changed = await keys.change(key.id, share=0.5)
    assert keys.find(secret) == changed
    assert (changed.priority, changed.share) == (Priority.LOW, 0.5)
    await keys.load()
    assert [(each.name, each.priority, each.share) for each in keys.all()] == [
        ("ci", Priority.LOW, 0.5),
        ("ops", Priority.HIGH, 2.0),
    ]
    with pytest.raises(NotFound, match="cannot change the key 'nobody'"):
        await keys.change("nobody", share=2.0)


async def test_a_key_that_cannot_be_written_is_as_it_was(database: Database) -> None:
    keys = Keys(database)
    await keys.load()
    key, secret = await keys.add("ci", admin=False)
    await database.run(
        lambda db: db.execute("create trigger full before update on keys begin select raise(fail, 'full'); end")
    )
    with pytest.raises(HeliosError, match="It is as it was; make room"):
        await keys.change("ci", share=2.0)
    assert keys.find(secret) == key


async def test_a_key_removed_while_it_is_changed_stays_removed(database: Database) -> None:
    keys = Keys(database)
    await keys.load()
    _, secret = await keys.add("ci", admin=False)
    async with asyncio.TaskGroup() as tasks, stuck(database):
        tasks.create_task(changed_too_late(keys))
        await asyncio.sleep(0)
        tasks.create_task(keys.remove("ci"))
        await asyncio.sleep(0)
    assert keys.find(secret) is None


async def changed_too_late(keys: Keys) -> None:
    with pytest.raises(NotFound, match="removed meanwhile"):
        await keys.change("ci", share=2.0)


async def test_keys_from_before_there_were_classes_are_normal(database: Database) -> None:
    keys = Keys(database)
    await database.run(
        lambda db: db.execute("insert into keys (id, name, hash, admin, created_at) values ('k', 'old', 'h', 0, 1.0)")
    )
    await keys.load()
    assert [(key.priority, key.share) for key in keys.all()] == [(Priority.NORMAL, 1.0)]


async def test_two_secrets_differ(database: Database) -> None:
    keys = Keys(database)
    await keys.load()
    secrets = [(await keys.add(f"k{n}", admin=False))[1] for n in range(20)]
    assert len(set(secrets)) == 20
    assert [keys.find(secret).name for secret in secrets] == [f"k{n}" for n in range(20)]  # type: ignore[union-attr]


async def test_a_key_stops_working_before_its_row_is_gone(database: Database) -> None:
    keys = Keys(database)
    await keys.load()
    _, secret = await keys.add("ci", admin=False)
    async with stuck(database), asyncio.TaskGroup() as tasks:
        removing = tasks.create_task(keys.remove("ci"))
        await asyncio.sleep(0)
        assert keys.find(secret) is None
        removing.cancel()
    await keys.load()
    assert keys.find(secret) is None


async def test_a_key_whose_maker_stopped_waiting_is_known_as_after_a_restart(database: Database) -> None:
    keys = Keys(database)
    await keys.load()
    async with stuck(database), asyncio.TaskGroup() as tasks:
        adding = tasks.create_task(keys.add("ci", admin=False))
        await asyncio.sleep(0)
        adding.cancel()
    await database.run(lambda db: None)  # one thread: what was asked before is done
    await asyncio.sleep(0)
    held = keys.all()
    await keys.load()
    assert held == keys.all() != ()


async def test_a_key_that_cannot_be_removed_still_holds(database: Database) -> None:
    keys = Keys(database)
    await keys.load()
    key, secret = await keys.add("ci", admin=False)
    await database.run(
        lambda db: db.execute("create trigger full before delete on keys begin select raise(fail, 'full'); end")
    )
    with pytest.raises(HeliosError, match="It still holds; make room"):
        await keys.remove("ci")
    assert keys.find(secret) == key


@asynccontextmanager
async def stuck(database: Database) -> AsyncIterator[None]:
    """The database does nothing until the block is left."""
    go = threading.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(database.run(lambda db: go.wait(5)))
        await asyncio.sleep(0)
        try:
            yield
        finally:
            go.set()
