"""Refs, aliases, revisions and blobs as rows."""

import asyncio
import threading
from collections import UserDict
from collections.abc import Iterator

import pytest

from heliosd.core.manifest import Manifest, ManifestFile, manifest_of
from heliosd.core.names import Digest, ModelRef, parse_ref
from heliosd.errors import Conflict
from heliosd.state.database import Database
from heliosd.store.catalog import Catalog


@pytest.fixture
def catalog(database: Database) -> Catalog:
    return Catalog(database)


def digest(letter: str) -> Digest:
    return Digest(letter * 64)


def manifest(letters: str) -> Manifest:
    return manifest_of(ManifestFile(f"{letter}.json", digest(letter), 10) for letter in letters)


A, B = ModelRef("org/a"), ModelRef("b", "v1")
ORIGIN = {"kind": "directory", "location": "/models/a"}


async def test_a_ref_means_a_manifest(catalog: Catalog) -> None:
    await catalog.commit(A, manifest("ab"), ORIGIN, "short", 5.0)
    record = await catalog.find(A)
    assert record is not None
    assert (record.ref, record.manifest, record.origin) == (A, manifest("ab"), ORIGIN)
    assert (record.created_at, record.aliases) == (5.0, ("short",))
    assert await catalog.find(parse_ref("short")) == record
    assert await catalog.find(parse_ref("org/a@other")) is None
    assert await catalog.records() == (record,)
    assert await catalog.manifest(record.revision) == record.manifest
    assert await catalog.manifest(digest("f")) is None


async def test_what_is_shared_stays_until_the_last(catalog: Catalog) -> None:
    await catalog.commit(A, manifest("ab"), ORIGIN, None, 1.0)
    await catalog.commit(B, manifest("bc"), ORIGIN, None, 1.0)
    assert await catalog.remove(A) == {digest("a")}
    assert await catalog.digests() == {digest("b"), digest("c")}
    assert await catalog.remove(A) == frozenset()
    assert await catalog.remove(B) == {digest("b"), digest("c")}
    assert await catalog.revisions() == frozenset()


async def test_two_refs_of_one_revision(catalog: Catalog) -> None:
    await catalog.commit(A, manifest("ab"), ORIGIN, None, 1.0)
    await catalog.commit(B, manifest("ab"), ORIGIN | {"allow_pickle": True}, None, 2.0)
    assert await catalog.remove(A) == frozenset()
    record = await catalog.find(B)
    assert record is not None
    assert record.origin["allow_pickle"]


async def test_aliases_move_and_go_with_their_model(catalog: Catalog) -> None:
    await catalog.commit(A, manifest("a"), ORIGIN, "x", 1.0)
    await catalog.commit(B, manifest("b"), ORIGIN, None, 1.0)
    await catalog.set_alias("x", B)
    record = await catalog.find(ModelRef("x"))
    assert record is not None
    assert record.ref == B
    await catalog.remove(B)
    assert await catalog.find(ModelRef("x")) is None


async def test_a_name_means_one_thing(catalog: Catalog) -> None:
    await catalog.commit(A, manifest("a"), ORIGIN, "x", 1.0)
    with pytest.raises(Conflict, match="cannot use org/a as an alias"):
        await catalog.commit(B, manifest("b"), ORIGIN, "org/a", 1.0)
    with pytest.raises(Conflict, match="cannot call a model x"):
        await catalog.commit(ModelRef("x"), manifest("b"), ORIGIN, None, 1.0)
    assert await catalog.digests() == {digest("a")}, "a refused commit leaves no row"


class Waits(UserDict[str, str]):
    """An origin that, while the database's thread writes it, says so and waits."""

    def __init__(self) -> None:
        super().__init__(ORIGIN)
        self.begun, self.go_on = threading.Event(), threading.Event()

    def __iter__(self) -> Iterator[str]:
        self.begun.set()
        self.go_on.wait(5)
        return super().__iter__()


async def test_a_commit_is_told_also_when_the_caller_has_gone(database: Database) -> None:
    told: list[None] = []
    catalog = Catalog(database, lambda: told.append(None))
    origin = Waits()
    async with asyncio.TaskGroup() as group:
        committing = group.create_task(catalog.commit(A, manifest("ab"), origin, None, 5.0))
        assert await asyncio.to_thread(origin.begun.wait, 5)
        committing.cancel()
        await asyncio.wait([committing])
        assert len(told) == 1
        origin.go_on.set()
    assert committing.cancelled()
    assert await catalog.find(A) is not None, "whoever is told sees what was committed"
