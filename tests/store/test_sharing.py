"""Fine-tunes of one base take little more room than the base; every file reads back as it came in."""

import asyncio
import json
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from heliosd.core.names import Digest, ModelRef
from heliosd.errors import CorruptData
from heliosd.store.sharing import Shared
from heliosd.store.store import Store
from heliosd.store.stored import Addition, StoredModel
from tests.store.conftest import OpenStore
from tests.store.presented import read
from tests.store.related import KiB, folder, tuned, weights

SMALL = {"shared_file_bytes": 16 * KiB, "shared_run_bytes": 4 * KiB}


@pytest.fixture
async def store(open_store: OpenStore) -> AsyncIterator[Store]:
    async with open_store(**SMALL) as store:
        yield store


async def add(store: Store, path: Path, **more: object) -> StoredModel:
    return await store.add(Addition("directory", str(path), **more), lambda _: None)  # type: ignore[arg-type]


def blobs_in(tmp_path: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in (tmp_path / "store/blobs").rglob("*") if path.is_file()}


async def content(store: Store, model: StoredModel, name: str = "model-0.safetensors") -> bytes:
    return read(await store.directory(model.revision), name)


async def test_two_fine_tunes_of_a_base(store: Store, tmp_path: Path) -> None:
    base, first, second = tuned(), tuned({3: 1, 17: 1}), tuned({9: 2, 25: 2})
    one_of = len(base)
    models = [await add(store, folder(tmp_path / "base", base)), await add(store, folder(tmp_path / "a", first))]
    found = await store.share()
    assert (found.files, found.logical_bytes, found.in_use) == (1, len(first), 0)
    assert sum(blobs_in(tmp_path).values()) < 1.1 * one_of
    models.append(await add(store, folder(tmp_path / "b", second)))
    assert (await store.share()).files == 1
    assert sum(blobs_in(tmp_path).values()) < 1.2 * one_of
    for model, whole in zip(models, (base, first, second), strict=True):
        assert await content(store, model) == whole
        assert (await store.find(model.ref)) == model
    assert (await store.usage()).physical_bytes == sum(blobs_in(tmp_path).values())


async def test_what_it_says_was_freed_was(store: Store, tmp_path: Path) -> None:
    await add(store, folder(tmp_path / "base", tuned()))
    await add(store, folder(tmp_path / "a", tuned({3: 1})))
    before = sum(blobs_in(tmp_path).values())
    found = await store.share()
    assert found.freed_bytes == before - sum(blobs_in(tmp_path).values()) > 0


async def test_a_changed_run_begins_on_a_page(store: Store, tmp_path: Path) -> None:
    await add(store, folder(tmp_path / "base", tuned()))
    model = await add(store, folder(tmp_path / "a", tuned({3: 1, 9: 1, 10: 1})))
    await store.share()
    said = json.loads((await store.directory(model.revision) / "model-0.safetensors.recipe").read_bytes())
    parts = said["parts"]
    base = parts[0]["path"]
    assert [part["path"] == base for part in parts] == [True, False, True, False, True]
    changed = [part["offset"] for part in parts if part["path"] != base]
    assert changed == [0, -(-parts[1]["size_bytes"] // 4096) * 4096]


async def test_shards_are_cut_elsewhere(store: Store, tmp_path: Path) -> None:
    """A fine-tune in one file shares with all files of its base, whatever lies before a tensor in its file."""
    layers = {f"l{number}": [(40 * KiB, 0)] for number in range(6)}
    names = list(layers)
    halves = [weights({name: layers[name] for name in part}) for part in (names[:3], names[3:])]
    whole = weights({**layers, "l2": [(40 * KiB, 1)]}, metadata="saved by another tool")
    await add(store, folder(tmp_path / "base", *halves))
    model = await add(store, folder(tmp_path / "a", whole))
    found = await store.share()
    assert found.freed_bytes == pytest.approx(5 * 40 * KiB, abs=8 * KiB)
    assert await content(store, model) == whole


async def test_little_in_common_stays_whole(store: Store, tmp_path: Path) -> None:
    await add(store, folder(tmp_path / "base", tuned(layers=30)))
    model = await add(store, folder(tmp_path / "a", tuned(dict.fromkeys(range(28), 1), layers=30)))
    before = blobs_in(tmp_path)
    assert await store.share() == Shared()
    assert blobs_in(tmp_path) == before
    assert (await store.directory(model.revision) / "model-0.safetensors").is_symlink()


async def test_a_tensor_that_differs_outside_the_sample(store: Store, tmp_path: Path) -> None:
    base = tuned(layers=4)
    other = bytearray(base)
    other[-600] ^= 1  # in the last byte but a few of the last large tensor
    await add(store, folder(tmp_path / "base", base))
    model = await add(store, folder(tmp_path / "a", bytes(other)))
    assert (await store.share()).files == 1
    assert await content(store, model) == bytes(other)


async def test_the_base_stays_for_its_recipes(store: Store, tmp_path: Path) -> None:
    base = await add(store, folder(tmp_path / "base", tuned()))
    model = await add(store, folder(tmp_path / "a", tuned({3: 1})))
    await store.share()
    config = base.manifest.file("config.json")
    assert config is not None
    assert await store.remove(base.ref) == config.size_bytes
    assert await content(store, model) == tuned({3: 1})
    rest = sum(blobs_in(tmp_path).values())
    assert await store.remove(model.ref) == rest
    assert blobs_in(tmp_path) == {}


async def test_a_recipe_survives_a_restart(open_store: OpenStore, tmp_path: Path) -> None:
    async with open_store(**SMALL) as store:
        await add(store, folder(tmp_path / "base", tuned()))
        model = await add(store, folder(tmp_path / "a", tuned({3: 1})))
        await store.share()
        before = blobs_in(tmp_path)
    async with open_store(**SMALL) as store:
        assert blobs_in(tmp_path) == before
        assert await store.find(model.ref) == model
        assert await content(store, model) == tuned({3: 1})
        assert await store.share() == Shared()


async def test_what_was_compared_is_not_compared_again(store: Store, tmp_path: Path) -> None:
    async def count() -> None:
        looks.append(None)

    looks: list[None] = []
    await add(store, folder(tmp_path / "base", tuned(layers=4)))
    await add(store, folder(tmp_path / "a", tuned(dict.fromkeys(range(4), 1), layers=4)))
    for again, expected in ((False, True), (False, False), (True, True)):
        looks.clear()
        await store.share(again=again, calm=count)
        assert bool(looks) == expected


async def test_what_is_in_use_is_left_alone_until_it_is_not(store: Store, tmp_path: Path) -> None:
    await add(store, folder(tmp_path / "base", tuned()))
    model = await add(store, folder(tmp_path / "a", tuned({3: 1})))
    async with store.hold(model.revision) as directory:
        assert await store.share() == Shared(in_use=1)
        assert (directory / "model-0.safetensors").read_bytes() == tuned({3: 1})
        store.share_due.clear()
    assert store.share_due.is_set()
    assert (await store.share()).files == 1


@asynccontextmanager
async def comparing(
    store: Store, tmp_path: Path
) -> AsyncIterator[tuple[StoredModel, asyncio.Task[Shared], asyncio.Event]]:
    """A fine-tune of `base`, and the task that compares it, held in the midst of that until the event is set."""
    await add(store, folder(tmp_path / "base", tuned()))
    model = await add(store, folder(tmp_path / "a", tuned({3: 1})))
    at_work, go_on = asyncio.Event(), asyncio.Event()

    async def calm() -> None:
        at_work.set()
        await go_on.wait()

    async with asyncio.TaskGroup() as group:
        sharing = group.create_task(store.share(calm=calm))
        await at_work.wait()
        yield model, sharing, go_on


async def test_who_comes_to_use_it_while_it_is_compared_keeps_the_whole_file(store: Store, tmp_path: Path) -> None:
    async with comparing(store, tmp_path) as (model, sharing, go_on), store.hold(model.revision) as directory:
        go_on.set()
        assert await sharing == Shared(in_use=1)
        assert (directory / "model-0.safetensors").read_bytes() == tuned({3: 1})
    assert len(blobs_in(tmp_path)) == 4


async def test_what_is_removed_while_it_is_compared_is_gone_after(store: Store, tmp_path: Path) -> None:
    async with comparing(store, tmp_path) as (model, sharing, go_on):
        await store.remove(model.ref)
        await store.remove(ModelRef("base"))
        go_on.set()
        assert (await sharing).files == 0
    assert blobs_in(tmp_path) == {}
    assert list((tmp_path / "store/revisions").iterdir()) == []


async def test_what_is_removed_before_it_is_compared_is_passed_over(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The list of files was read before; nothing is wrong with one that is gone since."""
    async with comparing(store, tmp_path) as (_, sharing, go_on):
        later = await add(store, folder(tmp_path / "b", tuned({9: 1})))
        go_on.set()
        await sharing
    gone = asyncio.Event()

    async def calm() -> None:
        if not gone.is_set():
            gone.set()
            await store.remove(later.ref)

    assert (await store.share(calm=calm)).files == 0
    assert [each for each in caplog.records if each.levelno >= logging.WARNING] == []


async def test_cancelled_it_leaves_everything_as_it_was(store: Store, tmp_path: Path) -> None:
    await add(store, folder(tmp_path / "base", tuned()))
    model = await add(store, folder(tmp_path / "a", tuned({3: 1})))
    before = blobs_in(tmp_path)
    calls = 0
    last = asyncio.Event()

    async def calm() -> None:
        nonlocal calls
        calls += 1
        if calls > 40:  # in the midst of it
            last.set()
            await asyncio.Event().wait()

    async with asyncio.TaskGroup() as group:
        sharing = group.create_task(store.share(calm=calm))
        await last.wait()
        sharing.cancel()
    assert blobs_in(tmp_path) == before
    assert list((tmp_path / "store/incoming").iterdir()) == []
    assert await content(store, model) == tuned({3: 1})


async def test_the_same_file_once_more_keeps_the_recipe(store: Store, tmp_path: Path) -> None:
    await add(store, folder(tmp_path / "base", tuned()))
    first = await add(store, folder(tmp_path / "a", tuned({3: 1})))
    await store.share()
    before = blobs_in(tmp_path)
    second = await add(store, folder(tmp_path / "b", tuned({3: 1})))
    config = second.manifest.file("config.json")
    assert config is not None
    assert blobs_in(tmp_path).keys() - before.keys() == {config.digest}
    assert await content(store, first) == await content(store, second) == tuned({3: 1})


async def test_a_file_that_lost_what_it_is_made_of_is_made_whole_by_adding_it(store: Store, tmp_path: Path) -> None:
    await add(store, folder(tmp_path / "base", tuned()))
    model = await add(store, folder(tmp_path / "a", tuned({3: 1})))
    known = blobs_in(tmp_path)
    await store.share()
    (delta,) = blobs_in(tmp_path).keys() - known.keys()
    (tmp_path / "store/blobs/sha256" / delta[:2] / delta).unlink()
    with pytest.raises(CorruptData, match="is gone; add the model again"):
        await store.directory(model.revision)
    await add(store, tmp_path / "a")
    assert (await store.directory(model.revision) / "model-0.safetensors").read_bytes() == tuned({3: 1})


async def test_a_cut_blob_is_said(store: Store, tmp_path: Path) -> None:
    await add(store, folder(tmp_path / "base", tuned()))
    model = await add(store, folder(tmp_path / "a", tuned({3: 1})))
    known = blobs_in(tmp_path)
    await store.share()
    (delta,) = blobs_in(tmp_path).keys() - known.keys()
    os.truncate(tmp_path / "store/blobs/sha256" / delta[:2] / delta, 100)
    with pytest.raises(CorruptData, match="100 bytes instead of at least"):
        await store.directory(model.revision)


async def test_a_held_recipe_keeps_its_blobs(store: Store, tmp_path: Path) -> None:
    base = await add(store, folder(tmp_path / "base", tuned()))
    model = await add(store, folder(tmp_path / "a", tuned({3: 1})))
    await store.share()
    async with store.hold(model.revision) as directory:
        await store.remove(model.ref)
        await store.remove(base.ref)
        assert read(directory, "model-0.safetensors") == tuned({3: 1})
    assert blobs_in(tmp_path) == {}


async def test_a_held_recipe_whose_file_came_back_whole_leaves_nothing(store: Store, tmp_path: Path) -> None:
    base = await add(store, folder(tmp_path / "base", tuned()))
    model = await add(store, folder(tmp_path / "a", tuned({3: 1})))
    whole = blobs_in(tmp_path)
    await store.share()
    async with store.hold(model.revision):
        await store.remove(model.ref)
        await add(store, tmp_path / "a")
    usage = await store.usage()
    assert usage.physical_bytes == sum(blobs_in(tmp_path).values()) <= sum(whole.values())
    assert await content(store, model) == tuned({3: 1})
    await store.remove(base.ref)
    assert await content(store, model) == tuned({3: 1})


async def test_whole_files_for_who_needs_them(store: Store, tmp_path: Path) -> None:
    await add(store, folder(tmp_path / "base", tuned()))
    model = await add(store, folder(tmp_path / "a", tuned({3: 1})))
    await store.share()
    async with store.hold(model.revision, whole=True) as one:
        async with store.hold(model.revision, whole=True) as two:
            assert one == two
            assert (one / "config.json").exists()
            assert (await store.usage()).whole_bytes == len(tuned())
        assert (one / "model-0.safetensors").read_bytes() == tuned({3: 1})
        assert list(one.glob("*.recipe")) == []
        async with store.hold(model.revision) as pieces:
            assert pieces != one
            assert read(pieces, "model-0.safetensors") == tuned({3: 1})
    assert [path for path in (tmp_path / "store/whole").rglob("*") if path.is_file()] == []
    assert (await store.usage()).whole_bytes == 0


async def test_without_recipes_whole_is_the_directory_itself(store: Store, tmp_path: Path) -> None:
    model = await add(store, folder(tmp_path / "base", tuned()))
    async with store.hold(model.revision, whole=True) as directory:
        assert directory == await store.directory(model.revision)


async def test_wrong_pieces_are_never_given_as_whole(store: Store, tmp_path: Path) -> None:
    await add(store, folder(tmp_path / "base", tuned()))
    model = await add(store, folder(tmp_path / "a", tuned({3: 1})))
    known = blobs_in(tmp_path)
    await store.share()
    (delta,) = blobs_in(tmp_path).keys() - known.keys()
    path = tmp_path / "store/blobs/sha256" / delta[:2] / delta
    path.chmod(0o644)
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(CorruptData, match="its pieces make"):
        async with store.hold(model.revision, whole=True):
            pass
    assert [path for path in (tmp_path / "store/whole").rglob("*") if path.is_file()] == []


async def test_a_start_throws_whole_files_away(open_store: OpenStore, tmp_path: Path) -> None:
    left = tmp_path / "store/whole/files" / ("ab" * 32)
    left.parent.mkdir(parents=True)
    left.write_bytes(b"x")
    async with open_store():
        assert not left.parent.exists()


async def test_a_blob_that_a_recipe_is_made_of_is_no_recipe(store: Store, tmp_path: Path) -> None:
    """Also when an older model comes, whose files the base would share."""
    base = await add(store, folder(tmp_path / "base", tuned()))
    await add(store, folder(tmp_path / "a", tuned({3: 1})))
    await store.share()
    await add(store, folder(tmp_path / "b", tuned({9: 1})))
    await store.remove(base.ref)
    again = await add(store, tmp_path / "base")
    await store.share(again=True)
    assert (await store.directory(again.revision) / "model-0.safetensors").is_symlink()
    digest = again.manifest.file("model-0.safetensors")
    assert digest is not None
    assert Digest(digest.digest) in blobs_in(tmp_path)
