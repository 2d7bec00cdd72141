"""Replicas that sleep and wake, and models that are pinned, through the node with simulated engines."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from heliosd.core.lifecycle import State
from heliosd.core.messages import LimitsChanged
from heliosd.core.names import ModelRef, ReplicaId
from heliosd.errors import Conflict, NotFound
from heliosd.lease import LocalLease
from tests.node.world import World, world

SLOW = {"engine_args": {"load_s": 0.5, "wake_s": 0.01}}
"""To load: else a fresh start would be the faster way back."""
BIG = {"kv_cache": "50GiB", "max_model_len": 2048, **SLOW}
FAST = {"pool.residence_s": "0"}


async def ask(here: World, ref: ModelRef) -> str:
    async with here.node.lease(here.node.new_ticket(), ref) as lease:
        assert isinstance(lease, LocalLease)
        return lease.replica


async def until(here: World, model: str, state: State) -> None:
    version = -1
    while not any(each.model == model and each.state is state for each in here.node.snapshot().replicas):
        version = await here.node.changed(version)


async def test_who_makes_room_sleeps_and_wakes_for_the_next_request(tmp_path: Path) -> None:
    async with world(tmp_path, models={"org/a": BIG, "org/b": BIG}, settings=FAST) as here:
        a, b = await here.add("org/a"), await here.add("org/b")
        assert [await ask(here, ref) for ref in (a, b, a, b)] == ["r1", "r2", "r1", "r2"]
        asleep = next(each for each in here.node.snapshot().replicas if each.model == "org/a")
        assert (asleep.state, asleep.level) == (State.ASLEEP, 1)
        assert asleep.measured is not None
        (account,) = here.node.snapshot().devices
        (reading,) = await here.devices.read({})
        assert account.promised.total_bytes >= reading.used_bytes > 50 * 2**30, "the residue is booked too"
        assert here.node.snapshot().host.staged_bytes > 0
        kinds = await here.kinds_noted("r1")
        assert [kind for kind in kinds if kind in ("start", "sleep", "asleep", "wake", "awake")] == [
            "start", "sleep", "asleep", "wake", "awake", "sleep", "asleep",
        ]  # fmt: skip


async def test_a_model_whose_memory_does_not_come_back_is_stopped_instead(tmp_path: Path) -> None:
    leaks = {**BIG, "engine_args": {**SLOW["engine_args"], "sleep_leaks_bytes": 30 * 2**30}}
    async with world(tmp_path, models={"org/a": leaks, "org/b": BIG}, settings=FAST) as here:
        a, b = await here.add("org/a"), await here.add("org/b")
        assert [await ask(here, ref) for ref in (a, b, a)] == ["r1", "r2", "r3"]
        await here.journal.flushed()
        told = [entry.message for entry in await here.journal.read(subject="org/a") if entry.kind == "warning"]
        assert any("gave back" in message and "were expected" in message for message in told)


async def test_a_wake_that_fails_is_answered_by_a_fresh_start(tmp_path: Path) -> None:
    fails = {**BIG, "engine_args": {**SLOW["engine_args"], "wake_fails": "cannot map the weights"}}
    async with world(tmp_path, models={"org/a": fails, "org/b": BIG}, settings=FAST) as here:
        a, b = await here.add("org/a"), await here.add("org/b")
        assert [await ask(here, ref) for ref in (a, b, a)] == ["r1", "r2", "r3"]


async def test_sleep_and_wake_on_request(tmp_path: Path) -> None:
    async with world(tmp_path, models={"org/one": SLOW}) as here:
        ref = await here.add("org/one", alias="one")
        await ask(here, ref)
        assert await here.node.sleep("one") == ("r1",)
        (replica,) = here.node.snapshot().replicas
        assert replica.state is State.ASLEEP
        assert await here.node.load(ref) == "r1"
        with pytest.raises(NotFound):
            await here.node.sleep("nobody")


async def test_what_cannot_sleep_says_why(tmp_path: Path) -> None:
    async with world(tmp_path, settings={"pool.sleep": "false"}) as here:
        await ask(here, await here.add("org/one"))
        with pytest.raises(Conflict, match=r"pool\.sleep is false"):
            await here.node.sleep("r1")


async def test_what_can_sleep_no_more_when_its_turn_comes_says_why_instead_of_waiting_for_ever(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        await ask(here, await here.add("org/one"))
        named = here.node._stopping.named

        async def changed_meanwhile(subject: str, doing: str) -> tuple[ReplicaId, ...]:
            """What is asked for is behind this in the inbox, and was still possible when it was asked for."""
            chosen = await named(subject, doing)
            here.node.post(LimitsChanged(here.node.now(), replace(here.node._scheduler.limits, sleep=False)))
            return chosen

        here.node._stopping.named = changed_meanwhile  # type: ignore[method-assign]
        async with asyncio.timeout(5):
            with pytest.raises(Conflict, match=r"cannot put r1 to sleep: pool\.sleep is false"):
                await here.node.sleep("r1")


async def test_a_pinned_model_starts_unasked_and_stays(tmp_path: Path) -> None:
    brief = {**BIG, "keep_alive_s": 0.0}
    async with world(tmp_path, models={"org/a": brief, "org/b": {"keep_alive_s": 0.0}}, settings=FAST) as here:
        a, b = await here.add("org/a"), await here.add("org/b")
        await here.node.wanted.pin(a, 1)
        await until(here, "org/a", State.READY)
        await ask(here, b)
        (pinned,) = [each for each in here.node.snapshot().replicas if each.model == "org/a"]
        assert (pinned.state, pinned.pinned) == (State.READY, True)
        assert await here.node.wanted.pinned() == {"org/a": 1}
        await here.node.wanted.unpin(a)
        version = -1
        while any(each.state is State.READY for each in here.node.snapshot().replicas):
            version = await here.node.changed(version)
        with pytest.raises(NotFound, match="not pinned"):
            await here.node.wanted.unpin(a)
        with pytest.raises(NotFound):
            await here.node.wanted.pin(ModelRef("org/nobody"), 1)


async def test_least_numbers_of_the_configuration_are_kept_too(tmp_path: Path) -> None:
    async with world(tmp_path, models={"org/two": {"min_replicas": 2}}) as here:
        await here.add("org/two")
        version = -1
        while sum(each.state is State.READY for each in here.node.snapshot().replicas) < 2:
            version = await here.node.changed(version)


async def test_a_dead_pinned_replica_is_started_again(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        ref = await here.add("org/one")
        await here.node.wanted.pin(ref, 1)
        await until(here, "org/one", State.READY)
        engine = here.node.engine(here.node.snapshot().replicas[0].id)
        assert engine is not None
        engine.die("killed by signal 9")  # type: ignore[attr-defined]
        version = -1
        while not any(each.id == "r2" and each.state is State.READY for each in here.node.snapshot().replicas):
            version = await here.node.changed(version)
