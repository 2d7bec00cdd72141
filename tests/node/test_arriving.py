"""What was done for a model before its start, and where it lies, through a whole node with simulated engines."""

import asyncio
from pathlib import Path

from heliosd.core.messages import Hold
from heliosd.core.names import ModelRef
from heliosd.core.retention import Tier
from heliosd.errors import NotFound
from heliosd.lease import LocalLease
from heliosd.state.records import Records
from heliosd.store.sources.source import Progress
from heliosd.store.stored import Addition
from heliosd.store.tiers.tiers import TierLimits
from tests.node.test_starts import until_kept
from tests.node.world import World, world, write_model


async def finish(here: World, wanted: Addition, told: "asyncio.Queue[Hold]") -> None:
    """Add it once somebody was told that he waits."""
    assert (await told.get()).reason == "org/new is looked for"
    await here.store.add(wanted, lambda progress: None)


async def test_who_asks_for_a_model_that_is_being_added_gets_it_and_sees_that_on_the_start(tmp_path: Path) -> None:
    async with world(tmp_path) as here, asyncio.TaskGroup() as group:
        ref, told = ModelRef("org/new"), asyncio.Queue[Hold]()
        folder = await asyncio.to_thread(write_model, here.folder / "new", "new")
        wanted = Addition("directory", str(folder), ref)
        here.store.watch(ref, wanted, Progress("list"))  # as when a hub takes its time
        group.create_task(finish(here, wanted, told))
        async with here.node.lease(here.node.new_ticket(), ref, told=told.put_nowait) as lease:
            assert isinstance(lease, LocalLease)
            replica = lease.replica
        await here.journal.flushed()
        (ready,) = await here.journal.read(subject=replica, kinds=("ready",))
        phases = [row[0] for row in ready.detail["timeline"]]
        assert phases[0] == "list"
        assert phases.index("verify") < phases.index("commit") < phases.index("ask") < phases.index("dispatch")
        assert ready.detail["timeline"][0][1] == 0.0
        so_far = here.node.start_so_far(replica)
        assert so_far is not None and so_far.timeline.other_s < 0.2 * so_far.timeline.total_s
        held = [entry.message for entry in await here.journal.read(subject="org/new", kinds=("hold",))]
        assert held[0] == "org/new is looked for"


async def test_an_addition_that_fails_leaves_who_asked_with_no_such_model(tmp_path: Path) -> None:
    async with world(tmp_path) as here, asyncio.TaskGroup() as group:
        await here.add("org/other")
        ref, told = ModelRef("org/gone"), asyncio.Queue[Hold]()
        here.store.watch(ref, Addition("hub", "org/gone"), Progress("list"))

        async def fail() -> None:
            await told.get()
            here.store.watch(ref, Addition("hub", "org/gone"), None)

        group.create_task(fail())
        try:
            async with here.node.lease(here.node.new_ticket(), ref, told=told.put_nowait):
                raise AssertionError("nobody has it")
        except NotFound as error:
            assert error.code == "model_not_found"


async def test_the_tier_is_kept_with_the_start_and_known_to_the_scheduler(tmp_path: Path) -> None:
    async with world(tmp_path, tiers=TierLimits(disk_dir=tmp_path / "disk")) as here:
        ref = await here.add("org/a")
        places = here.node._scheduler.usage.places
        version = -1
        while places.tier("org/a") is None:
            version = await here.node.changed(version)
        assert places.tier("org/a") is Tier.NVME
        await here.node.load(ref)
        await until_kept(here)
        ((model, seen),) = await Records(here.database).starts()
        assert (model, seen.tier) == ("org/a", Tier.NVME)
        await here.node.stop("org/a")
        assert here.node.tiering is not None
        await here.node.tiering.wish(ref, Tier.DISK)
        while places.tier("org/a") is not Tier.DISK:
            version = await here.node.changed(version)


async def test_a_promotion_just_before_a_start_is_on_its_timeline(tmp_path: Path) -> None:
    async with world(tmp_path, tiers=TierLimits(disk_dir=tmp_path / "disk")) as here:
        ref = await here.add("org/a")
        tiering, places, version = here.node.tiering, here.node._scheduler.usage.places, -1
        assert tiering is not None
        for tier in (Tier.DISK, Tier.NVME):
            await tiering.wish(ref, tier)
            while places.tier("org/a") is not tier:
                version = await here.node.changed(version)
        replica = await here.node.load(ref)
        so_far = here.node.start_so_far(replica)
        assert so_far is not None
        assert list(so_far.timeline.seconds())[:3] == ["stage", "ask", "dispatch"]


async def test_without_tiers_all_is_in_the_store(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        await here.add("org/a")
        places, version = here.node._scheduler.usage.places, -1
        while places.tier("org/a") is None:
            version = await here.node.changed(version)
        assert places.tier("org/a") is Tier.NVME
