"""What the scheduler was told is kept so that it can be replayed, within its limit and whatever the disk does."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from heliosd.core.messages import Event, Footprint, ReplicaBecameReady, StartReplica, Tick
from heliosd.core.names import ReplicaId
from heliosd.core.scheduler import Scheduler
from heliosd.replay import Outcome, read, replay
from heliosd.state.recording import TRY_AGAIN_AFTER, Recording, segments
from tests.history import history

LARGE = 2**30


@asynccontextmanager
async def recording(folder: Path, max_bytes: int = LARGE) -> AsyncIterator[Recording]:
    it = Recording(folder, max_bytes)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(it.run())
        yield it
        await it.flushed()
        running.cancel()


def tell(it: Recording, scheduler: Scheduler, events: list[Event]) -> int:
    """Returns how many replicas were started."""
    started = 0
    for event in events:
        commands = scheduler.handle(event)
        started += sum(isinstance(command, StartReplica) for command in commands)
        it.note(scheduler, event, commands)
    return started


async def streamed(it: Recording) -> Outcome:
    text = b"".join([block async for block in it.stream()]).decode()
    return replay(text.splitlines())


async def test_what_was_told_replays_equal(tmp_path: Path) -> None:
    events = history()
    async with recording(tmp_path) as it:
        scheduler = Scheduler()
        it.begin(scheduler)
        tell(it, scheduler, events)
        outcome = await streamed(it)
    assert (outcome.segments, outcome.events, outcome.differences, it.events) == (1, len(events), [], len(events))
    assert outcome.commands > len(events) / 3
    assert replay(read(tmp_path)).events == len(events)


async def test_old_segments_go_and_each_that_is_left_replays(tmp_path: Path) -> None:
    events, limit_bytes = history(600), 200_000
    async with recording(tmp_path, limit_bytes) as it:
        scheduler = Scheduler()
        it.begin(scheduler)
        for event in events:
            tell(it, scheduler, [event])
            await it.flushed()
    files = segments(tmp_path)
    assert len(files) > 3 and files[0].stem != "00000001"
    assert sum(file.stat().st_size for file in files) <= limit_bytes * 1.2
    for file in files:
        outcome = replay(read(file))
        assert outcome.differences == [] and outcome.segments == 1


async def test_another_life_adds_to_the_recording(tmp_path: Path) -> None:
    events = history()
    for last_replica in (0, 40):
        async with recording(tmp_path) as it:
            scheduler = Scheduler()
            scheduler.number_after(last_replica)
            it.begin(scheduler)
            tell(it, scheduler, events[:100] if last_replica == 0 else events[:1])
            outcome = await streamed(it)
    assert (outcome.segments, outcome.events, outcome.differences) == (2, 101, [])


async def test_a_torn_tail_is_a_line_of_its_own(tmp_path: Path) -> None:
    async with recording(tmp_path) as it:
        scheduler = Scheduler()
        it.begin(scheduler)
        tell(it, scheduler, history()[:50])
    (file,) = segments(tmp_path)
    file.write_bytes(file.read_bytes()[:-10])
    async with recording(tmp_path) as it:
        it.begin(Scheduler())
        outcome = await streamed(it)
    assert (outcome.segments, outcome.events, outcome.torn, outcome.differences) == (2, 49, 1, [])


async def test_an_event_that_the_scheduler_fails_on_is_kept(tmp_path: Path) -> None:
    async with recording(tmp_path) as it:
        scheduler = Scheduler()
        it.begin(scheduler)
        it.note(scheduler, ReplicaBecameReady(1.0, ReplicaId("r9"), Footprint(0, 0, 0)), None)
        it.note(scheduler, Tick(2.0), None)
        outcome = await streamed(it)
    (difference,) = outcome.differences
    assert outcome.events == 1, "a scheduler that fails again decides the same"
    assert (difference.event, difference.recorded, difference.replayed) == ({"is": "Tick", "at": 2.0}, None, [])


async def test_a_disk_that_takes_nothing_costs_the_recording_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "recording"
    folder.write_text("in the way")
    events = history(700)
    async with recording(folder) as it:
        scheduler = Scheduler()
        it.begin(scheduler)
        started = tell(it, scheduler, events[:10])
        await it.flushed()
        assert started and it.lost == 10
        folder.unlink()
        tell(it, scheduler, events[10 : 10 + TRY_AGAIN_AFTER])
        tell(it, scheduler, events[10 + TRY_AGAIN_AFTER :])
        outcome = await streamed(it)
    left = len(events) - 10 - TRY_AGAIN_AFTER
    assert left > 100 and (outcome.events, outcome.differences) == (left, [])
    assert it.lost == 10 + TRY_AGAIN_AFTER and it.events == left
    assert [record.message for record in caplog.records] == ["scheduler cannot be recorded"]
