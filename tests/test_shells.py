"""When processes are made ahead and when they are given up, with real processes and a node that is told how it is."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from heliosd.core.messages import Event, ShellsHeld
from heliosd.core.names import ReplicaId
from heliosd.core.units import GiB
from heliosd.engines.shells import Shells
from heliosd.engines.zygote import ForkContext, Zygote
from heliosd.node.changes import Changes
from heliosd.shells import QUIET_S, KeptShells
from heliosd.state.database import Database
from heliosd.state.journal import Journal
from heliosd.telemetry.metrics import Metrics
from tests.engines.answers import alive, until
from tests.engines.test_zygote import HERE, show

NAME = "vllm host"


@dataclass
class Told:
    """A node as the test wants it."""

    calm: bool = True
    idle: bool = True
    shell_room_bytes: int = GiB
    at: float = 1000.0
    posted: list[Event] = field(default_factory=list)
    changes: Changes = field(default_factory=Changes)

    def now(self) -> float:
        return self.at

    def post(self, event: Event) -> None:
        self.posted.append(event)
        self.changes.note()

    async def changed(self, version: int) -> int:
        return await self.changes.after(version)


@dataclass
class World:
    node: Told
    zygote: Zygote
    shells: Shells
    kept: KeptShells
    metrics: Metrics
    journal: Journal
    wanted: int = 1
    warm: bool = True

    def happened(self, what: str) -> float:
        return self.metrics._registry.get_sample_value("helios_shell_events_total", {"what": what}) or 0.0

    async def noted(self) -> list[str]:
        await self.journal.flushed()
        return [entry.message for entry in await self.journal.read(kinds=("shell",))]

    async def ready(self, count: int) -> None:
        await until(lambda: self.shells.waiting == count and not self.shells.making, 5)


@asynccontextmanager
async def world(folder: Path, *, zygote_runs: bool = True, **node: object) -> AsyncIterator[World]:
    zygote = Zygote("decimal", {**os.environ, "PYTHONPATH": HERE}, folder / "zygote.log")
    if zygote_runs:
        await asyncio.to_thread(zygote.ensure)
    database = Database(folder / "helios.db")
    await database.open()
    with ThreadPoolExecutor(4) as threads:
        told, metrics, journal = Told(**node), Metrics(), Journal(database)  # type: ignore[arg-type]
        shells = Shells(zygote, threads, None)
        kept = KeptShells({NAME: shells}, lambda name: found.warm, told, journal, metrics, wanted=lambda: found.wanted)
        found = World(told, zygote, shells, kept, metrics, journal)
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(journal.run()), tasks.create_task(kept.run())]
            try:
                yield found
            finally:
                for task in running:
                    task.cancel()
        shells.close()
        await asyncio.to_thread(zygote.close)
    await database.close()


async def use(it: World, log: Path) -> None:
    """A start, during which the node is not calm."""
    it.node.calm = False
    shell = it.shells.take()
    assert shell is not None
    context = ForkContext(it.zygote, log, {})
    context.shell = shell
    process = context.Process(target=show)
    await asyncio.to_thread(process.start)
    it.shells.done_with(shell, ReplicaId("r1"), "org/m")
    await asyncio.to_thread(process.join, 10)
    it.node.calm = True
    it.node.changes.note()


async def test_one_is_made_told_of_and_charged(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        await it.ready(1)
        await until(lambda: bool(it.node.posted), 5)
        assert it.node.posted == [ShellsHeld(1000.0, it.shells.own_bytes)]
        (line,) = await it.noted()
        assert line.startswith("one of vllm host is ready, made in ")
        status = it.kept.status()[NAME]
        assert (status.wanted, status.waiting, status.making, status.why) == (1, 1, False, "")
        assert it.metrics._registry.get_sample_value("helios_shells", {"state": "waiting"}) == 1


async def test_after_one_was_used_the_next_is_made(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        await it.ready(1)
        await use(it, tmp_path / "log")
        await it.ready(1)
        lines = await it.noted()
        assert lines[1] == "r1 begins in a process that was made ahead"
        assert (it.happened("made"), it.happened("used")) == (2, 1)


async def test_none_is_made_while_somebody_waits_or_before_the_zygote_is_warm(tmp_path: Path) -> None:
    async with world(tmp_path, calm=False) as it:
        it.node.post(ShellsHeld(0.0, 0))
        await asyncio.to_thread(lambda: None)
        assert not it.shells.making
        it.warm, it.node.calm = False, True
        it.node.changes.note()
        await asyncio.to_thread(lambda: None)
        assert not it.shells.making
        it.warm = True
        it.node.changes.note()
        await it.ready(1)


async def test_while_somebody_is_served_the_next_waits_for_a_while(tmp_path: Path) -> None:
    """It would take from the first words of the replica that has just begun in the one before."""
    async with world(tmp_path) as it:
        await it.ready(1)
        it.node.idle = False
        await use(it, tmp_path / "log")
        it.node.changes.note()
        await asyncio.to_thread(lambda: None)
        assert (it.shells.waiting, it.shells.making) == (0, False)
        it.node.at += QUIET_S
        it.node.changes.note()
        await it.ready(1)


async def test_they_are_given_up_when_host_memory_gets_short(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        await it.ready(1)
        it.node.shell_room_bytes = 0
        it.node.changes.note()
        await it.ready(0)
        await until(lambda: it.node.posted[-1] == ShellsHeld(1000.0, 0), 5)
        assert "of host memory are left for shells, and 1 take " in (await it.noted())[-1]
        assert it.kept.status()[NAME].why.startswith("0 B of host memory are left for shells")
        assert it.happened("given_up") == 1
        it.node.shell_room_bytes = GiB
        it.node.changes.note()
        await it.ready(1)
        assert it.kept.status()[NAME].why == ""


async def test_how_many_can_be_changed_meanwhile(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        for wanted in (3, 1, 0):
            it.wanted = wanted
            it.node.changes.note()
            await it.ready(wanted)


async def test_one_that_dies_soon_is_made_again_later_and_later(tmp_path: Path) -> None:
    async with world(tmp_path) as it:
        for wait_s in (1, 2, 4):
            await it.ready(1)
            (pid,) = it.shells.pids
            os.kill(pid, signal.SIGKILL)
            await until(lambda: it.shells.waiting == 0, 5)
            why = it.kept.status()[NAME].why
            assert why == f"it died soon after it was made; next try in {wait_s} s"
            assert not it.shells.making
            it.node.at += wait_s
            it.node.changes.note()
        await it.ready(1)


async def test_one_that_cannot_be_made_is_told_and_tried_again(tmp_path: Path) -> None:
    async with world(tmp_path, zygote_runs=False) as it:
        await until(lambda: it.happened("failed") == 1, 5)
        why = "cannot make a shell: the zygote is not running; next try in 1 s"
        assert it.kept.status()[NAME].why == why
        assert await it.noted() == [f"none of {NAME}: {why}"]
        await asyncio.to_thread(it.zygote.ensure)
        it.node.at += 1
        it.node.changes.note()
        await it.ready(1)


@pytest.mark.parametrize("count", [1, 4])
async def test_none_outlives_the_keeper_and_its_kind(tmp_path: Path, count: int) -> None:
    async with world(tmp_path) as it:
        it.wanted = count
        it.node.changes.note()
        await it.ready(count)
        pids = it.shells.pids
    await until(lambda: not any(map(alive, pids)), 5)
