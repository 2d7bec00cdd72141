"""What the screen costs while it is looked at, as a share of one core: a thousand models, two snapshots a second.

    python -m tests.bench.tui_share [--json FILE] [--seconds S]

`python -m tui` runs in a terminal of its own (a pty of 160x48) against a server that answers as heliosd does: a
thousand models, each with a replica, of which a hundred work, others in each snapshot, while the idleness of the rest
grows; fifty requests that wait, of which one is served and one comes each time, and four journal lines a second. The
processor time of the process is read from the kernel, after what starting took.
"""

import argparse
import asyncio
import fcntl
import json
import os
import pty
import struct
import sys
import tempfile
import termios
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
from aiohttp import web

from heliosd.core.units import GiB, MiB
from heliosd.wire import (
    DeviceView,
    EngineKindView,
    EventView,
    FootprintView,
    ModelView,
    NodeView,
    QueueView,
    ReplicaView,
    Snapshot,
)
from tests.bench.report import write_json
from tests.bench.table import print_table

MODELS = 1000
BUSY = 100
WAITING = 50
DEVICES = 8
EVERY_S = 0.5
VARIANTS = 8
"""Snapshots made beforehand, told in turn."""
SCREENS = ("top", "replicas", "models", "devices")
COLUMNS, LINES = 160, 48
WARM_S = 6.0
LIMIT = 0.05
Row = tuple[str, ...]


def snapshot(turn: int) -> Snapshot:
    held = FootprintView(
        weights_bytes=400 * MiB, kv_cache_bytes=100 * MiB, overhead_bytes=20 * MiB, total_bytes=520 * MiB
    )
    engines = [EngineKindView(kind="vllm", version="0.32.0", state="warm")]
    return Snapshot(
        node=NodeView(
            name="bench", version="0.1.0", state="running", started_at=0.0, uptime_s=turn * EVERY_S, pid=1,
            engines=engines, config_files=[], state_dir="/state",
        ),
        devices=[
            DeviceView(
                id=f"gpu{number}", kind="cuda", name="NVIDIA H100 80GB HBM3", capacity_bytes=80 * GiB, foreign_bytes=0,
                safety_bytes=GiB, promised_bytes=64 * GiB, measured_bytes=63 * GiB, free_bytes=15 * GiB,
                weights_bytes=48 * GiB, kv_cache_bytes=14 * GiB, used_bytes=63 * GiB + turn * MiB,
                utilization_ratio=(turn * 7 + number) % 100 / 100, temperature_c=60.0 + turn % 3, power_w=500.0 + turn,
                power_limit_w=700.0,
            )
            for number in range(DEVICES)
        ],
        replicas=[
            ReplicaView(
                id=f"r{number}", model=model(number), revision="ab" * 32,
                state="asleep" if number % 3 == 0 else "ready", devices=[f"gpu{number % DEVICES}"],
                leases=1 + (turn + number) % 15 if busy(turn, number) else 0,
                predicted=held, measured=held, phases={"fork": 0.04, "load": 1.1, "kv cache": 0.4}, started_at=0.0,
                idle_s=turn * EVERY_S + number, keep_alive_s=900.0, limit=16,
                kv_used_ratio=(turn * 3 + number) % 100 / 100 if busy(turn, number) else 0.0,
                max_model_len=8192, tasks=["generate"], pids=[number],
            )
            for number in range(MODELS)
        ],
        queue=[
            QueueView(
                ticket=f"t-{turn + number}", model=model(turn + number), position=number,
                waiting_s=(WAITING - number) * EVERY_S,
                reason="waits for 520.0 MiB on gpu0: r1 has 3 leases", eta_s=2.0 + number,
            )
            for number in range(WAITING)
        ],
    )  # fmt: skip


def busy(turn: int, number: int) -> bool:
    """A hundred of a thousand replicas work on something, every tenth of the table; each time others."""
    return (number + turn) % (MODELS // BUSY) == 0


def model(number: int) -> str:
    return f"org{number % 20}/model-{number:04d}"


class Teller:
    """The server's side: the same snapshots over and over, as bytes that are ready."""

    def __init__(self) -> None:
        self.snapshots = [
            f"event: snapshot\ndata: {snapshot(turn).model_dump_json()}\n\n".encode() for turn in range(VARIANTS)
        ]
        models = [
            ModelView(
                ref=model(number), revision="ab" * 32, size_bytes=500 * MiB, source="hub", created_at=0.0,
                architecture="LlamaForCausalLM", parameters=10**9, max_model_len=8192, tier="nvme",
            ).model_dump()
            for number in range(MODELS)
        ]  # fmt: skip
        self.models = json.dumps({"models": models}).encode()

    def application(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/helios/v1/events", self._events)
        for path, body in (
            ("models", self.models),
            ("pins", b'{"pins": []}'),
            ("tiers", b'{"tiers": [], "wishes": [], "moving": null}'),
        ):
            app.router.add_get(f"/helios/v1/{path}", _giving(body))
        return app

    async def _events(self, request: web.Request) -> web.StreamResponse:
        if request.query.get("follow") != "1":
            return web.json_response({"events": []})
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        turn = told = 0
        with suppress(ConnectionResetError):
            while True:
                await response.write(self.snapshots[turn % VARIANTS])
                turn += 1
                for _ in range(2):
                    told += 1
                    await response.write(_journal(told))
                await asyncio.sleep(EVERY_S)
        return response


def _giving(body: bytes) -> Any:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(body=body, content_type="application/json")

    return handler


def _journal(number: int) -> bytes:
    event = EventView(id=number, at=float(number), kind="grant", message=f"t-{number} is served by r{number % MODELS}",
                      replica=f"r{number % MODELS}", model=model(number % MODELS))  # fmt: skip
    return f"id: {number}\nevent: journal\ndata: {event.model_dump_json()}\n\n".encode()


@asynccontextmanager
async def telling(socket: Path) -> AsyncIterator[None]:
    runner = web.AppRunner(Teller().application(), handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.UnixSite(runner, str(socket)).start()
    try:
        yield
    finally:
        await runner.cleanup()


@asynccontextmanager
async def terminal(words: Sequence[str]) -> AsyncIterator[tuple[psutil.Process, list[int]]]:
    """Run it in a pty whose screen is read and thrown away; gives the process, and how many bytes it drew so far."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    environment = os.environ | {"TERM": "xterm-256color", "COLORTERM": "truecolor"}
    process = await asyncio.create_subprocess_exec(
        *words, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True
    )
    os.close(theirs)
    drawn = [0]

    def read() -> None:
        with suppress(OSError):
            drawn[0] += len(os.read(ours, 65536))

    asyncio.get_running_loop().add_reader(ours, read)
    try:
        yield psutil.Process(process.pid), drawn
    finally:
        asyncio.get_running_loop().remove_reader(ours)
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        os.close(ours)


async def share_of(screen: str, socket: Path, seconds: float) -> tuple[float, float]:
    """The share of a core, and bytes drawn a second."""
    words = [sys.executable, "-m", "tui", "--socket", str(socket), "--screen", screen]
    async with terminal(words) as (process, drawn):
        await asyncio.sleep(WARM_S)
        before, bytes_before = process.cpu_times(), drawn[0]
        began = asyncio.get_running_loop().time()
        await asyncio.sleep(seconds)
        after, took = process.cpu_times(), asyncio.get_running_loop().time() - began
        spent = after.user + after.system - before.user - before.system
        if drawn[0] == bytes_before:
            raise RuntimeError(f"the screen {screen} drew nothing in {took:.0f} s")
        return spent / took, (drawn[0] - bytes_before) / took


async def measure(seconds: float = 20.0, screens: Sequence[str] = SCREENS) -> dict[str, tuple[float, float]]:
    """By screen."""
    with tempfile.TemporaryDirectory(prefix="helios-") as folder:
        socket = Path(folder) / "s"
        async with telling(socket):
            return {screen: await share_of(screen, socket, seconds) for screen in screens}


def rows_of(found: dict[str, tuple[float, float]]) -> list[Row]:
    return [
        (f"screen {name}, {MODELS} models, 2 Hz", f"{share:.1%}", "", "", f"{drawn / 1000:.1f} kB/s", f"{LIMIT:.0%}")
        for name, (share, drawn) in found.items()
    ]


def tui_core_share(folder: Path | None = None) -> tuple[float, list[Row]]:
    """The share of a core of the screen that takes most, and rows of the table."""
    found = asyncio.run(measure())
    return round(max(share for share, _ in found.values()), 4), rows_of(found)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.tui_share", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the result as one JSON object")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long each screen is watched")
    parser.add_argument("--screen", choices=SCREENS, action="append", help="this only; may be repeated")
    given = parser.parse_args()
    found = asyncio.run(measure(given.seconds, given.screen or SCREENS))
    print_table("tui", ("", "core", "", "", "drawn", "limit"), rows_of(found))
    write_json({"tui_core_share": round(max(share for share, _ in found.values()), 4)}, given.json)


if __name__ == "__main__":
    main()
