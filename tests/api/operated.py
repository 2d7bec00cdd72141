"""The API over a whole node: real store, scheduler, journal and keys, simulated devices and engines."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from heliosd.api.app import build_app
from heliosd.api.listen import listen
from heliosd.api.parts import Identity, Parts
from heliosd.api.scrape import scrape_of
from heliosd.core.lifecycle import State
from heliosd.engines.warmups import Warmups
from heliosd.state.kept_answers import KeptAnswers
from heliosd.state.keys import Keys
from heliosd.telemetry.alert_watch import AlertWatch
from heliosd.telemetry.metrics import Metrics
from tests.api.world import MemoryPeers
from tests.node.world import World, world

FLEET = '[[device]]\nname = "g"\ncount = 2\ncapacity = "16GiB"\n'
MODELS = {"me/a": {"kv_cache": "2GiB"}, "me/b": {"kv_cache": "2GiB"}}
_MOVING = frozenset(State) - {State.READY, State.ASLEEP, State.FAILED, State.STOPPED}


@dataclass
class Configuration:
    """Stands for the daemon, which reads it."""

    differ: tuple[tuple[str, ...], tuple[str, ...]] = (("log.level",), ("api.port",))
    read: int = 0
    secrets: frozenset[str] = frozenset({"hub-token-in-the-clear", "cluster-key-in-the-clear"})
    shown: str = "[api]\nport = 8484\n"

    async def difference(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return self.differ

    async def reload(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        self.read += 1
        return self.differ


@dataclass
class Operated:
    world: World
    keys: Keys
    local: aiohttp.ClientSession
    """To the Unix socket."""
    http: aiohttp.ClientSession
    configuration: Configuration = field(default_factory=Configuration)

    async def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """The JSON that is answered."""
        async with self.local.request(method, path, json=body, headers=headers) as response:
            assert response.status == status, await response.text()
            return await response.json()

    async def audit(self) -> list[dict[str, Any]]:
        await self.world.journal.flushed()
        return list((await self.ask("GET", "/helios/v1/audit"))["entries"])

    async def state(self) -> object:
        """All that a change could change, once nothing moves: not the journal, kept answers, or measurements."""
        version = -1
        while any(each.state in _MOVING for each in self.world.node.snapshot().replicas):
            version = await self.world.node.changed(version)
        tables = await self.world.database.run(
            lambda db: {
                table: db.execute(f'select * from "{table}"').fetchall()
                for table in db.table_names()
                if table not in ("journal", "kept_answers", "measurements", "_sqlite_migrations")
            }
        )
        snapshot = self.world.node.snapshot()
        replicas = [(each.id, each.state, each.limit) for each in snapshot.replicas]
        drained = [each.device.id for each in snapshot.devices if each.drained]
        return tables, replicas, drained, snapshot.draining, self.configuration.read


@asynccontextmanager
async def operated(folder: Path, **more: Any) -> AsyncIterator[Operated]:
    """Two devices, with `me/a` and `me/b` in the store."""
    configuration = Configuration()
    async with world(folder, fleet=FLEET, models=MODELS, **more) as made:
        if not await made.store.models():
            await made.add("me/a", "a")
            await made.add("me/b")
        keys = Keys(made.database)
        await keys.load()
        warmups = Warmups(folder / "warmups", 2**20)
        warmups.open()
        metrics = Metrics()
        alerts = AlertWatch(
            lambda: scrape_of(parts, engines=False), metrics, made.journal, None,
            interval_s=15.0, for_s=0.0, now=asyncio.get_running_loop().time,
        )  # fmt: skip
        parts = Parts(
            identity=Identity("west", "0.1.0", 1_700_000_000.0, folder / "state"),
            node=made.node,
            journal=made.journal,
            store=made.store,
            keys=keys,
            metrics=metrics,
            alerts=alerts,
            kept=KeptAnswers(made.database),
            peers=MemoryPeers(),
            engine_kinds=lambda: made.node.engine_kinds,
            tiers=made.node.tiering,
            warmups=warmups,
            recording=made.recording,
            reloading=configuration,
        )
        socket_path = folder / "api"
        listening = await listen(build_app(parts), host="127.0.0.1", port=0, socket_path=socket_path)
        async with (
            aiohttp.ClientSession(f"http://127.0.0.1:{listening.port}") as http,
            aiohttp.ClientSession("http://unix", connector=aiohttp.UnixConnector(str(socket_path))) as local,
        ):
            yield Operated(made, keys, local, http, configuration)
            await listening.close()
