"""Devices that fail while somebody waits for them: who waits goes on waiting, and knows for what."""

import asyncio
from pathlib import Path

import pytest

from heliosd.core.messages import Hold
from heliosd.core.names import DeviceId, ModelRef
from heliosd.errors import CannotFit, Unavailable
from heliosd.lease import LocalLease
from tests.node.world import World, world

G0 = DeviceId("g0")
FAST = {"devices.read_interval_s": "0.02"}
OUT = "out for now: g0 (GPU is lost)"


async def until_failed(here: World, failed: bool) -> None:
    version = -1
    while not (reading := here.node.snapshot().devices[0].reading) or (reading.fault is not None) is not failed:
        version = await here.node.changed(version)


async def test_a_model_is_served_once_its_only_device_is_back(tmp_path: Path) -> None:
    async with world(tmp_path, settings=FAST) as here:
        ref = await here.add("org/one")
        here.devices.fail(G0, "GPU is lost", xid=79)
        await until_failed(here, True)
        told: list[Hold] = []
        ticket = here.node.new_ticket()

        async def ask() -> str:
            async with here.node.lease(ticket, ref, told=told.append) as lease:
                assert isinstance(lease, LocalLease)
                return lease.replica

        assert (await here.node.judge(ref)).verdict == "must_wait"
        async with asyncio.TaskGroup() as tasks:
            asking = tasks.create_task(ask())
            version = -1
            while not told:
                version = await here.node.changed(version)
            assert OUT in told[0].reason
            waits = here.node.facts(ticket).waits
            assert waits is not None
            assert OUT in waits.reason
            assert waits.eta_s is None, "nobody knows for how long"
            here.devices.heal(G0)
        assert asking.result() == "r1"
        await here.journal.flushed()
        holds = [entry.message for entry in await here.journal.read(subject=ticket, kinds=["hold"])]
        assert any(OUT in message for message in holds)


async def test_the_error_at_the_limit_names_the_device(tmp_path: Path) -> None:
    async with world(tmp_path, settings=FAST) as here:
        ref = await here.add("org/one")
        here.devices.fail(G0, "GPU is lost")
        await until_failed(here, True)
        with pytest.raises(Unavailable, match=r"g0 \(GPU is lost\)") as caught:
            async with here.node.lease(here.node.new_ticket(), ref, deadline_s=0.05):
                pass
        assert caught.value.code == "queue_timeout"


async def test_what_no_device_could_ever_hold_is_refused_also_while_one_fails(tmp_path: Path) -> None:
    async with world(tmp_path, models={"org/huge": {"kv_cache": "500GiB"}}, settings=FAST) as here:
        ref: ModelRef = await here.add("org/huge")
        here.devices.fail(G0, "GPU is lost")
        await until_failed(here, True)
        with pytest.raises(CannotFit, match="too little"):
            async with here.node.lease(here.node.new_ticket(), ref):
                pass
