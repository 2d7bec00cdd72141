"""What gc plans is what it frees; what is in use stays."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from heliosd.core.names import ModelRef, kept_ref
from heliosd.core.units import TiB, format_bytes
from heliosd.errors import Conflict, NotFound, Unavailable
from heliosd.store.claims import MAX_AGE_S, Claim, Claims
from heliosd.store.garbage import Plan
from heliosd.store.layout import Layout
from heliosd.store.store import Store
from heliosd.store.stored import Addition
from heliosd.store.threads import Threads
from tests.store.conftest import OpenStore
from tests.store.models import model_files, write_folder
from tests.store.related import folder, tuned
from tests.store.test_history import M, add, versions

NOBODY: Mapping[str, Sequence[str]] = {}
BLOCK = 65536
"""A multiple of what any file system here takes for a file: what is freed is counted in its blocks."""
DAY_S = 86_400.0


def bytes_in(root: Path) -> int:
    """Of what models are made of; the directories that are presented to engines can be made again at any time."""
    files = (path for name in ("blobs", "incoming") for path in (root / name).rglob("*"))
    return sum(path.lstat().st_size for path in files if path.is_file())


def lines(plan: Plan) -> list[tuple[str, str]]:
    return [(item.kind, item.name) for item in plan.goes]


async def collected(store: Store, root: Path, plan: Plan) -> int:
    """Carry the plan out: the plan, the answer and the disk agree."""
    before = bytes_in(root)
    freed_bytes = await store.collect(plan)
    assert freed_bytes == plan.freed_bytes == before - bytes_in(root)
    assert sum(item.size_bytes for item in plan.goes) == freed_bytes
    assert lines(await store.garbage(NOBODY)) == []
    return freed_bytes


async def test_nothing_to_do(store: Store, tmp_path: Path) -> None:
    await versions(store, tmp_path, 1)
    plan = await store.garbage(NOBODY)
    assert (plan.goes, plan.stays) == ((), ())
    assert await store.collect(plan) == 0


async def test_a_disk_too_small_tells_what_gc_could_free(store: Store, tmp_path: Path) -> None:
    await versions(store, tmp_path, 4)
    too_large = write_folder(tmp_path / "large", model_files())
    os.truncate(too_large / "model.safetensors", 8 * TiB)
    frees = format_bytes((await store.garbage(NOBODY)).freed_bytes)
    with pytest.raises(Unavailable, match=f"`heliosctl gc` would free {frees} .`heliosctl gc --dry-run` lists it"):
        await store.add(Addition("directory", str(too_large)), lambda _: None)


async def test_revisions_beyond_those_kept_go(store: Store, tmp_path: Path) -> None:
    first, second, third, fourth = await versions(store, tmp_path, 4)
    plan = await store.garbage(NOBODY)
    assert lines(plan) == [
        ("revision", str(kept_ref(M, second.revision))),
        ("revision", str(kept_ref(M, first.revision))),
    ]
    assert plan.goes[0].why == "beyond the 2 of org/m that are kept"
    [stays] = plan.stays
    assert (stays.name, stays.why) == (str(kept_ref(M, third.revision)), "one of the 2 of org/m that are kept")
    weights = third.manifest.file("model.safetensors")
    assert weights is not None
    assert stays.size_bytes == weights.size_bytes
    assert await collected(store, tmp_path / "store", plan) == 2 * weights.size_bytes
    assert [each.revision for each in await store.past(M)] == [fourth.revision, third.revision]
    with pytest.raises(NotFound):
        await store.directory(first.revision)
    assert not (tmp_path / "store/revisions" / first.revision).exists()


async def test_the_operator_says_how_many(tmp_path: Path, open_store: OpenStore) -> None:
    kept = {"org/m": 3, "org/one": 1}
    async with open_store(keep=lambda ref: kept[str(ref)]) as store:
        await versions(store, tmp_path, 3)
        await versions(store, tmp_path / "one", 3, ModelRef("org/one"))
        plan = await store.garbage(NOBODY)
        assert [item.why for item in plan.goes] == [
            "beyond the 1 of org/one that is kept; another model has the same files"
        ] * 2
        assert plan.freed_bytes == 0, "org/m has the same files"
        await collected(store, tmp_path / "store", plan)
        assert (len(await store.past(M)), len(await store.past(ModelRef("org/one")))) == (3, 1)


async def test_what_two_old_revisions_share_counts_once(store: Store, tmp_path: Path) -> None:
    for seed, tokenizer in ((1, b"old"), (2, b"old"), (3, b"new"), (4, b"new")):
        files = model_files(seed=seed) | {"tokenizer.json": tokenizer}
        await add(store, write_folder(tmp_path / f"v{seed}", files))
    plan = await store.garbage(NOBODY)
    assert plan.goes[0].size_bytes == plan.goes[1].size_bytes + len(b"old")
    await collected(store, tmp_path / "store", plan)


async def test_a_revision_in_use_stays_until_it_is_not(store: Store, tmp_path: Path) -> None:
    first, *_ = await versions(store, tmp_path, 3)
    async with store.hold(first.revision) as directory:
        plan = await store.garbage({first.revision: ["r7"]})
        assert plan.goes == ()
        assert [item.why for item in plan.stays if "use" in item.why] == [
            "beyond the 2 of org/m that are kept, but in use by r7"
        ]
        await store.collect(plan)
        assert (directory / "model.safetensors").read_bytes() == model_files(seed=0)["model.safetensors"]
    await collected(store, tmp_path / "store", await store.garbage(NOBODY))


async def test_a_revision_about_to_be_used_stays(store: Store, tmp_path: Path) -> None:
    first, *_ = await versions(store, tmp_path, 3)
    assert (await store.garbage({first.revision: ["r7"]})).goes == ()


async def test_what_comes_into_use_after_the_plan_stays(store: Store, tmp_path: Path) -> None:
    first, *_ = await versions(store, tmp_path, 3)
    plan = await store.garbage(NOBODY)
    async with store.hold(first.revision) as directory:
        assert await store.collect(plan) == 0
        assert (directory / "model.safetensors").exists()
        assert len(await store.past(M)) == 3


async def test_what_is_meant_again_after_the_plan_stays(store: Store, tmp_path: Path) -> None:
    first, *_ = await versions(store, tmp_path, 3)
    plan = await store.garbage(NOBODY)
    await store.move(M, first.revision)
    with pytest.raises(Conflict, match="that is what it means now"):
        await store.collect(plan)
    assert len(await store.past(M)) == 3


async def test_a_removed_model_in_use_is_told_of(store: Store, tmp_path: Path) -> None:
    [model] = await versions(store, tmp_path, 1)
    async with store.hold(model.revision):
        await store.remove(M)
        plan = await store.garbage({model.revision: ["r1"]})
        [stays] = plan.stays
        assert (stays.name, stays.why) == ("3 files", "of a removed model, in use by r1")
        assert stays.size_bytes == model.manifest.size_bytes
        assert plan.goes == ()
        assert await store.collect(plan) == 0
    assert bytes_in(tmp_path / "store") == 0


@pytest.fixture
async def interrupted(store: Store, layout: Layout, threads: Threads) -> Claims:
    """Two downloads that were interrupted, now and ten days ago, and share a part."""
    claims = Claims(layout, threads)
    now = store._clock()
    for ref, age_s, keys in (("org/new", 60.0, {"a" * 64, "git-x"}), ("org/old", 10 * DAY_S, {"b" * 64, "git-x"})):
        await claims.write(Claim(ref, frozenset(keys), now - age_s))
    for key, size_bytes in (("a" * 64, BLOCK), ("b" * 64, 2 * BLOCK), ("git-x", 4 * BLOCK)):
        layout.part(key).write_bytes(os.urandom(size_bytes))
    return claims


async def test_old_interrupted_downloads_go(store: Store, interrupted: Claims, tmp_path: Path) -> None:
    plan = await store.garbage(NOBODY)
    assert lines(plan) == [("download", "org/old")]
    assert plan.goes[0].size_bytes == 2 * BLOCK, "the other still wants the shared part"
    assert plan.goes[0].why == "interrupted 10 days ago"
    [stays] = plan.stays
    assert (stays.name, stays.size_bytes) == ("org/new", 5 * BLOCK)
    assert stays.why == "interrupted 1m 00s ago, goes after 7 days"
    root = tmp_path / "store"
    before = {path.name for path in (root / "incoming").iterdir()}
    assert await store.collect(plan) == 2 * BLOCK
    gone = before - {path.name for path in (root / "incoming").iterdir()}
    assert gone == {f"{'b' * 64}.part", interrupted.path("org/old").name}
    assert lines(await store.garbage(NOBODY)) == []


async def test_all_interrupted_downloads_go_when_asked(store: Store, interrupted: Claims) -> None:
    plan = await store.garbage(NOBODY, 0.0)
    assert [item.size_bytes for item in plan.goes] in ([5 * BLOCK, 2 * BLOCK], [BLOCK, 6 * BLOCK])
    assert await store.collect(plan) == plan.freed_bytes == 7 * BLOCK


async def test_an_interrupted_downloads_finished_files_go_with_it(
    store: Store, layout: Layout, threads: Threads, tmp_path: Path
) -> None:
    [model] = await versions(store, tmp_path, 1)
    fresh = layout.blob("c" * 64)  # type: ignore[arg-type]
    fresh.parent.mkdir(parents=True)
    fresh.write_bytes(b"12345")
    shared = model.manifest.files[0].digest
    await Claims(layout, threads).write(Claim("org/old", frozenset({"c" * 64, shared}), 0.0))
    plan = await store.garbage(NOBODY)
    assert (lines(plan), plan.freed_bytes) == ([("download", "org/old")], 5)
    assert await store.collect(plan) == 5
    assert await store.directory(model.revision), "what a model has too stays"


async def test_what_belongs_to_nothing_goes(store: Store, layout: Layout, tmp_path: Path) -> None:
    await versions(store, tmp_path, 1)
    loose = layout.blob("d" * 64)  # type: ignore[arg-type]
    loose.parent.mkdir(parents=True)
    loose.write_bytes(b"1234567")
    layout.revision("e" * 64).mkdir()  # type: ignore[arg-type]
    plan = await store.garbage(NOBODY)
    assert lines(plan) == [("blobs", "1 file"), ("directory", "revisions/eeeeeeeeeeee")]
    await collected(store, tmp_path / "store", plan)
    assert not layout.revision("e" * 64).exists()  # type: ignore[arg-type]


def test_a_week_by_default() -> None:
    assert MAX_AGE_S == 7 * DAY_S


async def test_revisions_that_share_tensors(open_store: OpenStore, tmp_path: Path) -> None:
    """Kept as recipes: each goes with what only it has, and what the others are made of stays whole."""
    async with open_store(shared_file_bytes=16 << 10, shared_run_bytes=4 << 10) as store:
        models = [
            await add(store, folder(tmp_path / f"v{seed}", tuned({seed: seed} if seed else None))) for seed in range(4)
        ]
        assert (await store.share()).files
        told = (await store.compare(M, None, lambda _: None)).found
        assert [each.change for each in told.tensors] == ["bytes"] * 4, "two layers of two tensors"
        now, before, *_ = await store.past(M)
        assert 0 < now.own_bytes < now.size_bytes // 10
        plan = await store.garbage(NOBODY)
        assert [item.kind for item in plan.goes] == ["revision"] * 2
        freed_bytes = await collected(store, tmp_path / "store", plan)
        assert 0 < freed_bytes < models[0].manifest.size_bytes
        async with store.hold(before.revision, whole=True) as directory:
            assert (directory / "model-0.safetensors").read_bytes() == tuned({2: 2})
