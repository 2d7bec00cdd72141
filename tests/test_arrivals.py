"""Who asks for a model that is still being added waits for it, and learns how long."""

import asyncio
from pathlib import Path

import pytest

from heliosd.arrivals import Arrivals
from heliosd.core.messages import Hold
from heliosd.core.names import ModelRef, Ticket
from heliosd.core.start_forecast import SeenStart
from heliosd.core.usage import Usage
from heliosd.errors import Unavailable
from heliosd.state.database import Database
from heliosd.state.journal import Journal
from heliosd.store.sources.source import Progress
from heliosd.store.stored import Addition

MB = 1_000_000
REF = ModelRef("org/m")
HUB = Addition("hub", "org/m")
TICKET = Ticket("t1")


class Clock:
    at = 100.0

    def __call__(self) -> float:
        return self.at


def arriving() -> tuple[Arrivals, Clock, asyncio.Queue[Hold]]:
    usage, clock = Usage(), Clock()
    usage.started("like it", 9.0, SeenStart((("fork", 1.0), ("weights", 2.0)), 100 * MB, "cuda"))
    arrivals = Arrivals(usage, Journal(Database(Path("unused"))), clock)
    arrivals.watch(REF, HUB, Progress("list"))
    return arrivals, clock, asyncio.Queue()


def never() -> float:
    return asyncio.get_running_loop().time() + 3600


async def test_the_eta_is_what_is_left_of_the_fetch_and_a_start_of_its_bytes() -> None:
    arrivals, clock, held = arriving()
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(arrivals.until_there(REF, TICKET, never(), held.put_nowait))
        assert await held.get() == Hold(TICKET, "org/m is looked for")
        clock.at = 101.0
        arrivals.watch(REF, HUB, Progress("fetch", "a", 50 * MB, 200 * MB, 10 * MB, 15.0))
        told = await held.get()
        assert told.reason == "org/m is being fetched: 47.7 MiB of 190.7 MiB"
        assert told.eta_s == pytest.approx(15.0 + 1.0 + 4.0)
        arrivals.watch(REF, HUB, Progress("fetch", "a", 60 * MB, 200 * MB, 10 * MB, 14.0))
        await asyncio.sleep(0)
        assert held.empty(), "no word of each chunk"
        (shown,) = arrivals.waiting(3)
        assert (shown.ticket, shown.model, shown.position) == ("t1", "org/m", 3)
        assert shown.eta_s == pytest.approx(14.0 + 5.0)
        clock.at = 115.0
        arrivals.watch(REF, HUB, Progress("commit", None, 200 * MB, 200 * MB))
        assert (await held.get()).eta_s == pytest.approx(5.0)
        clock.at = 116.0
        arrivals.watch(REF, HUB, None)
        await waiting
    assert not arrivals.coming(REF)
    assert arrivals.waiting(0) == ()
    assert arrivals.before("org/m", 117.0) == [
        ("list", 100.0, 101.0), ("fetch", 101.0, 115.0), ("commit", 115.0, 116.0), ("ask", 116.0, 117.0),
    ]  # fmt: skip


async def test_a_deadline_that_passes_first_says_how_far_it_is() -> None:
    arrivals, _, _ = arriving()
    arrivals.watch(REF, HUB, Progress("fetch", "a", 50 * MB, 200 * MB, 10 * MB))
    with pytest.raises(Unavailable, match=r"being fetched: 47.7 MiB of 190.7 MiB; ask again later") as raised:
        await arrivals.until_there(REF, TICKET, asyncio.get_running_loop().time(), None)
    assert raised.value.retry_after_s == pytest.approx(20.0)
    assert raised.value.code == "queue_timeout"


async def test_nobody_waits_for_what_is_not_coming() -> None:
    arrivals, _, held = arriving()
    await arrivals.until_there(ModelRef("org/other"), TICKET, never(), held.put_nowait)
    assert held.empty()
