"""A whole node without its API: real database, store, journal and scheduler, simulated devices and engines."""

import asyncio
import json
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heliosd.config import Settings
from heliosd.config_sources import load_settings
from heliosd.core.hardware import DeviceKind
from heliosd.core.messages import Event
from heliosd.core.names import ModelRef, parse_ref
from heliosd.core.units import GiB
from heliosd.demands import Demands
from heliosd.devices.fleet import parse_fleet
from heliosd.devices.simulated import SimulatedDevices
from heliosd.engines.pool import Pool
from heliosd.engines.simulated import Behaviour, SimulatedKind
from heliosd.node import Node
from heliosd.state.database import Database
from heliosd.state.drained import DrainedDevices
from heliosd.state.hours import Hours
from heliosd.state.journal import Journal
from heliosd.state.pins import Pins
from heliosd.state.recording import Recording
from heliosd.state.records import Records
from heliosd.state.tier_wishes import TierWishes
from heliosd.state.usage import UsageTable
from heliosd.store.store import Store
from heliosd.store.stored import Addition
from heliosd.store.tiers.tiers import TierLimits
from heliosd.telemetry.metrics import Metrics
from heliosd.telemetry.traces import Traces

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "torch_dtype": "bfloat16",
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "hidden_size": 64,
    "vocab_size": 1000,
    "max_position_embeddings": 2048,
}


def write_model(folder: Path, tag: str) -> Path:
    """A folder with a configuration and a small safetensors file, different for each tag."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({**CONFIG, "tag": tag}))
    header = json.dumps({"w": {"dtype": "BF16", "shape": [64, 64], "data_offsets": [0, 8192]}}).encode()
    data = tag.encode().ljust(8192, b"\0")
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + data)
    return folder


@dataclass
class World:
    node: Node
    store: Store
    journal: Journal
    devices: SimulatedDevices
    settings: Settings
    folder: Path
    database: Database
    recording: Recording
    records: Records

    async def add(self, name: str, alias: str | None = None) -> ModelRef:
        folder = await asyncio.to_thread(write_model, self.folder / name.replace("/", "-"), name)
        ref = parse_ref(name)
        await self.store.add(Addition("directory", str(folder), ref, alias=alias), lambda progress: None)
        return ref

    async def kinds_noted(self, subject: str) -> list[str]:
        await self.journal.flushed()
        return [entry.kind for entry in await self.journal.read(subject=subject)]


@asynccontextmanager
async def world(
    folder: Path,
    *,
    models: Mapping[str, Mapping[str, Any]] | None = None,
    fleet: str = '[[device]]\nname = "g0"\ncapacity = "80GiB"\n',
    settings: Mapping[str, Any] | None = None,
    sharing: Mapping[str, int] | None = None,
    tiers: TierLimits | None = None,
    traces: Traces | None = None,
) -> AsyncIterator[World]:
    """`models` are sections of the configuration; simulated engines hold what they were promised and load at once.

    `sharing`: from which sizes on the store shares, by `Store`'s own words.
    """
    flags = {"node.state_dir": str(folder / "state"), "api.socket": str(folder / "s"), **(settings or {})}
    environ = {"HELIOS_MODELS": json.dumps(models or {}), "HOME": str(folder)}
    loaded = load_settings(flags, environ)
    database = Database(folder / "state" / "helios.db")
    await database.open()
    changed = lambda: node.store_changed()  # noqa: E731, PLW0108 - made below
    store = Store(folder / "store", database, changed=changed, tiers=tiers, **(sharing or {}))
    await store.open()
    devices = SimulatedDevices(parse_fleet(fleet))
    kind = SimulatedKind(devices, Behaviour(load_s=0.0, tokens_per_s=1e9, overhead_bytes=GiB // 4))
    inbox: asyncio.Queue[Event] = asyncio.Queue()
    journal, records = Journal(database), Records(database)
    if traces is not None:
        journal.trace_of = traces.node.trace_of
    now = asyncio.get_running_loop().time
    pool = Pool({DeviceKind.SIMULATED: kind}, inbox.put_nowait, now=now, start_timeout_s=5.0)
    demands = Demands(store, records, loaded.settings, lambda kind: "simulated 1")
    recording = Recording(folder / "recording", 2**30)
    node = Node(
        store,
        devices,
        journal,
        records,
        demands,
        pool,
        Metrics(),
        loaded.settings,
        folder / "logs",
        inbox,
        Pins(database),
        DrainedDevices(database),
        host_total_bytes=64 * GiB,
        recording=recording,
        usage=UsageTable(database),
        tier_wishes=TierWishes(database),
        traces=traces,
        hours=Hours(database),
    )
    async with asyncio.TaskGroup() as tasks:
        work = [tasks.create_task(each.run()) for each in (journal, recording, node)]
        yield World(node, store, journal, devices, loaded.settings, folder, database, recording, records)
        await node.drain(5.0)
        for task in reversed(work):
            task.cancel()
    await devices.close()
    await store.close()
    await database.close()
