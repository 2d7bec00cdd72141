"""How long `/metrics` takes with a thousand models in the store and many of them running.

The fleet is simulated: engines say nothing of themselves, so what is measured is Helios' own part of a scrape. All
models running at once, which is more than a machine can hold and the worst that series of replicas can come to, is
rendered without a daemon.
"""

import asyncio
import json
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import aiohttp

from heliosd.core.hardware import Device, DeviceKind
from heliosd.core.lifecycle import State
from heliosd.core.messages import Footprint
from heliosd.core.names import DeviceId, ReplicaId, Ticket
from heliosd.core.snapshot import DeviceAccount, ReplicaStatus, Snapshot
from heliosd.core.units import GiB
from heliosd.telemetry.metrics import Metrics, Scrape
from tests.bench.catalog_models import fill, names
from tests.bench.daemon import environment
from tests.bench.process import answering, free_port, server

MODELS = 1000
RUNNING = 100
SCRAPES = 30
AT_ONCE = 8
"""Requests that bring the models up."""
FLEET = '[[device]]\nname = "g"\ncount = 8\ncapacity = "400GiB"\n'
CONFIG = '[engines]\nkv_cache = "1GiB"\npreload = false\n[prefetch]\nenabled = false\n'


@dataclass(frozen=True, slots=True)
class Scrapes:
    stored_s: tuple[float, ...]
    """With the models in the store, none running."""
    running_s: tuple[float, ...]
    """With RUNNING of them running."""
    all_s: tuple[float, ...]
    """The rendering alone, with all of them running and counted."""
    stored_bytes: int
    running_bytes: int
    all_bytes: int
    """Of an answer."""

    @property
    def worst_ms(self) -> float:
        """The slower median of a daemon's scrapes."""
        return 1000 * max(median(self.stored_s), median(self.running_s))


async def measure(models: int = MODELS, state: Path | None = None) -> Scrapes:
    """`state`: where the models are, or will be kept for the next time."""
    with tempfile.TemporaryDirectory(prefix="helios-bench-") as temporary:
        folder = Path(temporary)
        (folder / "model").mkdir()
        await fill(state or folder / "state", models, folder / "model")
        return await _daemon(models, state or folder / "state", folder)


async def _daemon(models: int, state: Path, folder: Path) -> Scrapes:
    tables = (f"[models.{json.dumps(str(ref))}]\nengine_args = {{load_s = 0.0}}\n" for ref in names(models))
    (folder / "helios.toml").write_text(CONFIG + "".join(tables))
    (folder / "fleet.toml").write_text(FLEET)
    socket = folder / "s"
    command = [
        sys.executable, "-m", "heliosd", f"--config={folder / 'helios.toml'}", f"--state-dir={state}",
        f"--socket={socket}", f"--port={free_port()}", f"--simulate={folder / 'fleet.toml'}",
    ]  # fmt: skip
    async with (
        server(command, environment(), folder / "log") as process,
        aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(str(socket)), timeout=aiohttp.ClientTimeout(total=600)
        ) as session,
    ):
        await answering(session, "http://heliosd/readyz", process)
        stored_s, stored_bytes = await _scrape(session)
        await _bring_up(session, RUNNING)
        running_s, running_bytes = await _scrape(session)
        async with session.get("http://heliosd/helios/v1/replicas") as answer:
            running = len((await answer.json())["replicas"])
    if running != RUNNING:
        raise RuntimeError(f"{running} replicas run instead of {RUNNING}: make the fleet of {__file__} larger")
    all_s, all_bytes = _render_all(models)
    return Scrapes(stored_s, running_s, all_s, stored_bytes, running_bytes, all_bytes)


def _render_all(models: int) -> tuple[tuple[float, ...], int]:
    footprint = Footprint(50 * GiB, 20 * GiB, GiB)
    replicas = tuple(
        ReplicaStatus(
            ReplicaId(f"r{number}"), str(ref), "f" * 64, State.READY, (DeviceId(f"g{number % 8}"),),
            frozenset({Ticket(f"t{number}")}), footprint, footprint, 0.0, None, 300.0, limit=32, kv_used_ratio=0.5,
        )
        for number, ref in enumerate(names(models))
    )  # fmt: skip
    accounts = tuple(
        DeviceAccount(
            Device(DeviceId(f"g{number}"), DeviceKind.SIMULATED, "card", 80 * GiB), None, 0, 0, footprint, 0, 0
        )
        for number in range(8)
    )
    metrics = Metrics()
    for replica in replicas:
        metrics.replica_started(replica.model, {"load": 1.0}, swapped=True)
        metrics.replica_failed(replica.model)
        metrics.retried(replica.model)
    snapshot = Snapshot(0.0, accounts, replicas, (), False)
    scrape = Scrape(snapshot, "", models, 0, 0, {}, 0, 0, 0, 0, ())
    found, text = [], b""
    for _ in range(SCRAPES):
        began = time.perf_counter()
        text = metrics.render(scrape)
        found.append(time.perf_counter() - began)
    return tuple(found), len(text)


async def _bring_up(session: aiohttp.ClientSession, models: int) -> None:
    wanted = iter(list(names(models)))

    async def some() -> None:
        for ref in wanted:
            async with session.post("http://heliosd/helios/v1/replicas", json={"model": str(ref)}) as answer:
                if answer.status >= 300:
                    raise RuntimeError(f"{ref} did not start: {await answer.text()}")

    async with asyncio.TaskGroup() as tasks:
        for _ in range(AT_ONCE):
            tasks.create_task(some())


async def _scrape(session: aiohttp.ClientSession) -> tuple[tuple[float, ...], int]:
    found, size_bytes = [], 0
    for _ in range(SCRAPES):
        began = time.perf_counter()
        async with session.get("http://heliosd/metrics") as answer:
            size_bytes = len(await answer.read())
        found.append(time.perf_counter() - began)
    return tuple(found), size_bytes
