"""A crowd at a machine that is too small for it: every request gets its answer or a reason, memory stays in its budget.

Real engines on the CPU: SmolLM2 and tiny Llamas, twenty models in all, of which about three fit at once. Clients ask
them at random, whole and streamed, and some leave half way; each minute an engine is killed. All the while the memory
of the engine processes is measured from outside; at the end, when all is quiet, it is compared with the ledger.
"""

import argparse
import asyncio
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvloop

from heliosd.core.units import MiB
from tests.bench.crowd_clients import End, Outcome, client
from tests.bench.crowd_memory import Watch, drift, kill_one, look
from tests.bench.crowd_models import tiny_adapter, tiny_llama
from tests.bench.daemon import Daemon, configured
from tests.bench.report import percentile, write_json
from tests.bench.smollm2 import smollm2
from tests.bench.table import print_table, span

MODELS = 20
BUDGET_BYTES = 1600 * MiB
"""SmolLM2 takes some 650 MiB with what it shares, a tiny one 200 to 300."""
QUEUE_S = 240.0
LIMIT_S = 600.0
"""A client's own limit: the queue's, and as much again for a slow answer."""
ADAPTERS = {"crowd/one-a": "crowd/tiny-01", "crowd/one-b": "crowd/tiny-01", "crowd/two-a": "crowd/tiny-02"}
"""And the models they are for."""
KILL_EVERY_S = 60.0
_LOOK_EVERY_S = 0.25
_READ_EVERY_S = 1.0
_QUIET_S = 120.0
_CONFIG = """
[devices]
host_memory = {budget}
read_interval_s = {read_s}
[engines]
threads = 1
kv_cache = "16MiB"
max_num_seqs = 8
[queue]
timeout_s = {queue_s}
patience_s = 1.0
"""


@dataclass(slots=True)
class Crowd:
    """What came of it."""

    watch: Watch
    outcomes: list[Outcome] = field(default_factory=list)
    kills: int = 0
    starts: int = 0
    ledger_bytes: int = 0
    held_bytes: int = 0
    quiet_engines: int = 0

    def ended(self, end: End) -> list[Outcome]:
        return [each for each in self.outcomes if each.end is end]

    def result(self) -> dict[str, object]:
        return {
            "answered": len(self.ended(End.ANSWERED)),
            "refused": len(self.ended(End.REFUSED)),
            "lost": len(self.ended(End.LOST)),
            "budget_exceeded": self.watch.exceeded,
            "ledger_drift": round(drift(self.ledger_bytes, self.held_bytes), 4),
        }


def make_models(folder: Path, count: int) -> dict[str, Path]:
    """SmolLM2, tiny models, and with more than a handful three adapters of two of those; bases come first."""
    large, adapters = smollm2(), ADAPTERS if count > 2 * len(ADAPTERS) else {}
    tiny = range(1, count - len(adapters))
    models = {"crowd/smollm2": large}
    models |= {f"crowd/tiny-{seed:02}": tiny_llama(folder / f"tiny-{seed:02}", large, seed) for seed in tiny}
    for number, (name, base) in enumerate(adapters.items()):
        models[name] = tiny_adapter(folder / f"adapter-{number}", base, number)
    return models


async def measure(minutes: float, clients: int, count: int, budget_bytes: int, seed: int, keep: Path | None) -> Crowd:
    """Let the crowd ask for so many minutes."""
    crowd = Crowd(Watch(budget_bytes))
    config = _CONFIG.format(budget=budget_bytes, read_s=_READ_EVERY_S, queue_s=QUEUE_S)
    with tempfile.TemporaryDirectory(prefix="helios-crowd-") as temporary:
        folder = Path(temporary)
        models = await asyncio.to_thread(make_models, folder / "models", count)
        (folder / "state").mkdir()
        try:
            async with configured(config, folder / "state") as daemon:
                await daemon.until_warm()
                for ref, model in models.items():
                    await daemon.add(model, ref)
                await _ask(crowd, daemon, list(models), time.monotonic() + minutes * 60, clients, seed)
                await _compare(crowd, daemon)
                await _look_back(crowd, daemon)
        finally:
            if keep is not None:
                keep.write_bytes((folder / "state" / "heliosd.log").read_bytes())
    return crowd


async def _ask(crowd: Crowd, daemon: Daemon, models: Sequence[str], until: float, clients: int, seed: int) -> None:
    over = asyncio.Event()
    async with asyncio.TaskGroup() as around:
        around.create_task(_watch(crowd.watch, daemon, over))
        around.create_task(_compare_while_running(crowd.watch, daemon, over))
        around.create_task(_kill(crowd, daemon, until, random.Random(seed)))
        async with asyncio.TaskGroup() as group:
            asking = [
                group.create_task(client(daemon.url, models, until, random.Random(f"{seed}.{number}"), LIMIT_S))
                for number in range(clients)
            ]
        over.set()
    crowd.outcomes = [outcome for each in asking for outcome in each.result()]


async def _watch(watch: Watch, daemon: Daemon, over: asyncio.Event) -> None:
    while not over.is_set():
        watch.saw(await asyncio.to_thread(look, daemon.process.pid))
        await asyncio.sleep(_LOOK_EVERY_S)


async def _compare_while_running(watch: Watch, daemon: Daemon, over: asyncio.Event) -> None:
    """What the ledger says and what is held, while the same replicas are ready before and after the look."""
    while not over.is_set():
        before, ledger_bytes = await _ready(daemon), await _ledger_bytes(daemon)
        sample = await asyncio.to_thread(look, daemon.process.pid)
        if before and before == await _ready(daemon) and before <= sample.engines.keys():
            watch.compared(ledger_bytes, sum(sample.engines[replica] for replica in before))
        await asyncio.sleep(_READ_EVERY_S)


async def _ready(daemon: Daemon) -> set[str]:
    """The replicas that the ledger has measured; empty while one is on its way out, whose memory is neither."""
    replicas: list[dict[str, Any]] = (await daemon.ask("GET", "replicas"))["replicas"]
    states = {each["state"] for each in replicas}
    return {each["id"] for each in replicas if each["state"] == "ready"} if states <= {"ready", "starting"} else set()


async def _ledger_bytes(daemon: Daemon) -> int:
    """What the ledger says that engines were measured to hold."""
    (device,) = (await daemon.ask("GET", "devices"))["devices"]
    return int(device["measured_bytes"])


async def _kill(crowd: Crowd, daemon: Daemon, until: float, dice: random.Random) -> None:
    killing_at = time.monotonic() + KILL_EVERY_S / 2
    while killing_at < until:
        await asyncio.sleep(killing_at - time.monotonic())
        killed = await asyncio.to_thread(kill_one, daemon.process.pid, dice)
        if killed is None:  # in this moment none was there
            killing_at = time.monotonic() + _LOOK_EVERY_S
            continue
        crowd.kills += 1
        print(f"killed {killed}", file=sys.stderr)
        killing_at += KILL_EVERY_S


async def _compare(crowd: Crowd, daemon: Daemon) -> None:
    """When nothing waits, works or starts any more, the ledger beside the memory."""
    async with asyncio.timeout(_QUIET_S):
        while True:
            await asyncio.sleep(_READ_EVERY_S)
            if await _quiet(daemon):
                break
    await asyncio.sleep(3 * _READ_EVERY_S)  # the ledger has read the devices meanwhile
    sample = await asyncio.to_thread(look, daemon.process.pid)
    crowd.ledger_bytes, crowd.held_bytes = await _ledger_bytes(daemon), sample.engine_bytes
    crowd.quiet_engines = len(sample.engines)


async def _quiet(daemon: Daemon) -> bool:
    replicas = (await daemon.ask("GET", "replicas"))["replicas"]
    return all(each["state"] == "ready" and not each["leases"] for each in replicas)


async def _look_back(crowd: Crowd, daemon: Daemon) -> None:
    events: list[dict[str, Any]] = (await daemon.ask("GET", "events?limit=100000"))["events"]
    crowd.starts = sum(event["kind"] == "start" for event in events)


def show(crowd: Crowd, told: str) -> None:
    watch, outcomes = crowd.watch, crowd.outcomes
    waits = [each.seconds for each in crowd.ended(End.ANSWERED)] or [0.0]
    refusals = Counter(each.why for each in crowd.ended(End.REFUSED))
    result = crowd.result()
    peak = watch.peak.engine_bytes if watch.peak else 0

    def mib(n_bytes: int) -> str:
        return f"{n_bytes / MiB:.0f} MiB"

    rows = [
        ("requests", str(len(outcomes))),
        ("  answered", str(result["answered"])),
        *((f"  refused: {code}", str(count)) for code, count in refusals.most_common()),
        ("  lost", str(result["lost"])),
        ("  left half way by their client", str(len(crowd.ended(End.LEFT)))),
        ("wait for the first word, p50", span(percentile(waits, 0.5))),
        ("wait for the first word, p99", span(percentile(waits, 0.99))),
        ("starts of engines", str(crowd.starts)),
        ("kills", str(crowd.kills)),
        ("most engines at once", str(watch.most_engines)),
        ("budget", mib(watch.budget_bytes)),
        ("peak of the engines' memory", mib(peak)),
        ("  samples above the budget", f"{watch.exceeded} of {watch.samples}"),
        ("  with what they are forked from", mib(watch.peak_with_zygote_bytes)),
        ("afterwards: engines", str(crowd.quiet_engines)),
        ("afterwards: in the ledger", mib(crowd.ledger_bytes)),
        ("afterwards: held", mib(crowd.held_bytes)),
        ("ledger's drift afterwards", f"{result['ledger_drift']:.1%}"),
        ("  the largest while running", f"{watch.largest_drift:.1%} of {watch.drift_samples} looks"),
    ]
    lost = Counter(each.why for each in crowd.ended(End.LOST))
    said = {each.why: each.said for each in crowd.ended(End.REFUSED)}
    notes = [told]
    notes += [f"lost, {count} times: {why}" for why, count in lost.most_common()]
    notes += [f"refused with {code}, for example: {message[:300]}" for code, message in said.items()]
    print_table("a crowd at a small machine", ("", "count or size"), rows, notes)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.crowd", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the result as one JSON object")
    parser.add_argument("--minutes", metavar="N", type=float, default=20, help="how long the clients ask")
    parser.add_argument("--clients", metavar="N", type=int, default=16, help="that ask at once")
    parser.add_argument("--models", metavar="N", type=int, default=MODELS, help="SmolLM2 and tiny ones")
    parser.add_argument("--budget", metavar="MIB", type=int, default=BUDGET_BYTES // MiB, help="for engines, in MiB")
    parser.add_argument("--seed", metavar="N", type=int, default=1, help="of what is asked and who is killed")
    parser.add_argument("--log", metavar="FILE", type=Path, help="where to keep heliosd's log")
    given = parser.parse_args()
    crowd = uvloop.run(measure(given.minutes, given.clients, given.models, given.budget * MiB, given.seed, given.log))
    told = (
        f"{given.models} models, {given.clients} clients, {given.minutes:g} minutes, an engine killed each minute, "
        f"{len(os.sched_getaffinity(0))} cores for engines and clients together"
    )
    show(crowd, told)
    write_json(crowd.result(), given.json)


if __name__ == "__main__":
    main()
