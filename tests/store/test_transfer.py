"""One file over several connections, from servers that know ranges and those that do not."""

import asyncio
import hashlib
import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from heliosd.errors import CorruptData, SourceFailed
from heliosd.store.sources.bandwidth import Bandwidth
from heliosd.store.sources.source import Progress
from heliosd.store.sources.transfer import chunks
from heliosd.store.store import Store
from heliosd.store.stored import Addition, StoredModel
from tests.store.conftest import OpenStore
from tests.store.hub_server import HubServer, Seen, running
from tests.store.models import model_files

CHUNK = 1 << 18
BIG = 2 << 20
FILE = "model.safetensors"
MODEL = Addition("hub", "org/m")

Open = Callable[..., AbstractAsyncContextManager[Store]]


def ignore(_: Progress) -> None:
    pass


@pytest.fixture
def opened(open_store: OpenStore, hub: HubServer) -> Open:
    hub.files["org/m"] = model_files(BIG)
    return lambda **more: open_store(endpoint=hub.url, **{"chunk_bytes": CHUNK, "connections": 4, **more})


async def added(store: Store, hub: HubServer) -> StoredModel:
    model = await store.add(MODEL, ignore)
    directory = await store.directory(model.revision)
    assert (directory / FILE).read_bytes() == hub.files["org/m"][FILE]
    return model


def ranges(asked: list[Seen]) -> list[str | None]:
    return [seen.range for seen in asked]


def test_chunks_end_at_multiples() -> None:
    assert list(chunks([(0, 5), (9, 20), (20, 24)], 10)) == [(0, 5), (9, 10), (10, 20), (20, 24)]


async def test_a_large_file_comes_in_chunks_over_several_connections(opened: Open, hub: HubServer) -> None:
    hub.held = lambda path, first, at: True
    async with opened() as store, asyncio.TaskGroup() as group:
        group.create_task(added(store, hub))
        while hub.at_once < 4:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        hub.flow.set()
    size = len(hub.files["org/m"][FILE])
    asked = ranges(hub.asked(FILE))
    assert sorted(asked, key=str) == sorted((f"bytes={a}-{b - 1}" for a, b in chunks([(0, size)], CHUNK)), key=str)
    assert hub.most_at_once == 4
    assert hub.sent_bytes == sum(map(len, hub.files["org/m"].values()))


async def test_two_files_share_the_connections(opened: Open, hub: HubServer) -> None:
    hub.files["org/m"]["more.safetensors"] = model_files(BIG, seed=2)[FILE]
    hub.rate_bytes_per_s = 4 << 20
    async with opened(connections=2) as store:
        await added(store, hub)
    assert hub.most_at_once == 2


async def test_a_server_without_ranges_gives_one_stream(opened: Open, hub: HubServer) -> None:
    hub.ignore_range, hub.cuts = True, 1
    async with opened() as store:
        await added(store, hub)
    assert len(hub.asked(FILE)) == 2


async def test_a_lie_in_one_chunk_of_many_is_found(opened: Open, hub: HubServer, tmp_path: Path) -> None:
    right = hub.files["org/m"][FILE]
    hub.served[FILE] = right[: 5 * CHUNK] + bytes([right[5 * CHUNK] ^ 1]) + right[5 * CHUNK + 1 :]
    async with opened() as store:
        with pytest.raises(CorruptData, match="nothing of them was kept"):
            await store.add(MODEL, ignore)
        assert not list((tmp_path / "store/incoming").glob("*.part"))
        hub.served.clear()
        await added(store, hub)


async def test_where_the_hub_sends_is_asked_directly_until_that_expires(opened: Open, hub: HubServer) -> None:
    async with running(HubServer(files=hub.files)) as elsewhere:
        hub.redirect_to = elsewhere.url
        async with opened(connections=1) as store:
            told = 0

            def tell(progress: Progress) -> None:
                nonlocal told
                if progress.item == FILE:
                    told += 1
                    if told == 3:
                        elsewhere.expired = 1

            await store.add(MODEL, tell)
        assert len(hub.asked(FILE)) == 2
        assert len(elsewhere.asked(FILE)) == len(list(chunks([(0, len(hub.files["org/m"][FILE]))], CHUNK))) + 1


async def interrupted(opened: Open, hub: HubServer, root: Path) -> int:
    """Fetch the small files, the first chunk and half of each of some others; returns what was sent."""
    hub.held = lambda path, first, at: first >= CHUNK and at >= first + CHUNK // 2
    total = sum(map(len, hub.files["org/m"].values()))
    async with opened() as store, asyncio.TaskGroup() as group:
        adding = group.create_task(store.add(MODEL, ignore))
        while hub.sent_bytes < total - BIG + 3 * CHUNK - 8192 or noted(root) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        adding.cancel()
    hub.flow.set()
    sent, hub.sent_bytes = hub.sent_bytes, 0
    return sent


def noted(root: Path) -> int:
    """Small files that the claim knows to be here."""
    return sum(len(json.loads(path.read_bytes())["found"]) for path in root.glob("store/incoming/*.claim"))


async def test_cancelled_in_the_middle_it_asks_only_for_the_rest(opened: Open, hub: HubServer, tmp_path: Path) -> None:
    sent = await interrupted(opened, hub, tmp_path)
    async with opened() as store:
        await added(store, hub)
    total = sum(map(len, hub.files["org/m"].values()))
    assert len(hub.asked("config.json")) == len(hub.asked("tokenizer.json")) == 1
    assert hub.sent_bytes <= total - CHUNK, "the chunk that was whole is not asked for again"
    assert sent + hub.sent_bytes <= total + 4 * CHUNK


async def test_progress_tells_rate_and_time_left(opened: Open, hub: HubServer) -> None:
    seen: list[Progress] = []
    async with opened() as store:
        await store.add(MODEL, seen.append)
    fetched = [line for line in seen if line.phase == "fetch" and line.rate_bytes_per_s]
    assert fetched[-1].eta_s == 0.0
    assert all(line.eta_s is not None and line.eta_s >= 0 for line in fetched)


async def test_what_was_here_is_no_speed(opened: Open, hub: HubServer) -> None:
    async with opened() as store:
        await added(store, hub)
    hub.files["org/m"]["config.json"] += b" "
    seen: list[Progress] = []
    async with opened() as store:
        await store.add(MODEL, seen.append)
    [here] = [line for line in seen if line.item == FILE]
    others = [line.rate_bytes_per_s or 0 for line in seen if line.item != FILE]
    assert here.done_bytes >= BIG
    assert sum(others) >= 0 and (here.rate_bytes_per_s or 0) < 1e9


async def test_a_limit_holds_for_all_connections_together() -> None:
    slept: list[float] = []
    now = [100.0]

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    bandwidth = Bandwidth(1000, now=lambda: now[0], sleep=sleep)
    for _ in range(50):
        await bandwidth.take(100)
    assert now[0] - 100.0 == pytest.approx(4.9)  # 5 s, less what may be made up for
    bandwidth.bytes_per_s = 0
    await bandwidth.take(10**9)
    assert now[0] - 100.0 == pytest.approx(4.9)


async def test_a_download_keeps_to_the_limit(opened: Open, hub: HubServer) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with opened(max_download_rate=4 * BIG) as store:
        await added(store, hub)
    assert loop.time() - began > 0.125, "a quarter of a second's worth, less the burst"


async def test_a_server_that_sends_more_than_asked_for_is_not_believed(opened: Open, hub: HubServer) -> None:
    hub.served[FILE] = hub.files["org/m"][FILE] + b"more"
    async with opened() as store:
        with pytest.raises(SourceFailed, match=r"the listing says \d+ bytes, the server announces \d+"):
            await store.add(MODEL, ignore)


async def test_a_part_with_a_wrong_past_starts_from_zero(opened: Open, hub: HubServer, tmp_path: Path) -> None:
    await interrupted(opened, hub, tmp_path)
    part = tmp_path / f"store/incoming/{hashlib.sha256(hub.files['org/m'][FILE]).hexdigest()}.part"
    part.write_bytes(bytes(part.stat().st_size))
    async with opened() as store:
        await added(store, hub)
