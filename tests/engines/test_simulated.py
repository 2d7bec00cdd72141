"""Simulated engines: time is the test's own, memory is booked and given back, and they fail as they are told."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from heliosd.core.hardware import DeviceKind
from heliosd.core.messages import Footprint
from heliosd.core.oom import out_of_memory
from heliosd.core.units import GiB, MiB
from heliosd.devices.simulated import SimulatedDevice, SimulatedDevices
from heliosd.engines.engine import LaunchSpec, Slept
from heliosd.engines.simulated import Behaviour, SimulatedKind, SimulatedMemory
from heliosd.errors import EngineFailed
from tests.engines.account import Account
from tests.engines.answers import HOST, Answer, chat, request, spec, until

SIMULATED = replace(HOST, kind=DeviceKind.SIMULATED)


class Clock:
    """Sleeps take no time and are added up."""

    def __init__(self) -> None:
        self.slept_s = 0.0

    async def sleep(self, span_s: float) -> None:
        self.slept_s += span_s
        await asyncio.sleep(0)


@pytest.fixture
def launch(tmp_path: Path) -> LaunchSpec:
    (tmp_path / "model.safetensors").write_bytes(b"0" * 1000)
    return spec(tmp_path, tmp_path, devices=(SIMULATED,))


async def test_it_loads_for_as_long_as_told_and_speaks_as_fast(launch: LaunchSpec) -> None:
    clock = Clock()
    engine = await SimulatedKind(Account(), Behaviour(load_s=12, tokens_per_s=4), clock.sleep).start(launch)
    assert clock.slept_s == 12
    await chat(engine, max_tokens=8)
    assert clock.slept_s == 12 + 8 / 4


async def test_it_holds_memory_until_it_is_stopped(launch: LaunchSpec) -> None:
    account = Account()
    engine = await SimulatedKind(account, Behaviour(load_s=0)).start(launch)
    assert engine.footprint.weights_bytes == 1000
    assert account.held == {("r1", "host"): engine.footprint.total_bytes}
    await engine.stop()
    assert account.held == {}


async def test_it_gives_memory_back_when_it_dies_fails_or_is_called_off(launch: LaunchSpec) -> None:
    account = Account()
    kind = SimulatedKind(account, Behaviour(load_s=0))
    (await kind.start(launch)).die("crashed")
    assert account.held == {}
    with pytest.raises(EngineFailed, match="cannot start m: no kernel"):
        await kind.start(replace(launch, engine_args={"refuses": "no kernel"}))
    assert account.held == {}
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(kind.start(replace(launch, engine_args={"never_ready": True})), 0.02)
    assert account.held == {}


async def test_a_device_without_room_refuses_it(launch: LaunchSpec) -> None:
    fleet = SimulatedDevices([SimulatedDevice(HOST.id, "simulated GPU", 100 * MiB)])
    memory: SimulatedMemory = fleet
    with pytest.raises(EngineFailed, match="cannot take"):
        await SimulatedKind(memory, Behaviour(load_s=0)).start(launch)
    (reading,) = await fleet.read({})
    assert reading.used_bytes == 0


async def test_a_request_can_kill_it(launch: LaunchSpec) -> None:
    engine = await SimulatedKind(Account(), Behaviour(load_s=0, dies_of="xyzzy")).start(launch)
    assert (await chat(engine)).status == 200
    with pytest.raises(EngineFailed, match="xyzzy"):
        await chat(engine, messages=[{"role": "user", "content": "say xyzzy"}])
    assert "xyzzy" in await engine.wait_dead()


async def test_different_questions_get_different_answers(launch: LaunchSpec) -> None:
    engine = await SimulatedKind(Account(), Behaviour(load_s=0, tokens_per_s=1e6)).start(launch)
    texts = {(await chat(engine, messages=[{"role": "user", "content": word}])).body for word in "abcd"}
    assert len(texts) > 1


def fleet(capacity_bytes: int = 8 * GiB) -> SimulatedDevices:
    return SimulatedDevices([SimulatedDevice(HOST.id, "simulated GPU", capacity_bytes)])


async def used_bytes(devices: SimulatedDevices) -> int:
    (reading,) = await devices.read({})
    return reading.used_bytes


@pytest.mark.parametrize(("level", "host_bytes"), [(1, 1000), (2, 0)])
async def test_asleep_it_keeps_a_residue_and_awake_all_it_held(launch: LaunchSpec, level: int, host_bytes: int) -> None:
    devices = fleet()
    kind = SimulatedKind(devices, Behaviour(load_s=0, residue_bytes=100 * MiB), Clock().sleep)
    engine = await kind.start(replace(launch, sleep=True))
    held = await used_bytes(devices)
    slept = await engine.sleep(level)
    assert slept == Slept(Footprint(0, 0, 100 * MiB), host_bytes)
    assert await used_bytes(devices) == 100 * MiB
    assert (await engine.wake()).total_bytes == held == await used_bytes(devices)
    await engine.stop()
    assert await used_bytes(devices) == 0


@pytest.mark.parametrize(("level", "wake_s", "takes_s"), [(1, None, 0.3), (2, None, 4.0), (2, 1.5, 1.5)])
async def test_waking_from_level_2_takes_longer(
    launch: LaunchSpec, level: int, wake_s: float | None, takes_s: float
) -> None:
    clock = Clock()
    kind = SimulatedKind(Account(), Behaviour(load_s=8, wake_s=wake_s), clock.sleep)
    engine = await kind.start(replace(launch, sleep=True))
    await engine.sleep(level)
    clock.slept_s = 0.0
    await engine.wake()
    assert clock.slept_s == takes_s


async def test_it_does_not_wake_when_somebody_else_has_its_memory(launch: LaunchSpec) -> None:
    devices = fleet()
    engine = await SimulatedKind(devices, Behaviour(load_s=0), Clock().sleep).start(
        replace(launch, sleep=True, kv_cache_bytes=5 * GiB)
    )
    await engine.sleep(1)
    devices.take("another", HOST.id, 4 * GiB)
    with pytest.raises(EngineFailed, match=r"cannot wake m: cannot take 5\.0 GiB of host: 3\.8 GiB") as failed:
        await engine.wake()
    shortage = out_of_memory(failed.value.cause or "")
    assert shortage is not None
    assert shortage.asked_bytes == pytest.approx(5 * GiB, rel=0.01)


async def test_it_can_fail_to_sleep_and_to_wake_and_leak(launch: LaunchSpec) -> None:
    account, may_sleep = Account(), replace(launch, sleep=True)
    kind = SimulatedKind(account, Behaviour(load_s=0), Clock().sleep)
    with pytest.raises(EngineFailed, match="cannot put m to sleep at level 1: too busy"):
        await (await kind.start(replace(may_sleep, engine_args={"sleep_fails": "too busy"}))).sleep(1)
    dreamer = await kind.start(replace(may_sleep, engine_args={"wake_fails": "the driver lost it"}))
    await dreamer.sleep(2)
    with pytest.raises(EngineFailed, match="cannot wake m: the driver lost it"):
        await dreamer.wake()
    await dreamer.stop()
    leaky = await kind.start(replace(may_sleep, engine_args={"sleep_leaks_bytes": GiB}))
    awake = leaky.footprint.total_bytes
    assert (await leaky.sleep(2)).residue.total_bytes == leaky.footprint.overhead_bytes + GiB
    assert (await leaky.wake()).total_bytes == awake + GiB
    assert account.held[launch.replica, HOST.id] == awake + GiB
    await leaky.stop()
    assert account.held == {}


async def test_what_was_launched_without_sleep_has_none(launch: LaunchSpec) -> None:
    kind = SimulatedKind(Account(), Behaviour(load_s=0))
    assert (await kind.start(launch)).sleep_levels == frozenset()
    only_deep = await kind.start(replace(launch, sleep=True, engine_args={"sleep_levels": [2]}))
    assert only_deep.sleep_levels == {2}


async def test_it_does_not_sleep_over_work(launch: LaunchSpec) -> None:
    engine = await SimulatedKind(Account(), Behaviour(load_s=0)).start(replace(launch, sleep=True))
    async with asyncio.TaskGroup() as group:
        asking = group.create_task(chat(engine, max_tokens=400))
        await until(lambda: engine.unfinished() == 1, 5)
        with pytest.raises(EngineFailed, match="it works on 1 requests"):
            await engine.sleep(1)
        asking.cancel()


async def test_sequences_beyond_its_kv_cache_wait_and_are_put_back(launch: LaunchSpec) -> None:
    """Two of 400 tokens in a cache for 512: both begin, the younger is put back, both answer in the end."""
    engine = await SimulatedKind(Account(), Behaviour(load_s=0), Clock().sleep).start(launch)
    body = {"model": "m", "prompt": "a", "max_tokens": 400}
    answers = [Answer(), Answer()]
    async with asyncio.TaskGroup() as group:
        for answer in answers:
            group.create_task(engine.handle(request("/v1/completions", body), answer))
    assert [answer.json["usage"]["completion_tokens"] for answer in answers] == [400, 400]
    assert engine.pressure().preemptions >= 1
    assert (engine.pressure().running, engine.pressure().waiting) == (0, 0)


async def test_it_works_on_no_more_sequences_than_it_was_launched_for(launch: LaunchSpec) -> None:
    engine = await SimulatedKind(Account(), Behaviour(load_s=0, tokens_per_s=1)).start(replace(launch, max_num_seqs=2))
    async with asyncio.TaskGroup() as group:
        asking = [group.create_task(chat(engine, max_tokens=1)) for _ in range(3)]
        await until(lambda: engine.pressure().waiting == 1, 5)
        assert engine.pressure().running == 2
        for task in asking:
            task.cancel()
    assert engine.pressure().running == engine.pressure().waiting == 0
