"""A whole node counts what each hour wants, and what it counted is there in its next life."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from heliosd.core.claim import Claim
from heliosd.core.hours import HOST_TIER, SLEEPERS, WANTED
from heliosd.core.units import GiB
from heliosd.core.week import hour_of
from heliosd.state.database import Database
from heliosd.state.hours import Hours
from tests.node.world import world


@asynccontextmanager
async def kept(folder: Path) -> AsyncIterator[Hours]:
    database = Database(folder / "state" / "helios.db")
    await database.open()
    yield Hours(database)
    await database.close()


async def test_what_was_asked_is_kept(tmp_path: Path):
    began = hour_of(time.time())
    async with world(tmp_path) as it:
        ref = await it.add("org/a")

        async def ask(tokens: int, meet: asyncio.Barrier) -> None:
            async with it.node.lease(it.node.new_ticket(), ref, claim=Claim(work_tokens=tokens)):
                await meet.wait()

        meet = asyncio.Barrier(3)
        async with asyncio.TaskGroup() as tasks:
            for tokens in (70, 900, 30):
                tasks.create_task(ask(tokens, meet))
    async with kept(tmp_path) as hours:
        asked = (await hours.asked(began))["org/a"]
        assert (asked.requests, asked.most_at_once, asked.longest_tokens, asked.most_replicas) == (3, 3, 900, 1)
        assert 0 < asked.need_bytes < 80 * GiB
        rows = sorted(await hours.places(began), key=lambda row: row.peak_bytes)
        places = {row.place: row for row in rows}
        assert {"g0", WANTED, SLEEPERS, HOST_TIER} <= places.keys()
        assert places[WANTED].peak_bytes == asked.need_bytes
        assert asked.need_bytes <= places["g0"].peak_bytes <= places["g0"].room_bytes < 80 * GiB
        assert await hours.observed(began) >= 1


async def test_two_lives_add_up(tmp_path: Path):
    began = hour_of(time.time())
    for life in range(2):
        async with world(tmp_path) as it:
            ref = await it.add("org/a") if life == 0 else (await it.store.models())[0].ref
            async with it.node.lease(it.node.new_ticket(), ref):
                pass
    async with kept(tmp_path) as hours:
        assert (await hours.asked(began))["org/a"].requests == 2
