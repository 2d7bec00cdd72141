"""From "model not running" to the first token: heliosd against `vllm serve` from process start.

    python -m tests.bench.coldstart [--json FILE] [--starts N] [--serves N] [--model DIR]

heliosd is up, its engine process is preloaded, the model is in its store and no replica of it runs; what is timed is
one streamed request. `vllm serve` is started, and the same request repeated until its socket is open, which is at
most 20 ms late. What heliosd did beforehand is shown too.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import aiohttp
import uvloop

from tests.bench.arguments import Arguments, add_flags, arguments_of
from tests.bench.daemon import heliosd
from tests.bench.load import ask
from tests.bench.peer import vllm_serve
from tests.bench.report import coldstart_object, write_json
from tests.bench.smollm2 import smollm2
from tests.bench.table import print_table, span

_PROMPT = "What is the capital of France?"
_TOKENS = 8
_LIMIT_S = 300.0
_REST = "queue_http_first_token"
"""What is not in the replica's own account of its start."""


@dataclass(slots=True)
class Starts:
    helios_s: list[float] = field(default_factory=list)
    """From the request to its first token."""
    phases: list[Mapping[str, float]] = field(default_factory=list)
    ready_s: list[float] = field(default_factory=list)
    """The same request to the replica, now that it runs."""
    serve_s: list[float] = field(default_factory=list)
    """From process start to the first token."""
    daemon_warm_s: float = 0.0
    """From heliosd's process start until its engines are preloaded: spent once, before anybody asks."""


async def measure(arguments: Arguments, starts: int, serves: int) -> Starts:
    """The peer starts after heliosd has ended: two engines importing at once would slow each other down."""
    found = Starts()
    timeout = aiohttp.ClientTimeout(_LIMIT_S)
    with tempfile.TemporaryDirectory(prefix="helios-bench-") as temporary:
        folder = Path(temporary)
        async with heliosd(arguments, folder) as daemon, aiohttp.ClientSession(timeout=timeout) as session:
            await daemon.until_warm()
            found.daemon_warm_s = time.monotonic() - daemon.process.started
            for _ in range(starts):
                cold = await ask(session, daemon.url, _PROMPT, _TOKENS)
                phases = (await daemon.replica())["phases"]
                found.helios_s.append(cold.first_s)
                found.phases.append({**phases, _REST: cold.first_s - sum(phases.values())})
                found.ready_s.append((await ask(session, daemon.url, _PROMPT, _TOKENS)).first_s)
                await daemon.stop_replica()
                print(f"heliosd: {cold.first_s:.2f} s", file=sys.stderr)
        for _ in range(serves):
            found.serve_s.append(await _serve(arguments, folder))
            print(f"vllm serve: {found.serve_s[-1]:.2f} s", file=sys.stderr)
    return found


async def _serve(arguments: Arguments, folder: Path) -> float:
    async with (
        vllm_serve(arguments, folder) as (process, url),
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(_LIMIT_S)) as session,
        asyncio.timeout(_LIMIT_S),
    ):
        while True:
            process.check()
            before = time.monotonic()
            try:
                first = await ask(session, url, _PROMPT, _TOKENS)
            except aiohttp.ClientConnectorError:
                await asyncio.sleep(0.02)
            else:
                return before - process.started + first.first_s


def show(found: Starts, arguments: Arguments) -> None:
    def row(name: str, seconds: list[float]) -> tuple[str, ...]:
        return name, span(median(seconds)), span(min(seconds)), span(max(seconds)), str(len(seconds))

    names = dict.fromkeys(name for phases in found.phases for name in phases)
    phases = [row(f"  {name}", [each.get(name, 0.0) for each in found.phases]) for name in names]
    ratio = median(found.helios_s) / median(found.serve_s)
    print_table(
        "cold start: from asking for a model that does not run to its first token",
        ("", "median", "min", "max", "runs"),
        [
            row("heliosd", found.helios_s),
            *phases,
            row("vllm serve", found.serve_s),
            ("ratio", f"{ratio:.3f}", "", "", ""),
            row("for comparison: first token once it runs", found.ready_s),
            row("before: heliosd from its start to preloaded", [found.daemon_warm_s]),
        ],
        (arguments.told(), f"heliosd's starts in order: {', '.join(map(span, found.helios_s))}; files in page cache"),
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.coldstart", description=(__doc__ or "").split("\n")[0])
    add_flags(parser)
    parser.add_argument("--starts", metavar="N", type=int, default=7, help="of a model by heliosd, at least 2")
    parser.add_argument("--serves", metavar="N", type=int, default=3, help="of vllm serve")
    given = parser.parse_args()
    arguments = arguments_of(given, given.model or smollm2())
    found = uvloop.run(measure(arguments, max(2, given.starts), given.serves))
    show(found, arguments)
    write_json(coldstart_object(found.helios_s, found.serve_s, found.phases), given.json)


if __name__ == "__main__":
    main()
