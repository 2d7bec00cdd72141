"""heliosd as benchmarks need it: with a state of its own, a model in the store, warm engines."""

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from tests.bench.arguments import NAME, Arguments
from tests.bench.process import Server, answering, free_port, server

_SHELLS = re.compile(r"\n\[pool\]\nshells = \d+\n")


class Daemon:
    """A running heliosd."""

    def __init__(self, process: Server, url: str, admin: aiohttp.ClientSession, config: Path) -> None:
        self.process = process
        self._config = config
        self.url = url
        self._admin = admin

    async def until_warm(self, limit_s: float = 180) -> None:
        """Wait until engines can be forked from a preloaded process."""
        async with asyncio.timeout(limit_s):
            while True:
                engines = (await self.ask("GET", "node"))["engines"]
                if any(engine["state"] == "warm" for engine in engines):
                    return
                if failed := [engine["detail"] for engine in engines if engine["state"] == "failed"]:
                    raise RuntimeError(f"heliosd cannot start engines: {failed}")
                await asyncio.sleep(0.1)

    async def keep_shells(self, count: int, limit_s: float = 60) -> None:
        """Have so many processes made ahead for each kind of engine, and wait until they are there."""
        text = _SHELLS.sub("", self._config.read_text())
        self._config.write_text(f"{text}\n[pool]\nshells = {count}\n")
        os.kill(self.process.pid, signal.SIGHUP)
        async with asyncio.timeout(limit_s):
            while True:
                engines = (await self.ask("GET", "node"))["engines"]
                if all(engine["shells"]["waiting"] == count for engine in engines):
                    return
                await asyncio.sleep(0.05)

    async def add(self, model: Path, ref: str = NAME) -> None:
        """Bring a model into the store."""
        body = {"source": "directory", "location": str(model.resolve()), "ref": ref}
        async with self._admin.post("http://heliosd/helios/v1/models", json=body) as response:
            told = await response.text()
        if "event: done" not in told:
            raise RuntimeError(f"heliosd did not take the model: {told[-2000:]}")

    async def replica(self) -> dict[str, Any]:
        """The one replica that runs."""
        replicas = (await self.ask("GET", "replicas"))["replicas"]
        ready: list[dict[str, Any]] = [replica for replica in replicas if replica["state"] == "ready"]
        return ready[0]

    async def stop_replica(self) -> None:
        await self.ask("DELETE", f"replicas/{NAME}")

    async def ask(self, method: str, path: str) -> Any:
        """What the admin API says under `/helios/v1/`."""
        async with self._admin.request(method, f"http://heliosd/helios/v1/{path}") as response:
            response.raise_for_status()
            return await response.json()


@asynccontextmanager
async def heliosd(arguments: Arguments, folder: Path) -> AsyncIterator[Daemon]:
    """Run heliosd with these engine arguments and its state in `folder`, and the model in its store."""
    async with configured(arguments.toml(), folder) as daemon:
        await daemon.add(arguments.model)
        yield daemon


@asynccontextmanager
async def configured(toml: str, folder: Path, program: str = "heliosd") -> AsyncIterator[Daemon]:
    """Run heliosd, or the module that stands for it, with this configuration and its state in `folder`."""
    config, socket, port = folder / "helios.toml", folder / "s", free_port()
    config.write_text(toml)
    command = [sys.executable, "-m", program, f"--config={config}", f"--state-dir={folder}", f"--socket={socket}"]
    connector = aiohttp.UnixConnector(str(socket))
    async with (
        server([*command, f"--port={port}"], environment(), folder / "heliosd.log") as process,
        aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(None)) as admin,
    ):
        await answering(admin, "http://heliosd/readyz", process)
        yield Daemon(process, f"http://127.0.0.1:{port}", admin, config)


def environment() -> dict[str, str]:
    """Ours without settings for another heliosd, and with bytecode as an installed one has it."""
    ours = {name: text for name, text in os.environ.items() if not name.startswith("HELIOS_")}
    return ours | {"PYTHONDONTWRITEBYTECODE": ""}
