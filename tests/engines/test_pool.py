"""The pool tells what became of its replicas, whatever they are told to do and whatever goes wrong with it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from heliosd.core.gist import gist
from heliosd.core.hardware import DeviceKind
from heliosd.core.messages import (
    ReplicaBecameReady,
    ReplicaDied,
    ReplicaExited,
    ReplicaPressed,
    ReplicaSlept,
    ReplicaWoke,
)
from heliosd.core.names import ReplicaId
from heliosd.core.units import GiB
from heliosd.devices.simulated import SimulatedDevice, SimulatedDevices
from heliosd.engines.pool import Pool, Report
from heliosd.engines.simulated import Behaviour, SimulatedEngine, SimulatedKind
from tests.engines.answers import HOST, chat, spec

SIMULATED = replace(HOST, kind=DeviceKind.SIMULATED)
FOR_EVER_S = 1e6
R1, R2 = ReplicaId("r1"), ReplicaId("r2")


class Gate:
    """Time of the engines: passes at once, but for what takes for ever and for what waits at the gate."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.open.set()
        self.reached: asyncio.Queue[float] = asyncio.Queue()

    async def sleep(self, span_s: float) -> None:
        self.reached.put_nowait(span_s)
        if span_s >= FOR_EVER_S:
            await asyncio.Event().wait()
        await self.open.wait()

    async def reach_nothing(self) -> None:
        """Let everybody go as far as they get: none of them comes to the gate."""
        for _ in range(20):
            await asyncio.sleep(0)
        assert self.reached.empty()

    async def until_reached(self, span_s: float) -> None:
        while await self.reached.get() != span_s:
            pass


@dataclass
class Bench:
    """A pool of simulated engines, and what it told."""

    pool: Pool
    devices: SimulatedDevices
    gate: Gate
    told: "asyncio.Queue[Report]"
    tasks: asyncio.TaskGroup
    folder: Path

    def launch(self, replica: ReplicaId = R1, takes_over: ReplicaId | None = None, **engine_args: Any) -> None:
        launch = spec(
            self.folder, self.folder, replica, devices=(SIMULATED,), kv_cache_bytes=2 * GiB, engine_args=engine_args
        )
        self.pool.expect(replica)
        self.tasks.create_task(self.pool.run(replace(launch, sleep=True), takes_over))

    async def ready(self, replica: ReplicaId = R1, **engine_args: Any) -> SimulatedEngine:
        self.launch(replica, **engine_args)
        assert isinstance(await self.next(), ReplicaBecameReady)
        engine = self.pool.engine(replica)
        assert isinstance(engine, SimulatedEngine)
        return engine

    async def next(self) -> Report:
        return await asyncio.wait_for(self.told.get(), 5)

    async def used_bytes(self) -> int:
        (reading,) = await self.devices.read({})
        return reading.used_bytes


@asynccontextmanager
async def bench(folder: Path, start_timeout_s: float = 5.0) -> AsyncIterator[Bench]:
    devices, gate = SimulatedDevices([SimulatedDevice(HOST.id, "simulated GPU", 8 * GiB)]), Gate()
    kind = SimulatedKind(
        devices,
        Behaviour(
            load_s=4.0,
            phases={"weights": 1.0},
            swap_phases={"weights": 1.0},
            weights_bytes=GiB,
            sleep_s=2.0,
            wake_s=3.0,
        ),
        gate.sleep,
    )
    told: asyncio.Queue[Report] = asyncio.Queue()
    now = asyncio.get_running_loop().time
    pool = Pool({DeviceKind.SIMULATED: kind}, told.put_nowait, now=now, start_timeout_s=start_timeout_s)
    async with asyncio.TaskGroup() as tasks:
        yield Bench(pool, devices, gate, told, tasks, folder)
        for replica in (R1, R2):
            pool.stop(replica)


async def test_a_replica_is_ready_sleeps_wakes_and_ends_when_told(tmp_path: Path) -> None:
    async with bench(tmp_path) as its:
        its.launch()
        ready = await its.next()
        assert isinstance(ready, ReplicaBecameReady)
        assert ready.sleep_levels == {1, 2}
        its.pool.sleep(R1, 1)
        slept = await its.next()
        assert isinstance(slept, ReplicaSlept)
        assert (slept.replica, slept.level, slept.host_bytes) == (R1, 1, GiB)
        assert slept.residue.total_bytes == await its.used_bytes() < GiB
        its.pool.wake(R1)
        woke = await its.next()
        assert isinstance(woke, ReplicaWoke)
        assert (woke.replica, woke.measured) == (R1, ready.measured)
        its.pool.stop(R1)
        exited = await its.next()
        assert isinstance(exited, ReplicaExited)
        assert (exited.replica, exited.cause) == (R1, None)
        assert await its.used_bytes() == 0


async def test_who_is_gone_cannot_be_told_anything(tmp_path: Path) -> None:
    async with bench(tmp_path) as its:
        its.pool.sleep(R1, 1)
        its.pool.wake(R1)
        its.pool.stop(R1)
        assert its.told.empty()


@pytest.mark.parametrize(
    ("engine_args", "cause"),
    [({"sleep_fails": "a graph is in use"}, "a graph is in use"), ({"sleep_levels": [2]}, "it can at [2]")],
    ids=["fails", "cannot"],
)
async def test_a_sleep_that_fails_ends_the_replica_with_the_cause(
    tmp_path: Path, engine_args: dict[str, Any], cause: str
) -> None:
    async with bench(tmp_path) as its:
        await its.ready(**engine_args)
        its.pool.sleep(R1, 1)
        exited = await its.next()
        assert isinstance(exited, ReplicaExited)
        assert cause in gist(exited.cause or "")
        assert its.pool.engine(R1) is None
        assert await its.used_bytes() == 0


async def test_a_wake_without_memory_ends_the_replica_with_the_cause(tmp_path: Path) -> None:
    async with bench(tmp_path) as its:
        await its.ready()
        its.pool.sleep(R1, 2)
        await its.next()
        its.devices.set_foreign(HOST.id, 7 * GiB)
        its.pool.wake(R1)
        exited = await its.next()
        assert isinstance(exited, ReplicaExited)
        assert (exited.cause or "").startswith("CUDA out of memory. Tried to allocate 3.0 GiB")


@pytest.mark.parametrize(
    ("engine_args", "cause"),
    [({"sleep_s": FOR_EVER_S}, "not asleep after 0 s"), ({"wake_s": FOR_EVER_S}, "not awake after 0 s")],
    ids=["sleep", "wake"],
)
async def test_a_sleep_or_wake_that_hangs_ends_the_replica(
    tmp_path: Path, engine_args: dict[str, Any], cause: str
) -> None:
    async with bench(tmp_path, start_timeout_s=0.05) as its:
        await its.ready(**engine_args)
        its.pool.sleep(R1, 1)
        if "wake_s" in engine_args:
            assert isinstance(await its.next(), ReplicaSlept)
            its.pool.wake(R1)
        exited = await its.next()
        assert isinstance(exited, ReplicaExited)
        assert exited.cause == cause


async def test_a_stop_while_it_falls_asleep_or_wakes_is_obeyed(tmp_path: Path) -> None:
    async with bench(tmp_path) as its:
        await its.ready(sleep_s=FOR_EVER_S)
        its.pool.sleep(R1, 1)
        await its.gate.until_reached(FOR_EVER_S)
        its.pool.stop(R1)
        exited = await its.next()
        assert isinstance(exited, ReplicaExited)
        assert exited.cause is None
        await its.ready(R2, wake_s=FOR_EVER_S)
        its.pool.sleep(R2, 1)
        assert isinstance(await its.next(), ReplicaSlept)
        its.pool.wake(R2)
        await its.gate.until_reached(FOR_EVER_S)
        its.pool.stop(R2)
        exited = await its.next()
        assert isinstance(exited, ReplicaExited)
        assert exited.cause is None
        assert await its.used_bytes() == 0


async def test_an_engine_that_dies_asleep_or_on_its_way_is_told_at_once(tmp_path: Path) -> None:
    async with bench(tmp_path) as its:
        engine = await its.ready(wake_s=FOR_EVER_S)
        its.pool.sleep(R1, 1)
        assert isinstance(await its.next(), ReplicaSlept)
        its.pool.wake(R1)
        await its.gate.until_reached(FOR_EVER_S)
        engine.die("killed by SIGKILL")
        assert isinstance(await its.next(), ReplicaDied)
        exited = await its.next()
        assert isinstance(exited, ReplicaExited)
        assert exited.cause == "killed by SIGKILL"


async def test_a_wake_waits_for_the_start_of_another_on_its_device(tmp_path: Path) -> None:
    async with bench(tmp_path) as its:
        await its.ready()
        its.pool.sleep(R1, 1)
        assert isinstance(await its.next(), ReplicaSlept)
        its.gate.open.clear()
        its.launch(R2)
        await its.gate.until_reached(2.0)  # what R1 fell asleep in
        await its.gate.until_reached(4.0)
        its.pool.wake(R1)
        await its.gate.reach_nothing()
        its.gate.open.set()
        assert isinstance(await its.next(), ReplicaBecameReady)
        assert isinstance(await its.next(), ReplicaWoke)


async def test_a_start_waits_for_the_wake_of_another_on_its_device(tmp_path: Path) -> None:
    async with bench(tmp_path) as its:
        await its.ready()
        its.pool.sleep(R1, 1)
        assert isinstance(await its.next(), ReplicaSlept)
        its.gate.open.clear()
        its.pool.wake(R1)
        await its.gate.until_reached(3.0)
        its.launch(R2)
        await its.gate.reach_nothing()
        its.gate.open.set()
        assert isinstance(await its.next(), ReplicaWoke)
        assert isinstance(await its.next(), ReplicaBecameReady)


async def test_what_presses_an_engine_is_told(tmp_path: Path) -> None:
    async with bench(tmp_path) as its:
        engine = await its.ready()
        await chat(engine, max_tokens=4)
        told = await its.next()
        assert isinstance(told, ReplicaPressed)
        assert (told.replica, told.running, told.waiting, told.preemptions) == (R1, 1, 0, 0)
        told = await its.next()
        assert isinstance(told, ReplicaPressed)
        assert (told.running, told.waiting, told.kv_used_ratio) == (0, 0, 0.0)


async def test_one_replica_begins_in_the_engine_of_another(tmp_path: Path) -> None:
    async with bench(tmp_path) as its:
        await its.ready()
        used_bytes = await its.used_bytes()
        its.launch(R2, takes_over=R1)
        told = [await its.next(), await its.next()]
        assert {(type(each), each.replica) for each in told} == {(ReplicaExited, R1), (ReplicaBecameReady, R2)}
        assert its.pool.engine(R1) is None
        assert await its.used_bytes() == used_bytes
        assert [its.gate.reached.get_nowait() for _ in range(2)] == [4.0, 4.0 / 3], "it started afresh"


async def test_where_that_fails_it_starts_afresh(tmp_path: Path) -> None:
    async with bench(tmp_path) as its:
        await its.ready()
        its.launch(R2, takes_over=R1, swap_fails="another shape")
        told = [await its.next(), await its.next()]
        assert {(type(each), each.replica) for each in told} == {(ReplicaExited, R1), (ReplicaBecameReady, R2)}
        assert [its.gate.reached.get_nowait() for _ in range(3)] == [4.0, 4.0 / 3, 4.0]


async def test_where_the_other_has_ended_it_starts_afresh(tmp_path: Path) -> None:
    async with bench(tmp_path) as its:
        its.launch(R2, takes_over=R1)
        assert isinstance(await its.next(), ReplicaBecameReady)


async def test_stopped_before_it_has_the_engine_nobody_keeps_it(tmp_path: Path) -> None:
    async with bench(tmp_path) as its:
        await its.ready()
        its.launch(R2, takes_over=R1)
        its.pool.stop(R2)
        told = [await its.next(), await its.next()]
        assert {(type(each), each.replica) for each in told} == {(ReplicaExited, R1), (ReplicaExited, R2)}
        assert await its.used_bytes() == 0
