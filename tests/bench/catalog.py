"""A thousand models in the catalog: how long heliosd takes to start, `heliosctl ls` to list them, and how much memory
the daemon holds before it has engines.

    python -m tests.bench.catalog [--json FILE] [--models N] [--runs N] [--folder DIR]

The models are made through the store, small, with the configurations and tensor names of real kinds. Engines are not
preloaded, so that the memory is the daemon's own.
"""

import argparse
import asyncio
import os
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import aiohttp
import uvloop

from heliosd.core.units import MiB
from tests.bench.catalog_models import fill
from tests.bench.daemon import environment
from tests.bench.process import answering, free_port, server
from tests.bench.report import write_json
from tests.bench.table import print_table, span

START_LIMIT_S = 2.0
LS_LIMIT_MS = 150.0
RSS_LIMIT_MB = 150.0
LISTINGS = 5
"""Times that `heliosctl ls` runs against each start."""
ASKED = ("/v1/models", "/helios/v1/models", "/metrics")


@dataclass(frozen=True, slots=True)
class Run:
    start_s: float
    start_cpu_s: float
    """Processor time until then: on a busy machine it tells more."""
    ls_s: tuple[float, ...]
    ls_cpu_s: tuple[float, ...]
    answers_s: dict[str, float]
    """Of each path, the median of some answers."""
    rss_bytes: int
    """When all that has been asked."""
    models: int


async def run(state: Path, folder: Path) -> Run:
    socket = folder / "s"
    command = [sys.executable, "-m", "heliosd", f"--state-dir={state}", f"--socket={socket}", f"--port={free_port()}"]
    surroundings = {**environment(), "HELIOS_ENGINES__PRELOAD": "false"}
    async with (
        server(command, surroundings, folder / "heliosd.log") as process,
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(socket))) as session,
    ):
        await answering(session, "http://heliosd/readyz", process, every_s=0.002)
        start_s = time.monotonic() - process.started
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        start_cpu_s = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        async with session.get("http://heliosd/v1/models") as response:
            models = len((await response.json())["data"])
        listed = [await ls_s(socket, folder) for _ in range(LISTINGS)]
        answers = {path: await answer_s(session, path) for path in ASKED}
        status = Path(f"/proc/{process.pid}/status").read_text()
    rss_kib = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
    walls, cpus = zip(*listed, strict=True)
    return Run(start_s, start_cpu_s, walls, cpus, answers, rss_kib * 1024, models)


async def ls_s(socket: Path, folder: Path) -> tuple[float, float]:
    """How long the whole process of `heliosctl ls` takes, and its processor time."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "heliosctl", f"--socket={socket}", "ls"]
    async with server(command, environment(), folder / "ls.log") as process:
        if await process.process.wait() != 0:
            process.check()
        wall_s = time.monotonic() - process.started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall_s, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


async def answer_s(session: aiohttp.ClientSession, path: str, times: int = 9) -> float:
    found = []
    for _ in range(times):
        began = time.monotonic()
        async with session.get(f"http://heliosd{path}") as response:
            response.raise_for_status()
            await response.read()
        found.append(time.monotonic() - began)
    return median(found)


async def measure(models: int, runs: int, folder: Path | None) -> list[Run]:
    with tempfile.TemporaryDirectory(prefix="helios-bench-") as temporary:
        scratch = Path(temporary)
        state = folder or scratch / "state"
        await asyncio.to_thread(state.mkdir, parents=True, exist_ok=True)
        (scratch / "model").mkdir()
        await fill(state, models, scratch / "model")
        return [await run(state, scratch) for _ in range(runs)]


def catalog_object(runs: Sequence[Run]) -> dict[str, float]:
    return {
        "start_s": round(median(each.start_s for each in runs), 3),
        "ls_ms": round(1000 * median(seconds for each in runs for seconds in each.ls_s), 1),
        "rss_mb": round(median(each.rss_bytes for each in runs) / MiB, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.catalog", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the result as one JSON object")
    parser.add_argument("--models", metavar="N", type=int, default=1000)
    parser.add_argument("--runs", metavar="N", type=int, default=5)
    parser.add_argument("--folder", metavar="DIR", type=Path, help="keep the models there for the next time")
    given = parser.parse_args()
    runs = uvloop.run(measure(given.models, given.runs, given.folder and given.folder.resolve()))
    if any(each.models != given.models for each in runs):
        raise SystemExit(f"the daemon lists {[each.models for each in runs]} models instead of {given.models}")

    def row(name: str, seconds: Sequence[float], limit: str = "") -> tuple[str, ...]:
        return name, span(median(seconds)), span(min(seconds)), span(max(seconds)), limit

    rss = [each.rss_bytes / MiB for each in runs]
    print_table(
        f"catalog: {given.models} models, {len(runs)} starts of heliosd",
        ("", "median", "min", "max", "limit"),
        [
            row("process start to /readyz", [each.start_s for each in runs], span(START_LIMIT_S)),
            row("  its processor time", [each.start_cpu_s for each in runs]),
            row("heliosctl ls", [each for run in runs for each in run.ls_s], span(LS_LIMIT_MS / 1000)),
            row("  its processor time", [each for run in runs for each in run.ls_cpu_s]),
            *(row(f"GET {path}", [each.answers_s[path] for each in runs]) for path in ASKED),
            (
                "resident memory of heliosd",
                *(f"{size:.1f} MiB" for size in (median(rss), min(rss), max(rss), RSS_LIMIT_MB)),
            ),
        ],
    )
    write_json(catalog_object(runs), given.json)


if __name__ == "__main__":
    main()
