"""The node and files that the store keeps in pieces: shared in the background, put together for who needs that."""

import asyncio
from pathlib import Path

import pytest

from heliosd.core.names import ModelRef
from heliosd.sharing import BackgroundSharing
from heliosd.state.journal import JournalEntry
from heliosd.store.stored import Addition, StoredModel
from tests.node.world import World, world, write_model
from tests.store.related import KiB, weights

SMALL = {"shared_file_bytes": 16 * KiB, "shared_run_bytes": 4 * KiB}


async def add(here: World, name: str, *seeds: int) -> StoredModel:
    content = weights({f"l{number}": [(32 * KiB, seed)] for number, seed in enumerate(seeds)})

    def write() -> Path:
        path = write_model(here.folder / name, name)
        (path / "model.safetensors").write_bytes(content)
        return path

    return await here.store.add(
        Addition("directory", str(await asyncio.to_thread(write)), ModelRef(name)), lambda _: None
    )


async def first_share(here: World) -> JournalEntry:
    async for entry in here.journal.follow():
        if entry.kind == "share":
            return entry
    raise AssertionError("the journal ended")


async def test_what_is_added_is_shared_and_noted(tmp_path: Path) -> None:
    async with world(tmp_path, sharing=SMALL) as here, asyncio.TaskGroup() as tasks:
        sharing = tasks.create_task(BackgroundSharing(here.store, here.node, here.journal).run())
        noting = tasks.create_task(first_share(here))
        await add(here, "base", 0, 0, 0)
        await add(here, "tune", 0, 0, 1)
        entry = await noting
        logical_bytes, physical_bytes = await here.store.sizes()
        assert entry.detail["files"] == 1
        assert entry.detail["freed_bytes"] == logical_bytes - physical_bytes
        assert "are free" in entry.message
        sharing.cancel()


@pytest.mark.parametrize(("args", "whole"), [({}, False), ({"load_format": "safetensors"}, True)])
async def test_an_engine_with_a_load_format_of_its_own_gets_whole_files(
    tmp_path: Path, args: dict[str, str], whole: bool
) -> None:
    async with world(tmp_path, sharing=SMALL, models={"tune": {"engine_args": args}}) as here:
        await add(here, "base", 0, 0, 0)
        model = await add(here, "tune", 0, 0, 1)
        assert (await here.store.share()).files == 1
        async with here.node.lease(here.node.new_ticket(), ModelRef("tune")):
            file = model.manifest.file("model.safetensors")
            assert file is not None
            assert (await here.store.usage()).whole_bytes == (file.size_bytes if whole else 0)


async def test_it_waits_while_an_engine_starts(tmp_path: Path) -> None:
    """And goes on when the engine is ready; what that one uses stays as it is."""
    async with world(tmp_path, sharing=SMALL) as here:
        await add(here, "base", 0, 0, 0)
        await add(here, "tune", 0, 0, 1)
        sharing = BackgroundSharing(here.store, here.node, here.journal)
        async with asyncio.TaskGroup() as tasks:
            loading = tasks.create_task(here.node.load(ModelRef("base")))
            version = -1
            while not here.node.starting:
                version = await here.node.changed(version)
            looking = tasks.create_task(sharing.look())
            await loading
            assert not here.node.starting
            assert (await looking).files == 1
