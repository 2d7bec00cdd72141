"""The store as the rest of Helios sees it."""

import asyncio
import os
from collections.abc import Awaitable
from pathlib import Path

import pytest

from heliosd.core.names import Digest, ModelRef, parse_ref
from heliosd.core.units import TiB
from heliosd.errors import BadRequest, Conflict, CorruptData, NotFound, Unavailable
from heliosd.store.claims import MAX_AGE_S
from heliosd.store.sources.source import Progress
from heliosd.store.store import Store
from heliosd.store.stored import Addition, StoredModel, default_ref
from tests.store.conftest import OpenStore
from tests.store.hub_server import HubServer
from tests.store.models import config, model_files, write_folder


def ignore(_: Progress) -> None:
    pass


async def add(store: Store, folder: Path, **more: object) -> StoredModel:
    return await store.add(Addition("directory", str(folder), **more), ignore)  # type: ignore[arg-type]


def files_in(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file() and path.name != "lock")


async def test_a_model_comes_in_and_goes_out(store: Store, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "Tiny-1.5B", model_files())
    model = await add(store, folder, alias="tiny")
    assert str(model.ref) == "Tiny-1.5B"
    assert model.aliases == ("tiny",)
    assert model.source == f"directory {folder}"
    assert model.revision == model.manifest.digest
    assert (model.profile.layers, model.profile.weights_bytes) == (2, 4096)
    assert await store.models() == (model,)
    assert await store.find(parse_ref("tiny")) == model
    directory = await store.directory(model.revision)
    assert (directory / "config.json").read_bytes() == config()
    assert await store.remove(parse_ref("tiny")) == model.manifest.size_bytes
    assert await store.models() == ()
    assert files_in(tmp_path / "store") == []
    with pytest.raises(NotFound, match=r"Tiny-1\.5B"):
        await store.remove(model.ref)
    with pytest.raises(NotFound):
        await store.directory(model.revision)


async def test_it_is_all_there_after_a_restart(open_store: OpenStore, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m", model_files())
    async with open_store() as store:
        model = await add(store, folder)
    async with open_store() as store:
        assert await store.models() == (model,)
        assert (await store.directory(model.revision) / "config.json").exists()


async def test_shared_files_are_freed_with_the_last_model(store: Store, tmp_path: Path) -> None:
    first = await add(store, write_folder(tmp_path / "a", model_files()))
    second = await add(store, write_folder(tmp_path / "b", model_files() | {"config.json": config(b=1)}))
    assert await store.remove(first.ref) == len(config())
    await store.directory(second.revision)
    assert await store.remove(second.ref) == second.manifest.size_bytes


async def test_a_ref_added_again_means_the_new_revision(store: Store, tmp_path: Path) -> None:
    old = await add(store, write_folder(tmp_path / "m", model_files()), alias="x")
    new = await add(store, write_folder(tmp_path / "m", model_files(seed=1)))
    assert old.revision != new.revision
    assert new.aliases == ("x",)
    assert await store.models() == (new,)
    assert (await store.directory(old.revision) / "config.json").exists(), "what it meant before stays"
    await store.remove(new.ref)
    assert files_in(tmp_path / "store") == []
    assert list((tmp_path / "store/revisions").iterdir()) == []


async def test_adding_the_same_again_changes_nothing(store: Store, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m", model_files())
    assert await add(store, folder) == await add(store, folder)


async def test_aliases(store: Store, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m", model_files())
    first, second = await add(store, folder), await add(store, folder, ref=ModelRef("org/two"))
    await store.set_alias("best", first.ref)
    await store.set_alias("best", second.ref)
    found = await store.find(ModelRef("best"))
    assert found is not None
    assert found.ref == second.ref
    with pytest.raises(Conflict, match="a model has that name"):
        await store.set_alias("m", second.ref)
    with pytest.raises(BadRequest):
        await store.set_alias("x@y", second.ref)
    with pytest.raises(NotFound):
        await store.set_alias("x", ModelRef("none"))
    with pytest.raises(Conflict, match="is an alias of another"):
        await add(store, folder, ref=ModelRef("best"))


@pytest.mark.parametrize(
    ("wanted", "ref"),
    [
        (Addition("hub", "org/name"), "org/name"),
        (Addition("hub", "org/name", revision="refs/pr/1"), "org/name@refs/pr/1"),
        (Addition("directory", "/models/Smol-1.7B/"), "Smol-1.7B"),
        (Addition("gguf", "/models/SmolLM2-135M-Instruct.Q4_1.gguf"), "SmolLM2-135M-Instruct.Q4_1"),
    ],
)
def test_names_when_nobody_gives_one(wanted: Addition, ref: str) -> None:
    assert str(default_ref(wanted)) == ref


def test_a_folder_whose_name_is_none() -> None:
    with pytest.raises(BadRequest, match="give it a name"):
        default_ref(Addition("directory", "/models/my model"))


async def test_one_addition_of_a_ref_at_a_time(store: Store, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m", model_files())
    async with asyncio.TaskGroup() as group:
        first = group.create_task(add(store, folder))
        await asyncio.sleep(0)
        with pytest.raises(Conflict, match="is being added in another way"):
            await add(store, folder, alias="other")
        with pytest.raises(Conflict, match="is being added or removed"):
            await store.remove(ModelRef("m"))
    assert await store.models() == (first.result(),)


async def test_a_cancelled_addition_leaves_nothing(store: Store, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m", model_files(16 << 20))
    begun = asyncio.Event()
    tell = lambda line: begun.set() if line.done_bytes >= 8 << 20 else None  # noqa: E731
    async with asyncio.TaskGroup() as group:
        adding = group.create_task(store.add(Addition("directory", str(folder)), tell))
        await begun.wait()
        adding.cancel()
    assert adding.cancelled()
    assert files_in(tmp_path / "store") == []
    assert (await add(store, folder)).ref == ModelRef("m")


async def test_a_disk_too_small_is_known_before(store: Store, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m", model_files())
    os.truncate(folder / "model.safetensors", 8 * TiB)
    with pytest.raises(Unavailable, match=r"it needs 8\.0 TiB of disk and .* has .* to spare") as caught:
        await add(store, folder)
    assert caught.value.code == "disk_full"
    assert "`heliosctl gc --dry-run` finds nothing else that could go" in caught.value.message
    assert files_in(tmp_path / "store") == []


async def test_one_daemon_per_root(open_store: OpenStore, tmp_path: Path) -> None:
    async with open_store():
        with pytest.raises(Conflict, match="another daemon has it"):
            async with open_store():
                pass
    async with open_store():
        pass


async def test_rubbish_is_swept_at_the_start(open_store: OpenStore, tmp_path: Path) -> None:
    async with open_store() as store:
        model = await add(store, write_folder(tmp_path / "m", model_files()))
        kept = files_in(tmp_path / "store")
    root = tmp_path / "store"
    unknown = Digest("ab" + "0" * 62)
    write_folder(
        root,
        {
            f"blobs/sha256/ab/{unknown}": b"x",
            "incoming/new-1.part": b"x",
            f"incoming/{unknown}.part": b"x",
            f"incoming/{unknown}.journal": b"{}",
            "incoming/broken.claim": b"{",
            "incoming/gguf-1/model/config.json": b"{}",
            f"revisions/{unknown}/config.json": b"{}",
        },
    )
    async with open_store() as store:
        assert files_in(root) == kept
        assert await store.models() == (model,)


async def test_an_old_claim_no_longer_counts(open_store: OpenStore, hub: HubServer, tmp_path: Path) -> None:
    hub.files["org/m"] = model_files(1 << 20)
    hub.cuts = 9
    async with open_store(endpoint=hub.url, clock=lambda: 1000.0) as store:
        with pytest.raises(Exception, match="attempts in a row"):
            await store.add(Addition("hub", "org/m"), ignore)
    async with open_store(clock=lambda: 1000.0 + MAX_AGE_S - 1):
        assert len(files_in(tmp_path / "store")) > 1
    async with open_store(clock=lambda: 1000.0 + MAX_AGE_S):
        assert files_in(tmp_path / "store") == []


async def test_a_damaged_model_is_listed_and_refused(open_store: OpenStore, tmp_path: Path) -> None:
    async with open_store() as store:
        model = await add(store, write_folder(tmp_path / "m", model_files()))
    file = model.manifest.file("model.safetensors")
    assert file is not None
    (tmp_path / "store/blobs/sha256" / file.digest[:2] / file.digest).unlink()
    async with open_store() as store:
        (listed,) = await store.models()
        assert listed == model, "its facts are remembered"
        assert (await store.known(listed)).stored is None
        with pytest.raises(CorruptData, match="is gone; add the model again"):
            await store.directory(model.revision)
        assert await add(store, tmp_path / "m") == model
        assert (await store.directory(model.revision) / "model.safetensors").exists()


async def test_files_are_read_off_the_loop(store: Store, tmp_path: Path) -> None:
    """While 16 MiB are hashed and written the loop goes on turning."""
    folder = write_folder(tmp_path / "m", model_files(16 << 20))
    turns = 0
    async with asyncio.TaskGroup() as group:
        adding = group.create_task(add(store, folder))
        while not adding.done():
            await asyncio.sleep(0)
            turns += 1
    assert turns > 50


async def test_a_held_revision_stays_until_it_is_let_go(store: Store, tmp_path: Path) -> None:
    old = await add(store, write_folder(tmp_path / "m", model_files()))
    async with store.hold(old.revision) as directory, store.hold(old.revision) as same:
        assert directory == same
        new = await add(store, write_folder(tmp_path / "m", model_files(seed=1)))
        assert await store.remove(new.ref) == len(model_files(seed=1)["model.safetensors"]), "the rest is held"
        assert {path.name: path.read_bytes() for path in directory.iterdir()} == model_files()
    assert files_in(tmp_path / "store") == []
    assert list((tmp_path / "store/revisions").iterdir()) == []
    with pytest.raises(NotFound):
        async with store.hold(old.revision):
            pass


async def test_what_came_back_while_it_was_held_stays_after(store: Store, tmp_path: Path) -> None:
    model = await add(store, write_folder(tmp_path / "m", model_files()))
    async with store.hold(model.revision):
        assert await store.remove(model.ref) == 0
        await add(store, tmp_path / "m")
    async with store.hold(model.revision) as directory:
        assert (directory / "config.json").read_bytes() == config()


async def test_letting_go_never_raises(open_store: OpenStore, tmp_path: Path) -> None:
    """Whoever used the model has no part in it; the next start sweeps."""
    async with open_store() as store:
        model = await add(store, write_folder(tmp_path / "m", model_files()))
        async with store.hold(model.revision):
            await store.remove(model.ref)
            incoming = tmp_path / "store/incoming"
            incoming.rename(tmp_path / "elsewhere")
        (tmp_path / "elsewhere").rename(incoming)
    async with open_store():
        assert files_in(tmp_path / "store") == []


async def test_every_commit_is_told_at_once(open_store: OpenStore, tmp_path: Path) -> None:
    told: list[None] = []
    async with open_store(changed=lambda: told.append(None)) as store:
        steps: list[int] = []

        async def step(work: Awaitable[object]) -> None:
            before = len(told)
            await work
            steps.append(len(told) - before)

        folder = write_folder(tmp_path / "m", model_files())
        await step(add(store, folder))
        await step(store.set_alias("x", ModelRef("m")))
        await step(store.remove_alias("x"))
        await step(store.models())
        await step(store.remove(ModelRef("m")))
    assert steps == [1, 1, 1, 0, 1]


async def test_a_damaged_model_is_read_and_told_of_once(
    open_store: OpenStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_store() as store:
        model = await add(store, write_folder(tmp_path / "m", model_files()))
    file = model.manifest.file("model.safetensors")
    assert file is not None
    (tmp_path / "store/blobs/sha256" / file.digest[:2] / file.digest).unlink()
    async with open_store() as store:
        caplog.clear()
        for _ in range(3):
            (listed,) = await store.models()
            assert (await store.known(listed)).stored is None
        assert [record.message for record in caplog.records] == ["model is damaged"]
        await add(store, tmp_path / "m")
        (listed,) = await store.models()
        assert (await store.known(listed)).stored is not None


async def test_an_alias_is_taken_back(store: Store, tmp_path: Path) -> None:
    model = await add(store, write_folder(tmp_path / "m", model_files()), alias="x")
    assert await store.remove_alias("x") == model.ref
    assert await store.find(ModelRef("x")) is None
    with pytest.raises(NotFound, match="there is no alias x"):
        await store.remove_alias("x")
    with pytest.raises(NotFound, match="there is no alias m"):
        await store.remove_alias("m")
