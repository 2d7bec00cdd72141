"""Files come from other nodes when those have them, whatever such a node does wrong."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from heliosd.core.names import ModelRef
from heliosd.errors import NotFound, SourceFailed
from heliosd.store.sources.nearby import Offer
from heliosd.store.sources.peers import origin_of
from heliosd.store.sources.wanted import Patience
from heliosd.store.store import Store
from heliosd.store.stored import Addition, StoredModel
from tests.store.conftest import OpenStore
from tests.store.hub_server import HubServer
from tests.store.models import model_files
from tests.store.peer_server import Neighbours, PeerServer, running_peer

SIZE = 1 << 20
CHUNK = 1 << 17
FILES = model_files(SIZE)
WEIGHTS = FILES["model.safetensors"]
QUICK = Patience(
    attempts=2, first_wait_s=0.001, silence_s=5.0, worth_bytes=CHUNK, least_bytes_per_s=1 << 20, slow_after_s=0.05
)


async def add(store: Store) -> StoredModel:
    return await store.add(Addition(source="hub", location="org/m"), lambda progress: None)


async def content(store: Store, model: StoredModel) -> dict[str, bytes]:
    async with store.hold(model.revision) as directory:
        return {file.path: (directory / file.path).read_bytes() for file in model.manifest.files}


@pytest.fixture
async def east() -> AsyncIterator[PeerServer]:
    async with running_peer(PeerServer("east", {"org/m": FILES})) as peer:
        yield peer


@pytest.fixture
async def south() -> AsyncIterator[PeerServer]:
    async with running_peer(PeerServer("south", {"org/m": FILES})) as peer:
        yield peer


async def test_large_files_come_from_a_node_that_has_them_in_ranges(
    open_store: OpenStore, hub: HubServer, east: PeerServer
) -> None:
    hub.files["org/m"] = FILES
    async with open_store(endpoint=hub.url, chunk_bytes=CHUNK) as store:
        store.ask_nearby(Neighbours([east]))
        found = await add(store)
        assert await content(store, found) == FILES
        assert hub.asked("model.safetensors") == []
        assert len(east.asked) == len(WEIGHTS) // CHUNK + 1
        assert store.fetched["peer"] == len(WEIGHTS)
        assert store.fetched["hub"] == sum(map(len, FILES.values())) - len(WEIGHTS)


async def test_without_a_hub_all_comes_from_the_node(open_store: OpenStore, east: PeerServer) -> None:
    async with open_store(chunk_bytes=CHUNK) as store:
        store.ask_nearby(Neighbours([east]))
        found = await add(store)
        assert await content(store, found) == FILES
        assert found.source == "hub org/m at cccccccccccc, from node east"
        assert store.fetched == {"hub": 0, "peer": sum(map(len, FILES.values()))}


async def test_a_commit_is_found_under_the_name_that_the_node_has(open_store: OpenStore, east: PeerServer) -> None:
    async with open_store() as store:
        store.ask_nearby(Neighbours([east]))
        found = await store.add(Addition(source="hub", location="org/m", revision="c" * 40), lambda progress: None)
        assert await content(store, found) == FILES
        with pytest.raises(SourceFailed, match="switched off"):
            await store.add(Addition(source="hub", location="org/m", revision="d" * 40), lambda progress: None)


async def test_a_name_that_the_hub_does_not_know_comes_from_the_node(
    open_store: OpenStore, hub: HubServer, east: PeerServer
) -> None:
    async with open_store(endpoint=hub.url) as store:
        store.ask_nearby(Neighbours([east]))
        assert await content(store, await add(store)) == FILES
        with pytest.raises(NotFound, match="there is no such repository"):
            await store.add(Addition(source="hub", location="org/other"), lambda progress: None)


async def test_a_gated_model_is_not_got_around_the_hub(open_store: OpenStore, hub: HubServer, east: PeerServer) -> None:
    hub.files["org/m"], hub.token = FILES, "secret"
    async with open_store(endpoint=hub.url, token="wrong") as store:
        store.ask_nearby(Neighbours([east]))
        with pytest.raises(Exception, match="restrict access"):
            await add(store)
        assert east.asked == []


async def test_what_the_hub_restricts_is_marked_also_behind_another_node(
    open_store: OpenStore, hub: HubServer, east: PeerServer
) -> None:
    hub.files["org/m"], hub.token, hub.gated = FILES, "secret", True
    async with open_store(
        endpoint=hub.url, token="secret", may_give=lambda ref, origin: "restricted" in origin
    ) as store:
        await add(store)
        assert (await store.serving.model(ModelRef("org/m"))).origin["restricted"] is True
    offer = Offer("east", (), {"kind": "hub", "location": "org/m", "restricted": True, "commit": ["no word"]})
    assert origin_of(offer, ModelRef("m")) == {
        "kind": "hub",
        "location": "org/m",
        "restricted": True,
        "peer": "east",
    }
    offer = Offer("east", (), {"kind": "hub", "location": 7})
    assert origin_of(offer, ModelRef("m")) == {"kind": "peer", "location": "m", "peer": "east"}


@pytest.mark.parametrize("fault", ["lies", "short", "dies", "trickles", "redirects"])
async def test_a_node_that_fails_costs_a_try_elsewhere(
    open_store: OpenStore, east: PeerServer, south: PeerServer, fault: str
) -> None:
    match fault:
        case "lies":
            east.lies = True
        case "short":
            east.short_by = 100
        case "dies":
            east.dies_after = SIZE // 2
        case "trickles":
            east.trickles = True
        case "redirects":
            east.redirects = True
    async with open_store(chunk_bytes=CHUNK, with_peers=QUICK) as store:
        nearby = Neighbours([east, south])
        store.ask_nearby(nearby)
        found = await add(store)
        assert await content(store, found) == FILES
        assert ("east", fault == "lies") in nearby.failures
        assert "south" not in dict(nearby.failures)
        if fault == "dies":
            assert south.sent_bytes < sum(map(len, FILES.values())) - SIZE // 4, "what had come was not asked for again"


async def test_the_hub_goes_on_where_a_node_died(open_store: OpenStore, hub: HubServer, east: PeerServer) -> None:
    hub.files["org/m"], east.dies_after = FILES, SIZE // 2
    async with open_store(endpoint=hub.url, chunk_bytes=CHUNK, with_peers=QUICK) as store:
        nearby = Neighbours([east])
        store.ask_nearby(nearby)
        assert await content(store, await add(store)) == FILES
        assert nearby.failures == [("east", False)]
        assert hub.sent_bytes < sum(map(len, FILES.values())) - SIZE // 4


async def test_a_lie_in_the_first_half_is_found_by_who_brings_the_second(
    open_store: OpenStore, east: PeerServer, south: PeerServer
) -> None:
    east.lies, east.dies_after = True, SIZE // 2
    async with open_store(chunk_bytes=CHUNK, with_peers=QUICK) as store:
        store.ask_nearby(Neighbours([east, south]))
        assert await content(store, await add(store)) == FILES


async def test_when_all_fail_what_came_is_kept(open_store: OpenStore, east: PeerServer) -> None:
    east.dies_after = SIZE // 2
    async with open_store(chunk_bytes=CHUNK, with_peers=QUICK) as store:
        store.ask_nearby(Neighbours([east]))
        with pytest.raises(SourceFailed, match="no other node that is alive delivers it"):
            await add(store)
        sent, east.dies_after = east.sent_bytes, None
        store.ask_nearby(Neighbours([east]))
        assert await content(store, await add(store)) == FILES
        assert east.sent_bytes < sum(map(len, FILES.values())) + 2 * CHUNK, f"{sent} bytes had come before"


async def test_what_the_node_names_is_not_believed(open_store: OpenStore, east: PeerServer) -> None:
    east.models["org/m"] = {**FILES, "../../escape.json": b"{}"}
    async with open_store() as store, AsyncExitStack():
        store.ask_nearby(Neighbours([east]))
        with pytest.raises(Exception, match="plain relative path"):
            await add(store)
