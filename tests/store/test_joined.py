"""Two who ask for one model at once: one download, one progress, and neither depends on the other staying."""

import asyncio

import pytest

from heliosd.errors import CorruptData
from heliosd.store.sources.source import Progress
from heliosd.store.stored import Addition
from tests.store.conftest import OpenStore
from tests.store.hub_server import HubServer
from tests.store.models import model_files

CHUNK = 1 << 18
BIG = 2 << 20
FILE = "model.safetensors"
MODEL = Addition("hub", "org/m")


async def until_half(hub: HubServer) -> None:
    """Half of the file is sent, and no more comes until the test lets it flow."""
    while hub.sent_bytes < BIG // 2:  # noqa: ASYNC110
        await asyncio.sleep(0.001)


async def test_the_second_joins_and_sees_the_same_progress(open_store: OpenStore, hub: HubServer) -> None:
    hub.files["org/m"] = model_files(BIG)
    hub.held = lambda path, first, at: at >= BIG // 2
    one: list[Progress] = []
    two: list[Progress] = []
    async with open_store(endpoint=hub.url, chunk_bytes=CHUNK) as store, asyncio.TaskGroup() as group:
        first = group.create_task(store.add(MODEL, one.append))
        await until_half(hub)
        second = group.create_task(store.add(MODEL, two.append))
        await asyncio.sleep(0)
        hub.flow.set()
    assert first.result() == second.result()
    assert len(two) > 2
    assert two == one[-len(two) :], "where it stands, and then all that follows"
    asked = [seen.range for seen in hub.asked(FILE)]
    assert len(asked) == len(set(asked))
    assert len([seen for seen in hub.log if seen.path.startswith("/api/")]) == 1


@pytest.mark.parametrize("leaves", [0, 1])
async def test_when_one_leaves_the_other_gets_the_model(open_store: OpenStore, hub: HubServer, leaves: int) -> None:
    hub.files["org/m"] = model_files(BIG)
    hub.held = lambda path, first, at: at >= BIG // 2
    async with open_store(endpoint=hub.url, chunk_bytes=CHUNK) as store, asyncio.TaskGroup() as group:
        asking = [group.create_task(store.add(MODEL, lambda _: None)) for _ in range(2)]
        await until_half(hub)
        asking[leaves].cancel()
        await asyncio.wait([asking[leaves]])
        hub.flow.set()
        model = await asking[1 - leaves]
        assert (await store.directory(model.revision) / FILE).read_bytes() == hub.files["org/m"][FILE]
    assert hub.sent_bytes <= sum(map(len, hub.files["org/m"].values())) + 8 * CHUNK


async def test_when_both_leave_it_ends(open_store: OpenStore, hub: HubServer) -> None:
    hub.files["org/m"] = model_files(BIG)
    hub.held = lambda path, first, at: at >= BIG // 2
    async with open_store(endpoint=hub.url, chunk_bytes=CHUNK) as store, asyncio.TaskGroup() as group:
        asking = [group.create_task(store.add(MODEL, lambda _: None)) for _ in range(2)]
        await until_half(hub)
        for task in asking:
            task.cancel()
        await asyncio.wait(asking)
        assert all(task.cancelled() for task in asking)
        assert await store.models() == ()


async def test_what_goes_wrong_everybody_learns(open_store: OpenStore, hub: HubServer) -> None:
    hub.files["org/m"] = model_files(BIG)
    hub.served[FILE] = hub.files["org/m"][FILE][:-1] + b"x"
    hub.held = lambda path, first, at: at >= BIG // 2
    async with open_store(endpoint=hub.url, chunk_bytes=CHUNK) as store, asyncio.TaskGroup() as group:

        async def fails() -> None:
            with pytest.raises(CorruptData):
                await store.add(MODEL, lambda _: None)

        tasks = [group.create_task(fails()) for _ in range(2)]
        await until_half(hub)
        hub.flow.set()
        await asyncio.wait(tasks)
        hub.served.clear()
        await store.add(MODEL, lambda _: None)
