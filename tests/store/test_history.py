"""What a ref has meant: kept, listed, asked for by digest, and meant again."""

import asyncio
from pathlib import Path

import pytest

from heliosd.core.names import ModelRef, digest_beginning, kept_ref, parse_ref
from heliosd.errors import BadRequest, Conflict, NotFound
from heliosd.state.database import Database
from heliosd.store.catalog import Catalog
from heliosd.store.store import Store
from heliosd.store.stored import Addition, StoredModel
from tests.store.conftest import OpenStore
from tests.store.models import adapter_files, config, model_files, write_folder

M = ModelRef("org/m")


async def add(store: Store, folder: Path, ref: ModelRef = M, **more: object) -> StoredModel:
    return await store.add(Addition("directory", str(folder), ref, **more), lambda _: None)  # type: ignore[arg-type]


async def versions(store: Store, folder: Path, count: int, ref: ModelRef = M) -> list[StoredModel]:
    """So many revisions of one ref, which differ in their weights only."""
    return [await add(store, write_folder(folder / f"v{seed}", model_files(seed=seed)), ref) for seed in range(count)]


def test_a_digest_needs_eight_digits() -> None:
    assert digest_beginning(parse_ref("org/m@1a2b3c4d")) == "1a2b3c4d"
    for other in ("org/m", "org/m@v1", "org/m@1a2b3c4", "org/m@1A2B3C4D", "org/m@refs/pr/1"):
        assert digest_beginning(parse_ref(other)) is None


async def test_the_past_of_a_ref_with_its_sizes(store: Store, tmp_path: Path) -> None:
    old, new = await versions(store, tmp_path, 2)
    now, before = await store.past(M)
    assert (now.revision, now.current, now.why) == (new.revision, True, "added")
    assert (before.revision, before.current) == (old.revision, False)
    assert before.source == f"directory {tmp_path / 'v0'}"
    assert before.at <= now.at
    weights = old.manifest.file("model.safetensors")
    assert weights is not None
    assert now.size_bytes == old.manifest.size_bytes
    assert now.own_bytes == before.own_bytes == weights.size_bytes, "configuration and tokenizer are shared"
    with pytest.raises(NotFound, match="cannot list the revisions of nobody"):
        await store.past(ModelRef("nobody"))


async def test_the_same_again_is_no_new_line(store: Store, tmp_path: Path) -> None:
    old, _ = await versions(store, tmp_path, 2)
    await versions(store, tmp_path / "again", 2)
    assert len(await store.past(M)) == 2
    await add(store, tmp_path / "v0")
    assert next(each.revision for each in await store.past(M)) == old.revision


async def test_an_earlier_revision_is_a_model_by_its_digest(store: Store, tmp_path: Path) -> None:
    old, new = await versions(store, tmp_path, 2)
    await store.set_alias("m", M)
    for name in (f"org/m@{old.revision[:8]}", f"org/m@{old.revision}", f"m@{old.revision[:10]}"):
        found = await store.find(parse_ref(name))
        assert found is not None
        assert (found.ref, found.of, found.revision) == (kept_ref(M, old.revision), M, old.revision)
        assert found.profile == old.profile
    current = await store.find(kept_ref(M, new.revision))
    assert current is not None
    assert current.ref == M, "what it means now has one name"
    assert await store.find(parse_ref("org/m@" + "0" * 8)) is None
    assert await store.find(parse_ref(f"org/other@{old.revision[:8]}")) is None
    assert [model.ref for model in await store.models()] == [M]


async def test_a_branch_that_looks_like_a_digest_comes_first(store: Store, tmp_path: Path) -> None:
    old, _ = await versions(store, tmp_path, 2)
    branch = ModelRef("org/m", old.revision[:8])
    await add(store, write_folder(tmp_path / "b", model_files(seed=7)), branch)
    found = await store.find(branch)
    assert found is not None
    assert (found.ref, found.of) == (branch, None)


async def test_revisions_of_other_labels_are_found_too(store: Store, tmp_path: Path) -> None:
    old, _ = await versions(store, tmp_path, 2, ModelRef("org/m", "v1"))
    found = await store.find(parse_ref(f"org/m@{old.revision[:8]}"))
    assert found is not None
    assert found.of == ModelRef("org/m", "v1")


async def test_back_and_forth(store: Store, tmp_path: Path) -> None:
    first, second, third = await versions(store, tmp_path, 3)
    before, now = await store.move(M)
    assert (before.revision, now.revision) == (third.revision, second.revision)
    assert await current(store) == second.revision
    await store.move(M)
    assert await current(store) == third.revision, "the second time takes the first back"
    await store.move(M, first.revision[:8])
    assert await current(store) == first.revision
    newest, *_ = await store.past(M)
    assert newest.why == f"moved back from {third.revision[:12]}"
    with pytest.raises(Conflict, match="that is what it means now"):
        await store.move(M, first.revision)
    with pytest.raises(NotFound, match="heliosctl revisions org/m"):
        await store.move(M, "0" * 8)


async def current(store: Store) -> str:
    found = await store.find(M)
    assert found is not None
    return found.revision


async def test_nothing_to_go_back_to(store: Store, tmp_path: Path) -> None:
    await versions(store, tmp_path, 1)
    with pytest.raises(NotFound, match="only the revision that it means now"):
        await store.move(M)
    with pytest.raises(NotFound, match="does not have it"):
        await store.move(ModelRef("nobody"))


async def test_digits_that_say_too_little(database: Database) -> None:
    catalog = Catalog(database)
    await database.run(_two_alike)
    with pytest.raises(BadRequest, match="org/m@aaaaaaaa1111, org/m@aaaaaaaa2222 begin so; give more digits"):
        await catalog.find(ModelRef("org/m", "aaaaaaaa"))
    with pytest.raises(BadRequest, match="give more digits"):
        await catalog.move(M, "aaaaaaaa", 1.0)
    found = await catalog.find(ModelRef("org/m", "aaaaaaaa1"))
    assert found is not None
    assert found.revision.startswith("aaaaaaaa1")


def _two_alike(db: object) -> None:
    for at, revision in enumerate((f"aaaaaaaa{'1' * 56}", f"aaaaaaaa{'2' * 56}", "b" * 64)):
        db.execute("insert into revisions values (?, '[]', '{}', 0, 0)", (revision,))  # type: ignore[attr-defined]
        db.execute(  # type: ignore[attr-defined]
            "insert into history (name, label, revision, at, why) values ('org/m', 'main', ?, ?, 'added')",
            (revision, at),
        )
    db.execute("insert into refs values ('org/m', 'main', ?, 0, null)", ("b" * 64,))  # type: ignore[attr-defined]


async def test_an_earlier_revision_can_be_removed_alone(store: Store, tmp_path: Path) -> None:
    old, new = await versions(store, tmp_path, 2)
    weights = old.manifest.file("model.safetensors")
    assert weights is not None
    assert await store.remove(kept_ref(M, old.revision)) == weights.size_bytes
    assert [each.revision for each in await store.past(M)] == [new.revision]
    with pytest.raises(NotFound):
        await store.directory(old.revision)


async def test_two_refs_share_a_past(store: Store, tmp_path: Path) -> None:
    [old, _] = await versions(store, tmp_path, 2)
    await add(store, tmp_path / "v0", ModelRef("other"))
    assert {each.own_bytes for each in await store.past(ModelRef("other"))} == {
        old.manifest.size_bytes
        - sum(file.size_bytes for file in old.manifest.files if file.path != "model.safetensors")
    }
    await store.remove(M)
    assert await store.directory(old.revision)


async def test_an_adapter_goes_back_only_to_a_base_that_is_here(store: Store, tmp_path: Path) -> None:
    await versions(store, tmp_path, 1)
    other = ModelRef("org/base")
    await add(store, write_folder(tmp_path / "base", model_files(seed=9)), other)
    poet = ModelRef("org/poet")
    await add(store, write_folder(tmp_path / "p1", adapter_files("org/base", seed=1)), poet)
    await add(store, write_folder(tmp_path / "p2", adapter_files("org/m", seed=2)), poet)
    _, now = await store.move(poet)
    assert now.base == other
    found = await store.find(poet)
    assert found is not None and found.adapter is not None
    assert found.adapter.base == other
    await store.move(poet)
    await store.remove(other)
    with pytest.raises(Conflict, match="cannot add org/poet as an adapter of org/base"):
        await store.move(poet)


async def test_an_adapter_that_is_given_another_base_keeps_it_when_it_comes_back(store: Store, tmp_path: Path) -> None:
    await versions(store, tmp_path, 1)
    other, poet = ModelRef("org/base"), ModelRef("org/poet")
    await add(store, write_folder(tmp_path / "base", model_files(seed=9)), other)
    await add(store, write_folder(tmp_path / "p1", adapter_files("org/m", seed=1)), poet)
    await add(store, tmp_path / "p1", poet, base=other)
    await add(store, write_folder(tmp_path / "p2", adapter_files("org/m", seed=2)), poet)
    _, now = await store.move(poet)
    assert now.base == other


async def test_a_store_of_before_has_a_past_of_one(tmp_path: Path, open_store: OpenStore) -> None:
    async with open_store() as store:
        model = await add(store, write_folder(tmp_path / "m", model_files()))
    database = Database(tmp_path / "state.sqlite")
    await database.open()
    await database.run(_as_before)
    await database.close()
    async with open_store() as store:
        [only] = await store.past(M)
        assert (only.revision, only.current) == (model.revision, True)


def _as_before(db: object) -> None:
    for table in ("history", "inspections"):
        db.execute(f"drop table {table}")  # type: ignore[attr-defined]
    db.execute("delete from _sqlite_migrations where name = 'history_of_refs'")  # type: ignore[attr-defined]


async def test_a_start_reads_no_files(tmp_path: Path, open_store: OpenStore) -> None:
    async with open_store() as store:
        model = await add(store, write_folder(tmp_path / "m", model_files()))
    await asyncio.to_thread(_hide, tmp_path / "store/blobs")
    async with open_store() as store:
        assert await store.models() == (model,), "its facts are in the database"
        assert (await store.known(model)).stored is None


def _hide(blobs: Path) -> None:
    for path in list(blobs.rglob("*")):
        if path.is_file():
            path.unlink()


async def test_facts_that_cannot_be_read_are_read_from_the_files(tmp_path: Path, open_store: OpenStore) -> None:
    async with open_store() as store:
        model = await add(store, write_folder(tmp_path / "m", model_files()))
        await store._inspections._database.run(
            lambda db: db.execute("update inspections set facts = '{\"profile\": 1}'")
        )
    async with open_store() as store:
        assert await store.models() == (model,)
        assert (await store.known(model)).stored is not None


async def test_config_differs_so_both_are_kept(store: Store, tmp_path: Path) -> None:
    await versions(store, tmp_path, 1)
    await add(store, write_folder(tmp_path / "c", model_files() | {"config.json": config(vocab_size=256)}))
    assert [each.own_bytes for each in await store.past(M)] == [len(config(vocab_size=256)), len(config())]
