"""From "model not running" to the first token: heliosd against `vllm serve` and llama.cpp's server.

    python -m tests.bench.coldstart [--json FILE] [--starts N] [--serves N] [--model DIR]

heliosd is up, its engine process is preloaded, the model is in its store and no replica of it runs; what is timed is
one streamed request. The others are started, and the same request repeated until it is answered, at most 20 ms late.
They take turns, and heliosd lies idle meanwhile. Then another model of the same shape, for which the first has to go,
is asked for and back again: hot swaps. What heliosd did beforehand is shown too.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import aiohttp
import uvloop

from heliosd.core.units import MiB
from tests.bench.arguments import NAME, TWIN, Arguments, add_flags, arguments_of
from tests.bench.daemon import Daemon, configured
from tests.bench.llama_server import installed, llama_server
from tests.bench.load import ask
from tests.bench.peer import vllm_serve
from tests.bench.process import Server
from tests.bench.report import coldstart_object, write_json
from tests.bench.smollm2 import gguf, smollm2
from tests.bench.table import print_table, span
from tests.bench.twin import twin

_PROMPT = "What is the capital of France?"
_TOKENS = 8
_LIMIT_S = 300.0
_REST = "queue_http_first_token"
"""What is not in the replica's own account of its start."""
_RESIDENCE_S = 2.5
_ENGINE_BYTES = 900 * MiB
"""What an engine takes besides its weights and its KV cache: two of them never fit into what is set aside."""


@dataclass(slots=True)
class Starts:
    helios_s: list[float] = field(default_factory=list)
    """From the request to its first token."""
    phases: list[Mapping[str, float]] = field(default_factory=list)
    forked_s: list[float] = field(default_factory=list)
    """The same without a process that was made ahead."""
    forked_phases: list[Mapping[str, float]] = field(default_factory=list)
    ready_s: list[float] = field(default_factory=list)
    """The same request to the replica, now that it runs."""
    serve_s: list[float] = field(default_factory=list)
    """From process start to the first token."""
    llama_s: list[float] = field(default_factory=list)
    """Likewise; empty when it is not installed."""
    swap_s: list[float] = field(default_factory=list)
    """From the request for the model that does not run, in the engine of the one that does, to its first token."""
    swap_phases: list[Mapping[str, float]] = field(default_factory=list)
    daemon_warm_s: float = 0.0
    """From heliosd's process start until its engines are preloaded: spent once, before anybody asks."""


async def measure(arguments: Arguments, starts: int, serves: int, peer_gguf: Path | None) -> Starts:
    found = Starts()
    timeout = aiohttp.ClientTimeout(_LIMIT_S)
    with tempfile.TemporaryDirectory(prefix="helios-bench-") as temporary:
        folder = Path(temporary)
        other = await asyncio.to_thread(twin, arguments.model, folder / "twin")
        weights_bytes = sum(file.stat().st_size for file in arguments.model.glob("*.safetensors"))
        one_bytes = weights_bytes + arguments.kv_cache_bytes + _ENGINE_BYTES
        toml = f"[devices]\nhost_memory = {one_bytes}\n{arguments.toml(NAME, TWIN)}"
        async with configured(toml, folder) as daemon, aiohttp.ClientSession(timeout=timeout) as session:
            await daemon.until_warm()
            found.daemon_warm_s = time.monotonic() - daemon.process.started
            await daemon.add(arguments.model, NAME)
            await daemon.add(other, TWIN)
            for number in range(max(starts, serves)):
                if number < starts:
                    await _starts(found, session, daemon)
                if number < serves:
                    found.serve_s.append(await _peer(vllm_serve(arguments, folder), "vllm serve"))
                if (binaries := installed()) is not None and peer_gguf is not None:
                    threads = int(arguments.environment()["OMP_NUM_THREADS"])
                    found.llama_s.append(await _peer(llama_server(binaries, peer_gguf, folder, threads), "llama.cpp"))
            await _swaps(found, session, daemon, starts)
    return found


async def _starts(found: Starts, session: aiohttp.ClientSession, daemon: Daemon) -> None:
    """One in a process made ahead, as the daemon does by itself, and one without, which is told apart."""
    await daemon.keep_shells(1)
    await _helios(found, session, daemon)
    await daemon.keep_shells(0)
    without = Starts()
    await _helios(without, session, daemon)
    found.forked_s += without.helios_s
    found.forked_phases += without.phases
    await daemon.keep_shells(1)


async def _helios(found: Starts, session: aiohttp.ClientSession, daemon: Daemon) -> None:
    cold = await ask(session, daemon.url, _PROMPT, _TOKENS)
    phases = (await daemon.replica())["phases"]
    found.helios_s.append(cold.first_s)
    found.phases.append({**phases, _REST: cold.first_s - sum(phases.values())})
    found.ready_s.append((await ask(session, daemon.url, _PROMPT, _TOKENS)).first_s)
    await daemon.stop_replica()
    print(f"heliosd: {cold.first_s:.2f} s", file=sys.stderr)


async def _peer(running: AbstractAsyncContextManager[tuple[Server, str]], name: str) -> float:
    """A session of its own: what another one learned of a closed port must not slow this down."""
    async with (
        running as (process, url),
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(_LIMIT_S)) as session,
        asyncio.timeout(_LIMIT_S),
    ):
        async for before in _attempts(process):
            try:
                first = await ask(session, url, _PROMPT, _TOKENS)
            except (aiohttp.ClientConnectorError, RuntimeError) as error:
                if isinstance(error, RuntimeError) and "answered 503" not in str(error):
                    raise  # llama.cpp says 503 while it reads the weights
                continue
            took_s = before - process.started + first.first_s
            print(f"{name}: {took_s:.2f} s", file=sys.stderr)
            return took_s
    raise RuntimeError(f"{name} did not answer")


async def _attempts(process: Server) -> AsyncIterator[float]:
    while True:
        process.check()
        yield time.monotonic()
        await asyncio.sleep(0.02)


async def _swaps(found: Starts, session: aiohttp.ClientSession, daemon: Daemon, count: int) -> None:
    """There and back, from a replica that has answered before."""
    await ask(session, daemon.url, _PROMPT, _TOKENS)
    for number in range(count):
        model = NAME if number % 2 else TWIN
        # Not in its first moments: who has just become ready stays for a while.
        await asyncio.sleep(_RESIDENCE_S)
        before = (await daemon.replica())["pids"]
        first = await ask(session, daemon.url, _PROMPT, _TOKENS, model)
        after = await daemon.replica()
        if after["pids"] != before:
            raise RuntimeError(f"{model} did not begin in the engine that ran: {before} before, {after['pids']} now")
        found.swap_s.append(first.first_s)
        found.swap_phases.append({**after["phases"], _REST: first.first_s - sum(after["phases"].values())})
        print(f"hot swap: {first.first_s:.2f} s", file=sys.stderr)


def show(found: Starts, arguments: Arguments) -> None:
    def row(name: str, seconds: list[float]) -> tuple[str, ...]:
        if not seconds:
            return name, "not installed", "", "", "0"
        return name, span(median(seconds)), span(min(seconds)), span(max(seconds)), str(len(seconds))

    def parts(phases: list[Mapping[str, float]]) -> list[tuple[str, ...]]:
        names = dict.fromkeys(name for each in phases for name in each)
        return [row(f"  {name}", [each.get(name, 0.0) for each in phases]) for name in names]

    def ratio(name: str, peer_s: list[float]) -> tuple[str, ...]:
        return (name, f"{median(found.helios_s) / median(peer_s):.3f}" if peer_s else "", "", "", "")

    print_table(
        "cold start: from asking for a model that does not run to its first token",
        ("", "median", "min", "max", "runs"),
        [
            row("heliosd", found.helios_s),
            *parts(found.phases),
            row("without a process made ahead", found.forked_s),
            *parts(found.forked_phases),
            (
                "with : without, the first pair left out",
                f"{median(found.helios_s[1:]) / median(found.forked_s[1:]):.3f}",
                "",
                "",
                "",
            ),
            row("vllm serve", found.serve_s),
            ratio("heliosd : vllm serve", found.serve_s),
            row("llama.cpp's server", found.llama_s),
            ratio("heliosd : llama.cpp's server", found.llama_s),
            row("hot swap between two of one shape", found.swap_s),
            *parts(found.swap_phases),
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
    peer_gguf = None if given.model else gguf()
    found = uvloop.run(measure(arguments, max(2, given.starts), given.serves, peer_gguf))
    show(found, arguments)
    write_json(coldstart_object(found.helios_s, found.serve_s, found.llama_s, found.swap_s, found.phases), given.json)


if __name__ == "__main__":
    main()
