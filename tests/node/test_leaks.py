"""Simulated engines that leak, and healthy ones, in a whole node: who is recycled, and what is told of it."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from heliosd.core.lifecycle import State
from heliosd.core.units import MiB
from heliosd.engines.engine import Request
from heliosd.lease import LocalLease
from tests.node.world import World, world

pytestmark = pytest.mark.slow

WINDOW_S = 6.0
"""Long enough for a dozen readings also where each takes a third of a second: in a process of gigabytes it does."""
FAST = {
    "devices.read_interval_s": 0.01,
    "leaks.window_s": WINDOW_S,
    "leaks.warm_up_s": 0.0,
    "leaks.most_bytes_per_hour": "8GiB",
}
"""So short a window that a leak shows within seconds."""


class Nowhere:
    async def start(self, status: int, headers: list[tuple[str, str]]) -> None:
        assert status == 200

    async def write(self, chunk: bytes) -> None:
        pass


def models(**arguments: object) -> Mapping[str, Mapping[str, Any]]:
    return {"a/m": {"engine_args": arguments, "keep_alive_s": "forever", "kv_cache": "64MiB"}}


async def until_noted(here: World, kind: str, times: int = 1) -> list[str]:
    """What the journal says of it, once it has said it so often."""
    version = -1
    while True:
        await here.journal.flushed()
        found = [entry.message for entry in await here.journal.read(kinds=(kind,))]
        if len(found) >= times:
            return found
        version = await here.node.changed(version)


async def judged(here: World) -> None:
    """Two windows of readings have gone by."""
    memory, version = None, -1
    while memory is None or memory.why == "too few readings yet":
        version = await here.node.changed(version)
        memory = next((each.memory for each in here.node.snapshot().replicas), None)
    at = here.node.now()
    while here.node.now() < at + WINDOW_S:
        version = await here.node.changed(version)


async def ask(here: World, ref: Any) -> None:
    async with here.node.lease(here.node.new_ticket(), ref) as lease:
        assert isinstance(lease, LocalLease)
        body = b'{"model": "a/m", "messages": [{"role": "user", "content": "go"}], "max_tokens": 8}'
        await lease.engine.frontend.handle(
            Request(lease.ticket, "POST", "/v1/chat/completions", "", (), body), Nowhere()
        )


async def test_an_engine_that_leaks_is_replaced(tmp_path: Path) -> None:
    async with world(tmp_path, models=models(leak_bytes_per_s=200 * MiB), settings=FAST) as here:
        first = await here.node.load(await here.add("a/m"))
        async with asyncio.timeout(60):
            (told, *_) = await until_noted(here, "leak")
            starts = await until_noted(here, "start", times=2)
        assert f"{first} of a/m leaks device memory: grows by" in told
        assert told.endswith("it is recycled")
        assert f"in place of {first}, which leaked" in " ".join(starts)
        seen = here.node.snapshot()
        assert seen.recycles[0][:2] == ("a/m", "device")
        assert first not in {each.id for each in seen.replicas}


async def test_a_kv_cache_that_fills_is_left_alone(tmp_path: Path) -> None:
    async with world(tmp_path, models=models(kv_fills=True, kv_bytes_per_token=4096), settings=FAST) as here:
        ref = await here.add("a/m")
        first = await here.node.load(ref)

        async def work() -> None:
            while True:
                await ask(here, ref)
                await asyncio.sleep(0)

        async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
            working = tasks.create_task(work())
            await judged(here)
            working.cancel()
        (replica,) = here.node.snapshot().replicas
        assert (replica.id, replica.state) == (first, State.READY)
        assert replica.memory is not None
        assert not replica.memory.suspected
        assert "leak" not in await here.kinds_noted("a/m")


async def test_what_is_no_device_is_watched_as_well(tmp_path: Path) -> None:
    settings = {**FAST, "store.path": str(tmp_path / "store")}
    async with world(tmp_path, models=models(), settings=settings) as here:
        await here.node.load(await here.add("a/m"))
        version = -1
        async with asyncio.timeout(60):
            while not (spaces := here.node.snapshot().spaces) or here.node.snapshot().daemon is None:
                version = await here.node.changed(version)
        assert {space.name for space, _ in spaces} >= {"store", "state"}
        daemon = here.node.snapshot().daemon
        assert daemon is not None
        assert (daemon.pss_bytes or 0) > MiB
