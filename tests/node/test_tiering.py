"""Models that go where they are worth most, through a whole node with simulated engines."""

import asyncio
from pathlib import Path

import pytest

from heliosd.core.hardware import HostReading
from heliosd.core.ledger import Ledger
from heliosd.core.names import ModelRef
from heliosd.core.retention import SPEEDS, Tier
from heliosd.core.units import GiB, KiB, MiB
from heliosd.errors import BadRequest, NotFound, Unavailable
from heliosd.lease import LocalLease
from heliosd.store.tiers.tiers import TierLimits
from heliosd.telemetry.metrics import Metrics
from heliosd.telemetry.traces import Traces
from heliosd.telemetry.tracing import Origin
from heliosd.tiering import Tiering
from tests.node.world import World, world
from tests.store.peer_server import Neighbours, PeerServer, running_peer

ONE_BYTES = 9 * KiB
"""More than one of the world's models has."""
FAST = {"engine_args": {"load_s": 0.0}}


def tiering(here: World) -> Tiering:
    assert here.node.tiering is not None
    return here.node.tiering


async def tier(here: World, ref: ModelRef) -> str:
    stored = await here.store.find(ref)
    assert stored is not None
    return tiering(here).tier_of(stored.manifest)


async def noted(here: World, words: str) -> dict[str, object]:
    """Wait for a line of the journal about a move; gives its detail."""
    async for entry in here.journal.follow():
        if entry.kind == "tier" and words in entry.message:
            return dict(entry.detail)
    raise AssertionError("the journal ended")


async def past_or_noted(here: World, words: str) -> dict[str, object]:
    async with asyncio.TaskGroup() as tasks:
        later = tasks.create_task(noted(here, words))
        await asyncio.sleep(0)  # it follows from here on, so nothing falls between past and future
        await here.journal.flushed()
        for entry in await here.journal.read(kinds=("tier",)):
            if words in entry.message:
                later.cancel()
                return dict(entry.detail)
        return await later


async def test_a_move_is_a_trace_of_its_own(tmp_path: Path) -> None:
    it = Traces(Origin("heliosd", "west", "1"), Metrics())
    async with world(tmp_path, tiers=TierLimits(disk_dir=tmp_path / "disk"), traces=it) as here:
        await here.add("org/a")
        await tiering(here).wish(ModelRef("org/a"), Tier.DISK)
        await past_or_noted(here, "org/a went from nvme to disk")
    (move,) = [span for spans in it.ring._traces.values() for span in spans if span.name == "tier move"]
    known = dict(move.attributes or {})
    assert move.parent is None and known["helios.model"] == "org/a"
    assert (known["helios.from_tier"], known["helios.to_tier"]) == ("nvme", "disk")


async def test_a_wish_is_carried_out_and_outlives_a_restart(tmp_path: Path) -> None:
    limits = TierLimits(disk_dir=tmp_path / "disk")
    async with world(tmp_path, tiers=limits) as here:
        ref = await here.add("org/a", alias="a")
        assert await tiering(here).wish(ModelRef("a"), Tier.DISK) == "org/a"
        detail = await past_or_noted(here, "org/a went from nvme to disk")
        assert detail["bytes"] == sum(path.stat().st_size for path in (tmp_path / "disk/blobs").rglob("*/*/*"))
        assert await tier(here, ref) == "disk"
        used = {each.tier: each.models for each in await tiering(here).status()}
        assert used == {Tier.NVME: (), Tier.DISK: ("org/a",), Tier.PEER: (), Tier.HUB: ()}
        assert (await tiering(here).plan()).moves == ()
    async with world(tmp_path, tiers=limits) as here:
        assert await tiering(here).wishes() == {"org/a": Tier.DISK}
        async with here.node.lease(here.node.new_ticket(), ref) as lease:
            assert isinstance(lease, LocalLease), "it is served from the disk"
        await tiering(here).wish(ref, Tier.NVME)
        await here.node.stop("org/a")
        await past_or_noted(here, "org/a went from disk to nvme")
        assert await tier(here, ref) == "nvme"
        await tiering(here).wish(ref, None)
        assert await tiering(here).wishes() == {}


async def test_a_download_makes_room_and_is_refused_when_there_is_none(tmp_path: Path) -> None:
    limits = TierLimits(nvme_budget_bytes=2 * ONE_BYTES, disk_dir=tmp_path / "disk", disk_budget_bytes=ONE_BYTES)
    async with world(tmp_path, models={"org/a": FAST}, tiers=limits) as here:
        a, b = await here.add("org/a"), await here.add("org/b")
        async with here.node.lease(here.node.new_ticket(), a):
            c = await here.add("org/c")  # b makes way: a is in use
        assert {str(ref): await tier(here, ref) for ref in (a, b, c)} == {
            "org/a": "nvme",
            "org/b": "disk",
            "org/c": "nvme",
        }
        detail = await past_or_noted(here, "org/b went from nvme to disk")
        assert detail["from"] == "nvme" and detail["to"] == "disk"
        with pytest.raises(Unavailable, match=r"which may hold 18.0 KiB, has"):
            await here.add("org/d")


async def test_what_is_loaded_often_is_kept_in_ram_and_gives_way_to_sleepers(tmp_path: Path) -> None:
    async with world(tmp_path, models={"org/a": FAST}, tiers=TierLimits(host_memory_bytes=1 * MiB)) as here:
        ref = await here.add("org/a")
        await tiering(here).wish(ref, Tier.HOST)
        await past_or_noted(here, "org/a went from nvme to host")
        assert await tier(here, ref) == "host"
        (host, nvme, _, _) = await tiering(here).status()
        assert (host.tier, host.models, nvme.models) == (Tier.HOST, ("org/a",), ("org/a",))
        here.store.tiers.host_limit_bytes = 0
        here.node.tiering._over.set()  # type: ignore[union-attr]  # as `happened` does when sleepers take the rest
        detail = await past_or_noted(here, "of host memory were let go")
        assert detail["bytes"] == host.used_bytes
        assert here.store.tiers.staged == {}


async def test_room_is_made_by_letting_go_of_what_a_peer_has_if_that_is_allowed(tmp_path: Path) -> None:
    limits = TierLimits(nvme_budget_bytes=2 * ONE_BYTES)
    async with running_peer(PeerServer()) as east, world(tmp_path, models={"org/a": FAST}, tiers=limits) as here:
        a, b = await here.add("org/a"), await here.add("org/b")
        for ref in (a, b):
            stored = await here.store.find(ref)
            assert stored is not None
            async with here.store.hold(stored.revision) as files:
                east.models[str(ref)] = {file.path: (files / file.path).read_bytes() for file in stored.manifest.files}
        here.store.ask_nearby(Neighbours([east]))
        with pytest.raises(Unavailable, match="has"):
            await here.add("org/c")
        tiering(here).may_let_go = lambda: "peer"
        async with here.node.lease(here.node.new_ticket(), b):
            c = await here.add("org/d")
            assert {str(ref): await tier(here, ref) for ref in (a, b, c)} == {
                "org/a": "nvme, peer",  # its configuration is a good part of so small a model
                "org/b": "nvme",
                "org/d": "nvme",
            }
        detail = await past_or_noted(here, "org/a was let go")
        assert (detail["from"], detail["to"]) == ("nvme", "peer")
        await here.store.remove(c)
        async with here.node.lease(here.node.new_ticket(), a) as lease:
            assert isinstance(lease, LocalLease), "it came back"
        assert await tier(here, a) == "nvme"
        stored = await here.store.find(a)
        assert stored is not None
        assert tiering(here).reload_source(stored.manifest) == (Tier.NVME, SPEEDS[Tier.NVME].bytes_per_s)


async def test_wishes_that_cannot_be_met_say_why(tmp_path: Path) -> None:
    limits = TierLimits(disk_dir=tmp_path / "disk", disk_budget_bytes=1 * KiB)
    async with world(tmp_path, tiers=limits) as here:
        ref = await here.add("org/a")
        with pytest.raises(NotFound, match=r"cannot move org/none: the store does not have it"):
            await tiering(here).wish(ModelRef("org/none"), Tier.DISK)
        with pytest.raises(BadRequest, match=r"no such tier; set store.host_memory"):
            await tiering(here).wish(ref, Tier.HOST)
        with pytest.raises(BadRequest, match=r"it has 8.* KiB and disk may hold 1.0 KiB; raise store.disk_budget"):
            await tiering(here).wish(ref, Tier.DISK)


def test_sleepers_go_first_and_both_stay_within_the_hosts_memory() -> None:
    ledger = Ledger(host_bytes=50 * GiB, host=HostReading(100 * GiB, 60 * GiB))
    assert ledger.tier_room_bytes == 50 * GiB
    ledger.tier_bytes = 30 * GiB
    ledger.host = HostReading(100 * GiB, 30 * GiB)
    assert ledger.host_free_bytes == 50 * GiB, "what the tier holds is free for a sleeper"
    ledger.stage("r1", 40 * GiB)  # type: ignore[arg-type]
    assert ledger.tier_room_bytes == 10 * GiB
    assert ledger.host_account().tier_bytes == 30 * GiB
    ledger.host = HostReading(100 * GiB, 0)
    ledger.tier_bytes = 5 * GiB
    assert ledger.tier_room_bytes == 0
