"""Weights that others have are let go and come back; what nobody else has stays, whatever was believed."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from heliosd.core.names import Digest, ModelRef
from heliosd.core.retention import Tier
from heliosd.errors import Conflict, HeliosError, NotFound, SourceFailed
from heliosd.store.store import Store
from heliosd.store.stored import Addition, StoredModel
from tests.store.conftest import OpenStore
from tests.store.hub_server import HubServer
from tests.store.models import config, model_files, write_folder
from tests.store.peer_server import Neighbours, PeerServer, running_peer, sha256

SIZE = 1 << 20
CHUNK = 1 << 17
FILES = model_files(SIZE)
WEIGHTS = FILES["model.safetensors"]
REF = ModelRef("org/m")


async def bring(store: Store, folder: Path, files: dict[str, bytes] = FILES, ref: ModelRef = REF) -> StoredModel:
    return await store.add(Addition("directory", str(write_folder(folder, files)), ref), lambda progress: None)


async def pull(store: Store) -> StoredModel:
    return await store.add(Addition(source="hub", location="org/m"), lambda progress: None)


def here(tmp_path: Path) -> set[str]:
    return {path.name for path in (tmp_path / "store" / "blobs" / "sha256").glob("*/*")}


async def used(store: Store, model: StoredModel) -> dict[str, bytes]:
    async with store.hold(model.revision) as directory:
        return {file.path: (directory / file.path).read_bytes() for file in model.manifest.files}


@pytest.fixture
async def east() -> AsyncIterator[PeerServer]:
    async with running_peer(PeerServer("east", {"org/m": FILES})) as peer:
        yield peer


async def test_a_model_goes_to_a_peer_and_comes_back(open_store: OpenStore, east: PeerServer, tmp_path: Path) -> None:
    async with open_store() as store:
        store.ask_nearby(Neighbours([east]))
        model = await bring(store, tmp_path / "m")
        known = await store.known(model)
        assert await store.let_go(REF, Tier.PEER) == len(WEIGHTS)
        assert sha256(WEIGHTS) not in here(tmp_path)
        assert {digest: (file.tier, file.size_bytes) for digest, file in (await store.away()).items()} == {
            sha256(WEIGHTS): (Tier.PEER, len(WEIGHTS))
        }
        assert await store.models() == (model,)
        assert (await store.sizes())[1] == sum(map(len, FILES.values())) - len(WEIGHTS)
    async with open_store() as store:
        store.ask_nearby(Neighbours([east]))
        assert await store.models() == (model,), "a restart forgets nothing"
        assert await store.known(model) == known, "it is estimated as before"
        assert await used(store, model) == FILES
        assert await store.away() == {}
        assert not any((tmp_path / "store" / "away").iterdir())
        assert store.fetch_speeds["peer"] > 0
        east.models.clear()
        assert await used(store, model) == FILES, "it is here to stay"
    async with open_store() as store:
        assert await used(store, model) == FILES


async def test_nothing_goes_that_nobody_else_has(open_store: OpenStore, east: PeerServer, tmp_path: Path) -> None:
    async with open_store() as store:
        model = await bring(store, tmp_path / "m")
        with pytest.raises(Conflict, match=r"no other node that is alive has 1, such as model\.safetensors"):
            await store.let_go(REF, Tier.PEER)
        with pytest.raises(Conflict, match="it did not come from the hub"):
            await store.let_go(REF, Tier.HUB)
        east.models["org/m"] = model_files(SIZE, seed=1)
        store.ask_nearby(Neighbours([east]))
        with pytest.raises(Conflict, match="no other node"):
            await store.let_go(REF, Tier.PEER)
        with pytest.raises(NotFound):
            await store.let_go(ModelRef("org/none"), Tier.PEER)
        assert await used(store, model) == FILES


async def test_what_is_in_use_stays(open_store: OpenStore, east: PeerServer, tmp_path: Path) -> None:
    async with open_store() as store:
        store.ask_nearby(Neighbours([east]))
        model = await bring(store, tmp_path / "m")
        async with store.hold(model.revision) as directory:
            with pytest.raises(Conflict, match="in use") as refused:
                await store.let_go(REF, Tier.PEER)
            assert refused.value.code == "model_in_use"
            assert (directory / "model.safetensors").read_bytes() == WEIGHTS
        async with store.serving.file(Digest(sha256(WEIGHTS)), to_peer=True):
            with pytest.raises(Conflict, match="in use"):
                await store.let_go(REF, Tier.PEER)
        assert await store.let_go(REF, Tier.PEER) == len(WEIGHTS)
        with pytest.raises(Conflict, match="none of its weights are here"):
            await store.let_go(REF, Tier.PEER)


async def test_what_another_model_needs_stays(open_store: OpenStore, east: PeerServer, tmp_path: Path) -> None:
    async with open_store() as store:
        store.ask_nearby(Neighbours([east]))
        await bring(store, tmp_path / "m")
        other = {**FILES, "config.json": config(rope_theta=5.0)}
        model = await bring(store, tmp_path / "n", other, ModelRef("org/n"))
        with pytest.raises(Conflict, match="other models are made of all of them"):
            await store.let_go(REF, Tier.PEER)
        assert await used(store, model) == other


async def test_two_that_let_go_at_once_do_not_both_believe_the_other(
    open_store: OpenStore, east: PeerServer, tmp_path: Path
) -> None:
    """While a node asks others, it says itself that it does not have the file."""
    asked = asyncio.Event()

    class Watching(Neighbours):
        async def holders(self, digest, size_bytes):  # type: ignore[no-untyped-def]
            with pytest.raises(NotFound):
                async with store.serving.file(digest, to_peer=True):
                    pass
            asked.set()
            return await super().holders(digest, size_bytes)

    async with open_store() as store:
        store.ask_nearby(Watching([]))
        await bring(store, tmp_path / "m")
        with pytest.raises(Conflict):
            await store.let_go(REF, Tier.PEER)
        assert asked.is_set()
        async with store.serving.file(Digest(sha256(WEIGHTS)), to_peer=True) as served:
            assert served.size_bytes == len(WEIGHTS)


async def test_a_model_goes_to_the_hub_and_comes_back_once_for_all(
    open_store: OpenStore, hub: HubServer, tmp_path: Path
) -> None:
    hub.files["org/m"] = FILES
    async with open_store(endpoint=hub.url, chunk_bytes=CHUNK) as store:
        model = await pull(store)
        assert await store.let_go(REF, Tier.HUB) == len(WEIGHTS)
        hub.sent_bytes = 0
        async with asyncio.TaskGroup() as tasks:
            users = [tasks.create_task(used(store, model)) for _ in range(3)]
        assert [user.result() for user in users] == [FILES] * 3
        assert hub.sent_bytes == len(WEIGHTS)
        assert store.returning == {}


async def test_what_the_hub_no_longer_lists_stays(open_store: OpenStore, hub: HubServer, tmp_path: Path) -> None:
    hub.files["org/m"] = dict(FILES)
    async with open_store(endpoint=hub.url) as store:
        model = await pull(store)
        hub.files["org/m"] = model_files(SIZE, seed=1)
        with pytest.raises(NotFound, match="a branch, tag or commit that exists"):
            await store.let_go(REF, Tier.HUB)
        del hub.files["org/m"]
        with pytest.raises(HeliosError):
            await store.let_go(REF, Tier.HUB)
        assert await used(store, model) == FILES


async def test_a_return_that_fails_is_gone_on_with(open_store: OpenStore, east: PeerServer, tmp_path: Path) -> None:
    async with open_store(chunk_bytes=CHUNK) as store:
        store.ask_nearby(Neighbours([east]))
        model = await bring(store, tmp_path / "m")
        await store.let_go(REF, Tier.PEER)
        east.dies_after = SIZE // 2
        with pytest.raises(SourceFailed, match="bytes are kept; ask again"):
            await used(store, model)
    async with open_store(chunk_bytes=CHUNK) as store:
        store.ask_nearby(Neighbours([east]))
        east.dies_after, east.sent_bytes = None, 0
        assert await used(store, model) == FILES
        assert east.sent_bytes <= SIZE - SIZE // 2 + 2 * CHUNK


async def test_a_model_that_is_away_can_be_removed_and_added_again(
    open_store: OpenStore, east: PeerServer, tmp_path: Path
) -> None:
    async with open_store() as store:
        store.ask_nearby(Neighbours([east]))
        await bring(store, tmp_path / "m")
        await store.let_go(REF, Tier.PEER)
        again = await bring(store, tmp_path / "m")
        assert await store.away() == {}
        await store.let_go(REF, Tier.PEER)
        await store.remove(REF)
        assert (await store.away(), here(tmp_path)) == ({}, set())
        assert await store.find(again.ref) is None
        assert (await store.garbage({})).freed_bytes == 0


async def test_a_kill_between_the_row_and_the_bytes_leaves_neither_half(
    open_store: OpenStore, east: PeerServer, tmp_path: Path
) -> None:
    async with open_store() as store:
        store.ask_nearby(Neighbours([east]))
        model = await bring(store, tmp_path / "m")
        files = {Digest(sha256(WEIGHTS)): len(WEIGHTS)}
        assert await store._letting_go._away.leave(model.revision, files, Tier.PEER, 1.0)  # and here it is killed
    async with open_store() as store:
        assert sha256(WEIGHTS) not in here(tmp_path)
        store.ask_nearby(Neighbours([east]))
        assert await used(store, model) == FILES
