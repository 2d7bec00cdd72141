"""Starts through a whole node: every phase is seen, kept, and known in the next life."""

import asyncio
import re
from pathlib import Path

from heliosd.core.crowd import TELLING
from heliosd.core.hardware import Device, DeviceKind
from heliosd.core.messages import Hold
from heliosd.core.names import DeviceId, ReplicaId
from heliosd.core.units import GiB
from heliosd.engine_arguments import chosen_args
from heliosd.lease import LocalLease
from heliosd.state.records import Records
from tests.node.world import World, world

PHASES = ["dispatch", "resolve", "turn", "fork", "weights", "warm_up", "settle"]
SLOW = {"engine_args": {"load_s": 2.0, "phases": {"fork": 0.02, "weights": 0.6, "warm_up": 0.38}}}


async def test_every_phase_is_in_the_journal_and_told_of_the_replica(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        ref = await here.add("org/a")
        asked_at = here.node.now()
        async with here.node.lease(here.node.new_ticket(), ref) as lease:
            assert isinstance(lease, LocalLease)
            replica = lease.replica
        so_far = here.node.start_so_far(replica)
        assert so_far is not None and not so_far.starting
        assert list(so_far.timeline.seconds()) == PHASES
        here.node.answered(replica, asked_at, here.node.now())
        here.node.answered(replica, here.node.now(), here.node.now())
        so_far = here.node.start_so_far(replica)
        assert so_far is not None and list(so_far.timeline.seconds()) == [*PHASES, "first_token"]
        await here.journal.flushed()
        noted = {entry.kind: entry.detail for entry in await here.journal.read(subject=replica)}
        assert list(noted["ready"]["phases"]) == [row[0] for row in noted["ready"]["timeline"]] == PHASES
        assert noted["first_token"]["timeline"][0][0] == "first_token"
        assert here.node.start_so_far(ReplicaId("r99")) is None


async def until_kept(here: World) -> None:
    """What was measured is written beside the start, not before it."""
    if not await Records(here.database).starts():
        await until_kept(here)


async def test_the_next_life_knows_how_long_a_start_takes_and_tells_who_waits(tmp_path: Path) -> None:
    async with world(tmp_path, models={"org/a": SLOW}) as here:
        ref = await here.add("org/a")
        await here.node.load(ref)
        await until_kept(here)
    async with world(tmp_path, models={"org/a": SLOW}) as here:
        held: asyncio.Queue[Hold] = asyncio.Queue()
        async with here.node.lease(here.node.new_ticket(), ref, told=held.put_nowait):
            pass
        told = [held.get_nowait() for _ in range(held.qsize())]
        first = told[0]
        assert first.eta_s is not None and first.eta_s >= 2.0, "what the last start took"
        assert re.search(r"is starting: weights begins, \d+ of \d+ s left$", told[1].reason)


async def test_what_a_model_works_on_at_once_decides_which_graphs_are_captured(tmp_path: Path) -> None:
    """Chosen for a GPU's engine, kept with what it is started by; whatever the operator says rules."""
    theirs = {"org/theirs": {"engine_args": {"cudagraph_capture_sizes": [1, 2]}}}
    card = Device(DeviceId("g0"), DeviceKind.CUDA, "a card", 80 * GiB)
    async with world(tmp_path, models=theirs) as here:
        demands, usage, asked = here.node._demands, here.node._scheduler.usage, {}
        for name in ("org/new", "org/busy", "org/theirs"):
            asked[name] = await here.add(name)
        for name in ("org/busy", "org/theirs"):
            for _ in range(TELLING):
                usage.granted(name, 5, here.node.now())
        demands.devices = (card,)
        demands.forget()
        found = {name: await demands.of(ref) for name, ref in asked.items()}
        told = {name: chosen_args(each.demand.arguments) for name, each in found.items() if each}
        assert told == {
            "org/new": {},
            "org/busy": {"cudagraph_capture_sizes": [1, 2, 4, 8, 16, 24, 32]},
            "org/theirs": {},
        }
        assert found["org/busy"] is not None
        notes = " ".join(found["org/busy"].estimate.notes)
        assert "CUDA graphs of 7 batch sizes up to 32 instead of 51 up to 512: at most 16 requests at once" in notes
