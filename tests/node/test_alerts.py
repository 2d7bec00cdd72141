"""Faults staged in a whole node make alerts fire and clear; a real receiver gets both. The clock is the test's."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heliosd.core.names import DeviceId
from heliosd.core.snapshot import Snapshot
from heliosd.core.units import GiB
from heliosd.telemetry.alert_watch import AlertWatch
from heliosd.telemetry.metrics import Metrics, Scrape
from heliosd.telemetry.surroundings import Disk, Surroundings
from heliosd.telemetry.webhook import Webhook
from tests.node.world import World, world
from tests.telemetry.receiver import Receiver, receiver

G0 = DeviceId("g0")
READ_AT_ONCE = {"devices.read_interval_s": "0.01"}


@dataclass
class Around:
    """What the test decides: the time, and how much of the disk is free."""

    at: float = 0.0
    disk_bytes: int = 100 * GiB


@dataclass
class Stage:
    here: World
    watch: AlertWatch
    there: Receiver
    around: Around

    async def until(self, true: Any) -> None:
        """Wait for the node's next readings until the snapshot is so."""
        version = -1
        while not true(self.here.node.snapshot()):
            version = await self.here.node.changed(version)

    async def pass_time(self, seconds: float) -> list[str]:
        """Judge each quarter of a minute; returns what fires then."""
        end = self.around.at + seconds
        while self.around.at < end:
            self.around.at += 15
            await self.watch.look()
        return [name for name, count in self.watch.firing().items() if count]

    async def post(self) -> tuple[str, str]:
        async with asyncio.timeout(10):
            (one,) = (await self.there.posts.get())["alerts"]
        return one["status"], one["labels"]["alertname"]


@asynccontextmanager
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with world(tmp_path, settings=READ_AT_ONCE) as here, receiver() as there, asyncio.TaskGroup() as tasks:
        metrics, around = Metrics(), Around()
        webhook = Webhook(there.url, "gpu7", metrics)

        async def scrape() -> Scrape:
            disks = Surroundings((Disk("store", 100 * GiB, around.disk_bytes),))
            return Scrape(here.node.snapshot(), "1", 0, 0, 0, {}, 0, 0, 0, 0, (), disks)

        watch = AlertWatch(scrape, metrics, here.journal, webhook, interval_s=15.0, for_s=None, now=lambda: around.at)
        it = Stage(here, watch, there, around)
        posting = tasks.create_task(webhook.run())
        yield it
        posting.cancel()


def free(snapshot: Snapshot) -> int:
    (account,) = snapshot.devices
    return account.free_bytes


async def test_memory_that_others_take_presses_until_they_give_it_back(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        await it.until(lambda snapshot: snapshot.devices)
        ref = await it.here.add("org/one")
        await it.here.node.load(ref)
        assert await it.pass_time(60) == []
        it.here.devices.set_foreign(G0, 80 * GiB)
        await it.until(lambda snapshot: free(snapshot) < 0)
        assert await it.pass_time(45) == [], "not for long enough yet"
        assert await it.pass_time(30) == ["HeliosMemoryPressure"]
        assert await it.post() == ("firing", "HeliosMemoryPressure")
        it.here.devices.set_foreign(G0, 0)
        await it.until(lambda snapshot: free(snapshot) > 0)
        assert await it.pass_time(15) == []
        assert await it.post() == ("resolved", "HeliosMemoryPressure")
        await it.here.journal.flushed()
        said = [entry.detail["state"] for entry in await it.here.journal.read(kinds=["alert"])]
        assert said == ["firing", "resolved"]


async def test_a_broken_device_fires_at_once_until_it_is_healed(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        await it.until(lambda snapshot: snapshot.devices and snapshot.devices[0].reading)
        it.here.devices.fail(G0, "fell off the bus", xid=79)
        await it.until(lambda snapshot: snapshot.devices[0].reading.fault)
        assert await it.pass_time(15) == ["HeliosDeviceFault"]
        assert await it.post() == ("firing", "HeliosDeviceFault")
        it.here.devices.heal(G0)
        await it.until(lambda snapshot: snapshot.devices[0].reading.fault is None)
        assert await it.pass_time(15) == []
        assert await it.post() == ("resolved", "HeliosDeviceFault")


async def test_a_disk_that_fills_fires_and_one_that_is_tidied_clears(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        it.around.disk_bytes = GiB
        assert await it.pass_time(300) == []
        assert await it.pass_time(30) == ["HeliosDiskFull"]
        it.around.disk_bytes = 50 * GiB
        assert await it.pass_time(15) == []
        assert [await it.post(), await it.post()] == [("firing", "HeliosDiskFull"), ("resolved", "HeliosDiskFull")]


async def test_the_pace_may_be_changed_while_it_runs(tmp_path: Path) -> None:
    async with stage(tmp_path) as it:
        it.around.disk_bytes = GiB
        assert await it.pass_time(30) == []
        it.watch.set_pace(15.0, 30.0)
        assert await it.pass_time(15) == ["HeliosDiskFull"]
        assert [each.summary for each in it.watch.active] == ["1.0 GiB are free where the store is kept"]
