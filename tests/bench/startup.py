"""From the start of heliosd's process until its API answers, and what it has loaded by then.

    python -m tests.bench.startup [--json FILE] [--runs N]

Started as configured by default, heliosd begins to import vLLM as soon as it takes requests. What it needs until then
is looked at in one more start, without that import: neither torch nor vllm may be among it.
"""

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import aiohttp
import uvloop

from tests.bench.daemon import environment
from tests.bench.process import answering, free_port, server
from tests.bench.report import startup_object, write_json
from tests.bench.table import print_table, span

LIMIT_S = 1.5
HELP_LIMIT_S = 0.2
_HEAVY = ("/torch/", "/vllm/")


@dataclass(frozen=True, slots=True)
class Start:
    ready_s: float
    models_s: float
    heavy: tuple[str, ...]
    """Files of torch and vllm in the process after both answers."""


async def start(folder: Path, *, preload: bool) -> Start:
    """One start with an empty state."""
    socket = folder / "s"
    command = [sys.executable, "-m", "heliosd", f"--state-dir={folder}", f"--socket={socket}", f"--port={free_port()}"]
    surroundings = {**environment(), "HELIOS_ENGINES__PRELOAD": str(preload).lower()}
    async with (
        server(command, surroundings, folder / "heliosd.log") as process,
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(socket))) as session,
    ):
        await answering(session, "http://heliosd/readyz", process, every_s=0.002)
        ready_s = time.monotonic() - process.started
        await answering(session, "http://heliosd/v1/models", process, every_s=0.002)
        models_s = time.monotonic() - process.started
        files = {line.rpartition(" ")[2] for line in Path(f"/proc/{process.pid}/maps").read_text().splitlines()}
    return Start(ready_s, models_s, tuple(sorted(file for file in files if any(name in file for name in _HEAVY))))


async def help_s(folder: Path) -> float:
    """How long `heliosctl --help` takes."""
    async with server([sys.executable, "-m", "heliosctl", "--help"], environment(), folder / "help.log") as process:
        if await process.process.wait() != 0:
            process.check()
        return time.monotonic() - process.started


async def measure(runs: int) -> tuple[list[Start], list[float], tuple[str, ...]]:
    """The starts, the times of `heliosctl --help`, and what a start loads that it should not."""
    starts: list[Start] = []
    helps: list[float] = []
    for _ in range(runs):
        with tempfile.TemporaryDirectory(prefix="helios-bench-") as temporary:
            starts.append(await start(Path(temporary), preload=True))
            helps.append(await help_s(Path(temporary)))
    with tempfile.TemporaryDirectory(prefix="helios-bench-") as temporary:
        heavy = (await start(Path(temporary), preload=False)).heavy
    return starts, helps, heavy


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.startup", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the result as one JSON object")
    parser.add_argument("--runs", metavar="N", type=int, default=9)
    given = parser.parse_args()
    starts, helps, heavy = uvloop.run(measure(given.runs))

    def row(name: str, seconds: list[float], limit_s: float | None) -> tuple[str, ...]:
        return name, span(median(seconds)), span(min(seconds)), span(max(seconds)), span(limit_s) if limit_s else ""

    ready = [each.ready_s for each in starts]
    print_table(
        f"startup: {len(starts)} starts of heliosd, each with an empty state",
        ("from process start to", "median", "min", "max", "limit"),
        [
            row("/readyz says ready", ready, LIMIT_S),
            row("/v1/models has answered", [each.models_s for each in starts], None),
            row("the end of heliosctl --help", helps, HELP_LIMIT_S),
        ],
        (f"torch and vllm loaded by then: {', '.join(heavy) or 'nothing of them'}",),
    )
    write_json(startup_object(ready, LIMIT_S), given.json)
    if heavy:
        raise SystemExit("torch or vllm are loaded before the API is up")


if __name__ == "__main__":
    main()
