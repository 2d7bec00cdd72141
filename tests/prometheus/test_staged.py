"""Each alert in a staged fault: a real Prometheus that scrapes a whole daemon lets it fire, and clear after the fault.

The daemon runs in the test's process, so that faults can be staged in its simulated devices. Time is quickened: the
rules wait for a second and look back for eight.
"""

import asyncio
import os
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from heliosd.config_sources import load_settings
from heliosd.core.hardware import DeviceId
from heliosd.core.units import GiB, MiB
from heliosd.daemon import Daemon
from heliosd.devices.simulated import SimulatedDevices
from heliosd.telemetry.alert_states import AlertStates
from heliosd.telemetry.alerts import ALERTS, Alert, rules
from heliosd.telemetry.conditions import Highest, Increase, Now
from tests.cluster.test_processes import SECRET, process
from tests.e2e.test_cluster import free_port
from tests.prometheus.server import Prometheus, scraping
from tests.store.models import model_files, write_folder

pytestmark = pytest.mark.slow

LOOK_BACK_S = 8.0
BALLAST_BYTES = GiB
FLEET = '[[device]]\nname = "g"\ncount = 4\ncapacity = "8GiB"\n'
CONFIG = """
[node]
name = "staged"
state_dir = "{folder}/state"
runtime_dir = "{folder}"
[api]
port = {http}
socket = "{folder}/s"
[devices]
read_interval_s = 0.1
[engines]
kv_cache = "1GiB"
[pool]
hot_swap = false
[queue]
tell_after_s = 0
[leaks]
window_s = 8
warm_up_s = 0
recycle = false
most_bytes_per_hour = "8GiB"
[alerts]
interval_s = 0.5
[cluster]
enabled = true
key = "{secret}"
bind = "127.0.0.1:{port}"
[models."test/leaky"]
engine_args = {{leak_bytes_per_s = 20000000}}
[models."test/refused"]
engine_args = {{refuses = "its kernel is broken"}}
[models."test/big"]
engine_args = {{overhead_bytes = 9000000000}}
[models."test/under"]
engine_args = {{overhead_bytes = 4000000000}}
[models."test/lazy"]
engine_args = {{kv_fills = true}}
[models."test/never"]
engine_args = {{never_ready = true}}
"""
MODELS = ("leaky", "refused", "big", "under", "lazy", "never")


class Staged(Daemon):
    """Lets the test at its simulated devices."""

    devices: SimulatedDevices

    async def _choose_devices(self, log_dir: Path) -> Any:
        probe, kinds = await super()._choose_devices(log_dir)
        assert isinstance(probe, SimulatedDevices)
        self.devices = probe
        return probe, kinds


@dataclass(frozen=True, slots=True)
class Stage:
    daemon: Staged
    admin: aiohttp.ClientSession
    """To the Unix socket."""
    folder: Path
    address: str
    """Of its API."""
    gossip: str
    """The address that peers ask."""

    async def load(self, model: str, device: str) -> None:
        """Whether it works or not."""
        body = {"model": f"test/{model}", "count": 1, "devices": [device]}
        async with self.admin.post("/helios/v1/replicas", json=body) as answer:
            await answer.read()

    async def ask(self, method: str, path: str, body: object = None) -> Any:
        async with self.admin.request(method, path, json=body) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()

    def reconfigure(self, before: str, after: str) -> None:
        file = self.folder / "helios.toml"
        file.write_text(file.read_text().replace(before, after))


Mend = Callable[[], Awaitable[object]]
Fault = Callable[[Stage], AbstractAsyncContextManager[Mend]]


@asynccontextmanager
async def foreign_memory(stage: Stage) -> AsyncIterator[Mend]:
    """More than is free beside what was promised, of which its replica has not yet taken all."""
    await stage.load("lazy", "g0")
    stage.daemon.devices.set_foreign(DeviceId("g0"), 7 * GiB)

    async def mend() -> None:
        stage.daemon.devices.set_foreign(DeviceId("g0"), 0)
        await stage.ask("DELETE", "/helios/v1/replicas/test/lazy")

    yield mend


@asynccontextmanager
async def growing_memory(stage: Stage) -> AsyncIterator[Mend]:
    """Somebody else's, on a device of ours."""

    async def grow() -> None:
        for n in range(1000):
            stage.daemon.devices.set_foreign(DeviceId("g1"), n * 8 * MiB)
            await asyncio.sleep(0.1)

    async with asyncio.TaskGroup() as tasks:
        growing = tasks.create_task(grow())

        async def mend() -> None:
            growing.cancel()
            stage.daemon.devices.set_foreign(DeviceId("g1"), 0)

        yield mend


@asynccontextmanager
async def small_estimate(stage: Stage) -> AsyncIterator[Mend]:
    await stage.load("under", "g2")
    yield lambda: stage.ask("DELETE", "/helios/v1/replicas/test/under")


@asynccontextmanager
async def leak(stage: Stage) -> AsyncIterator[Mend]:
    await stage.load("leaky", "g1")
    yield lambda: stage.ask("DELETE", "/helios/v1/replicas/test/leaky")


@asynccontextmanager
async def failing_starts(stage: Stage) -> AsyncIterator[Mend]:
    await stage.load("big", "g2")
    for device in ("g0", "g1", "g2"):
        await stage.load("refused", device)

    async def mend() -> None:
        stage.reconfigure('refuses = "its kernel is broken"', "load_s = 0.1")
        await stage.ask("POST", "/helios/v1/config/reload")

    yield mend


@asynccontextmanager
async def broken_device(stage: Stage) -> AsyncIterator[Mend]:
    stage.daemon.devices.fail(DeviceId("g3"), "GPU has fallen off the bus", xid=79)
    yield lambda: asyncio.to_thread(stage.daemon.devices.heal, DeviceId("g3"))


@asynccontextmanager
async def old_request(stage: Stage) -> AsyncIterator[Mend]:
    body = {"model": "test/never", "messages": [{"role": "user", "content": "are you there?"}]}

    async def ask() -> None:
        async with stage.admin.post("/v1/chat/completions", json=body) as answer:
            await answer.read()

    async with asyncio.TaskGroup() as tasks:
        asking = tasks.create_task(ask())

        async def mend() -> None:
            async def forgotten() -> bool:
                return not (await stage.ask("GET", "/helios/v1/queue"))["queue"]

            asking.cancel()
            await until(forgotten, "the request still waits")
            await stage.ask("DELETE", "/helios/v1/replicas/test/never")

        yield mend


@asynccontextmanager
async def full_disk(stage: Stage) -> AsyncIterator[Mend]:
    ballast = stage.folder / "ballast"
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, BALLAST_BYTES)
    yield lambda: asyncio.to_thread(ballast.unlink)


@asynccontextmanager
async def locked_database(stage: Stage) -> AsyncIterator[Mend]:
    """Somebody else writes in it for longer than is waited for."""
    with closing(sqlite3.connect(stage.folder / "state" / "helios.db", isolation_level=None)) as other:
        other.execute("begin immediate")
        async with asyncio.TaskGroup() as tasks:
            loading = tasks.create_task(stage.load("refused", "g0"))  # the journal tells of it

            async def mend() -> None:
                other.execute("rollback")
                await loading

            yield mend


@asynccontextmanager
async def dead_peer(stage: Stage) -> AsyncIterator[Mend]:
    async def alive() -> bool:
        return (await members(stage)).get("b") == "alive"

    async with AsyncExitStack() as stack:
        async with process("b", SECRET, "mb", stage.gossip):
            await until(alive, "the peer is not seen")

        async def mend() -> None:
            await stack.enter_async_context(process("b", SECRET, "mb", stage.gossip))

        yield mend


async def members(stage: Stage) -> dict[str, str]:
    return {each["name"]: each["state"] for each in (await stage.ask("GET", "/helios/v1/cluster"))["members"]}


FAULTS: dict[Fault, set[str]] = {
    foreign_memory: {"HeliosMemoryPressure", "HeliosLedgerDrift"},
    growing_memory: {"HeliosMemoryExhaustionPredicted"},
    leak: {"HeliosLeakSuspected"},
    small_estimate: {"HeliosEstimateTooSmall"},
    failing_starts: {"HeliosStartsFailing", "HeliosBreakerOpen", "HeliosOutOfMemory"},
    broken_device: {"HeliosDeviceFault"},
    old_request: {"HeliosQueueOld"},
    full_disk: {"HeliosDiskFull"},
    dead_peer: {"HeliosPeerDead"},
    locked_database: {"HeliosJournalLost"},
}
"""And what each makes fire."""


def quickened(alert: Alert, least_free_bytes: int) -> Alert:
    condition, quantity = alert.condition, alert.condition.quantity
    if isinstance(quantity, Increase | Highest):
        quantity = replace(quantity, window_s=LOOK_BACK_S)
    if alert.name == "HeliosMemoryExhaustionPredicted":  # this machine's own memory is used by others, too
        quantity = Now("helios_exhaustion_seconds", where=(("device", "g1"),))
    limit = {"HeliosQueueOld": 2.0, "HeliosDiskFull": float(least_free_bytes)}.get(alert.name, condition.limit)
    return replace(alert, for_s=min(1.0, alert.for_s), condition=replace(condition, quantity=quantity, limit=limit))


@asynccontextmanager
async def staged(folder: Path) -> AsyncIterator[Stage]:
    http, port = free_port(), free_port()
    (folder / "helios.toml").write_text(CONFIG.format(folder=folder, secret=SECRET, http=http, port=port))
    (folder / "fleet.toml").write_text(FLEET)
    daemon = Staged(load_settings(config=folder / "helios.toml", environ={}), folder / "fleet.toml")
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(daemon.run())
        connector = aiohttp.UnixConnector(str(folder / "s"))
        async with aiohttp.ClientSession("http://unix", connector=connector) as admin:

            async def ready() -> bool:
                with suppress(aiohttp.ClientError, OSError):
                    async with admin.get("/readyz") as answer:
                        return answer.status == 200
                return False

            await until(ready, "heliosd is not ready")
            for seed, name in enumerate(MODELS):
                model = write_folder(folder / name, model_files(seed=seed))
                body = {"source": "directory", "location": str(model), "ref": f"test/{name}"}
                async with admin.post("/helios/v1/models", json=body) as answer:
                    assert "event: done" in await answer.text()
            yield Stage(daemon, admin, folder, f"127.0.0.1:{http}", f"127.0.0.1:{port}")
        running.cancel()


async def until(true: Callable[[], Awaitable[bool]], what: str, within_s: float = 90.0) -> None:
    try:
        async with asyncio.timeout(within_s):
            while not await true():  # noqa: ASYNC110 - Prometheus tells nobody
                await asyncio.sleep(0.2)
    except TimeoutError:
        raise AssertionError(what) from None


async def firing_in(prometheus: Prometheus) -> set[str]:
    found = await asyncio.to_thread(prometheus.query, 'ALERTS{alertstate="firing"}')
    return {each["metric"]["alertname"] for each in found}


async def firing_here(stage: Stage) -> set[str]:
    listed = await stage.ask("GET", "/helios/v1/alerts")
    return {each["name"] for each in listed["alerts"] if each["state"] == "firing"}


@pytest.mark.timeout(600)
async def test_every_alert_fires_in_a_staged_fault_and_clears_after_it(
    prometheus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tempfile.TemporaryDirectory(prefix="staged-") as name:
        folder = Path(name)
        least = psutil.disk_usage(name).free - BALLAST_BYTES // 2
        alerts = [quickened(alert, least) for alert in ALERTS]
        rules_file = tmp_path / "rules.yml"
        rules_file.write_text(rules(alerts))
        monkeypatch.setattr("heliosd.core.exhaustion.WINDOW_S", 15.0)
        monkeypatch.setattr("heliosd.daemon.set_level", lambda level: None)  # it would be that of all later tests
        monkeypatch.setattr("heliosd.telemetry.alert_watch.AlertStates", lambda: AlertStates(alerts))
        async with staged(folder) as stage:
            with scraping(prometheus, tmp_path, stage.address, rules_file) as it:

                async def scraped() -> bool:
                    (times,) = await asyncio.to_thread(it.query, "count_over_time(up[1m])") or [{"value": (0, "0")}]
                    return int(times["value"][1]) > 2

                await until(scraped, "Prometheus does not scrape")
                assert await firing_in(it) == await firing_here(stage) == set()
                fired: dict[str, set[str]] = {"Prometheus": set(), "Helios": set()}

                async def all_fired() -> bool:
                    fired["Prometheus"] |= await firing_in(it)
                    fired["Helios"] |= await firing_here(stage)
                    return all(found >= expected for found in fired.values())

                async def quiet() -> bool:
                    return await firing_in(it) == await firing_here(stage) == set()

                for fault, expected in FAULTS.items():
                    for found in fired.values():
                        found.clear()
                    async with fault(stage) as mend:
                        await until(all_fired, f"{fault.__name__} does not make {expected} fire")
                        await mend()
                        await until(quiet, f"what {fault.__name__} made fire does not clear")
    assert set().union(*FAULTS.values()) == {alert.name for alert in ALERTS}
