"""Simulated engines: time is the test's own, memory is booked and given back, and they fail as they are told."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from heliosd.core.hardware import DeviceKind
from heliosd.core.units import MiB
from heliosd.devices.simulated import SimulatedDevice, SimulatedDevices
from heliosd.engines.engine import LaunchSpec
from heliosd.engines.simulated import Behaviour, SimulatedKind, SimulatedMemory
from heliosd.errors import EngineFailed
from tests.engines.account import Account
from tests.engines.answers import HOST, chat, spec

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
