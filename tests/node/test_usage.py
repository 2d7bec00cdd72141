"""What a node knows of its models' use outlives it, and lets the next life start them ahead."""

import time
from pathlib import Path

from heliosd.core.gaps import bin_of
from heliosd.core.names import ModelRef
from heliosd.core.remembered import Remembered
from heliosd.lease import LocalLease
from heliosd.state.usage import UsageTable
from tests.node.world import World, world

SWITCHED_OFF = {"prefetch.enabled": "false"}
OFTEN = {"devices.read_interval_s": "0.05"}
"""Each reading is a moment at which what is due may start."""


async def ask(here: World, ref: ModelRef) -> None:
    async with here.node.lease(here.node.new_ticket(), ref) as lease:
        assert isinstance(lease, LocalLease)


def due(model: str, *, period_s: float, in_s: float) -> Remembered:
    """It is asked for every `period_s` seconds, next in `in_s`."""
    heat = (0.0, 0.0, 10.0)
    return Remembered(model, time.time() + in_s - period_s, heat, gaps=((bin_of(period_s), 20.0),))


async def test_what_was_asked_for_is_known_in_the_next_life(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        ref = await here.add("org/one")
        await ask(here, ref)
    async with world(tmp_path) as here:
        await ask(here, await here.add("org/two"))
        (one,) = await UsageTable(here.database).load()
        assert one.model == "org/one"
        assert 0 <= time.time() - one.asked_at < 600
        assert one.reload_s is not None
        appetite = here.node.facts("org/one").appetite
        assert appetite is not None and appetite.asked_per_minute > 0


async def started_ahead(here: World) -> str:
    version = -1
    while not here.node.snapshot().replicas:
        version = await here.node.changed(version)
    return here.node.snapshot().replicas[0].model


async def test_a_model_that_is_about_to_be_asked_for_is_started_before(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        ref = await here.add("org/clock")
        await here.add("org/other")
        await UsageTable(here.database).keep([due("org/clock", period_s=600.0, in_s=10.0)])
    async with world(tmp_path, settings=OFTEN) as here:
        assert await started_ahead(here) == "org/clock"
        await ask(here, ref)
        assert here.node.snapshot().preloads.hits == 1
        await here.journal.flushed()
        (start,) = [each for each in await here.journal.read(subject="org/clock") if each.kind == "start"]
        assert "ahead of requests: asked within 60 s with 0." in start.message


async def test_a_model_that_is_gone_from_the_store_is_not(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        await here.add("org/here")
        gone, stays = due("org/gone", period_s=600.0, in_s=10.0), due("org/here", period_s=600.0, in_s=10.0)
        await UsageTable(here.database).keep([gone, stays])
    async with world(tmp_path, settings=OFTEN) as here:
        assert await started_ahead(here) == "org/here"


async def test_nothing_starts_ahead_when_it_is_switched_off(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        await here.add("org/clock")
        await UsageTable(here.database).keep([due("org/clock", period_s=600.0, in_s=10.0)])
    async with world(tmp_path, settings=SWITCHED_OFF) as here:
        await ask(here, await here.add("org/two"))
        assert {each.model for each in here.node.snapshot().replicas} == {"org/two"}
