"""What was used is kept, whatever ends; budgets turn over with the day and the month."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from heliosd.core.budgets import Budget
from heliosd.core.metering import NO_KEY, Tokens
from heliosd.core.names import ReplicaId, Ticket
from heliosd.core.prices import Prices
from heliosd.engines.meter import Meter
from heliosd.errors import EngineFailed, OverBudget
from heliosd.lease import LocalLease
from heliosd.metering import Metering
from heliosd.state.database import Database
from heliosd.state.journal import Journal
from heliosd.state.keys import Keys
from heliosd.state.metered import MeteredTable
from heliosd.telemetry.metrics import Metrics

TEN_PAST = datetime(2026, 11, 30, 22, 10, tzinfo=UTC).timestamp()


class Counting:
    """An engine that has counted what the test says."""

    def __init__(self) -> None:
        self.total = Tokens()
        self.going = True

    def work(self, meter: Meter, *tokens: Tokens) -> None:
        """A sequence that has made so many tokens by the time it is asked, one more of `tokens` each time."""
        said = list(tokens)
        last = said[-1]

        def count() -> tuple[Tokens, bool]:
            now = said.pop(0) if said else last
            return now, self.going

        meter.add(count)
        self.total = self.total.plus(last)

    def counted(self) -> Tokens:
        return self.total


class World:
    def __init__(self, database: Database) -> None:
        self.database = database
        self.keys, self.journal = Keys(database), Journal(database)
        self.at = TEN_PAST
        self.prices = Prices("EUR", prompt_million=1_000_000.0, completion_million=2_000_000.0)
        self.engine = Counting()
        self.metering = self.begin()

    def begin(self) -> Metering:
        self.metering = Metering(
            MeteredTable(self.database), self.keys, self.journal, Metrics(), lambda: self.prices, lambda: self.at,
            lambda: self.at,
        )  # fmt: skip
        return self.metering

    def lease(self, model: str = "m") -> LocalLease:
        engine: Any = self.engine
        return LocalLease(Ticket("t"), model, ReplicaId("r1"), engine)

    async def rows(self) -> dict[tuple[str, str], tuple[int, Tokens, float]]:
        read = await self.metering.table.read("2026-01-01", "2027-12-31")
        return {(of.day, of.account): (it.requests, it.tokens, it.cost.total) for of, it in read}


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    database = Database(tmp_path / "state.db")
    await database.open()
    it = World(database)
    await it.keys.load()
    await it.metering.load()
    yield it
    await database.close()


async def test_a_request_counts_once_with_what_its_engine_counted(world: World) -> None:
    key, _ = await world.keys.add("ann", admin=False)
    with world.metering.request(key.id, world.lease()) as meter:
        world.engine.work(meter, Tokens(3, 1, 0), Tokens(3, 1, 5))
        await world.metering.write()  # a long answer is kept as it grows
        assert await world.rows() == {("2026-11-30", "ann"): (0, Tokens(3, 1, 0), 3.0)}
        world.engine.going = False
    await world.metering.write()
    assert await world.rows() == {("2026-11-30", "ann"): (1, Tokens(3, 1, 5), 13.0)}
    assert await world.metering.table.counted("2026-11-30", "2026-11-30") == Tokens(3, 1, 5)


async def test_what_goes_on_after_the_answer_is_counted_to_its_end(world: World) -> None:
    with world.metering.request("", world.lease()) as meter:
        world.engine.work(meter, Tokens(3, 0, 1), Tokens(3, 0, 2), Tokens(3, 0, 9))
    await world.metering.write()
    world.engine.going = False
    await world.metering.write()
    assert await world.rows() == {("2026-11-30", NO_KEY): (1, Tokens(3, 0, 9), 21.0)}


async def test_an_attempt_that_is_made_again_is_one_request(world: World) -> None:
    with pytest.raises(EngineFailed), world.metering.request("", world.lease()):
        raise EngineFailed("cannot answer: it died")
    with world.metering.request("", world.lease()):
        pass
    await world.metering.write()
    assert await world.rows() == {("2026-11-30", NO_KEY): (1, Tokens(), 0.0)}


async def test_the_account_of_a_peers_client_is_told_apart(world: World) -> None:
    assert world.metering.account("key_ab") == "peer/key_ab"
    assert world.metering.account("") == NO_KEY


async def test_what_cannot_be_written_is_written_later(world: World) -> None:
    with world.metering.request("", world.lease()) as meter:
        world.engine.work(meter, Tokens(3, 0, 4))
        world.engine.going = False
    add, full = world.metering.table.add, True

    async def maybe(*args: Any, **options: Any) -> None:
        if full:
            raise sqlite3.OperationalError("database or disk is full")
        await add(*args, **options)

    world.metering.table.add = maybe  # type: ignore[method-assign]
    await world.metering.write()
    assert await world.rows() == {}
    full = False
    await world.metering.write()
    assert await world.rows() == {("2026-11-30", NO_KEY): (1, Tokens(3, 0, 4), 11.0)}
    assert await world.metering.table.counted("2026-11-30", "2026-11-30") == Tokens(3, 0, 4)


async def test_a_budget_is_refused_with_the_arithmetic_and_renewed_the_next_day(world: World) -> None:
    key, _ = await world.keys.add("ann", admin=False, budget=Budget(tokens_per_day=10))
    world.metering.check(key, Ticket("t1"))
    with world.metering.request(key.id, world.lease()) as meter:
        world.engine.work(meter, Tokens(4, 0, 6))
        world.engine.going = False
    with pytest.raises(OverBudget, match=r"10 of 10 tokens") as refused:
        world.metering.check(key, Ticket("t2"))
    assert (refused.value.status, refused.value.code) == (429, "insufficient_quota")
    assert refused.value.retry_after_s == pytest.approx(110 * 60)
    world.at += 2 * 3600
    world.metering.check(key, Ticket("t3"))


async def test_a_budget_of_money_lasts_for_its_period_and_over_restarts(world: World) -> None:
    key, _ = await world.keys.add("ann", admin=False, budget=Budget(10.0, "month"))
    with world.metering.request(key.id, world.lease()) as meter:
        world.engine.work(meter, Tokens(4, 0, 3))
        world.engine.going = False
    await world.metering.write()
    await world.begin().load()
    assert world.metering.spent("ann").month_cost == pytest.approx(10.0)
    with pytest.raises(OverBudget, match=r"10\.0000 of 10\.0000 EUR of 2026-11"):
        world.metering.check(key, Ticket("t2"))
    world.at += 2 * 3600  # December begins
    world.metering.check(key, Ticket("t3"))


async def test_a_bad_end_is_told_by_the_next_life_and_a_good_one_is_not(world: World) -> None:
    async def told() -> list[str]:
        async with asyncio.TaskGroup() as tasks:
            writing = tasks.create_task(world.journal.run())
            await world.journal.flushed()
            writing.cancel()
        return [entry.message for entry in await world.journal.read() if entry.kind == "usage"]

    await world.metering.write(ended=True)
    await world.begin().load()
    assert await told() == []
    await world.begin().load()
    (message,) = await told()
    assert "2026-11-30T22:10:00Z" in message and "at most 0.1 s" in message


async def test_a_day_ends_at_midnight_of_utc(world: World) -> None:
    with world.metering.request("", world.lease()) as meter:
        world.engine.work(meter, Tokens(1, 0, 1), Tokens(1, 0, 3))
        await world.metering.write()
        world.at += 2 * 3600
        world.engine.going = False
    await world.metering.write()
    assert set(await world.rows()) == {("2026-11-30", NO_KEY), ("2026-12-01", NO_KEY)}
