"""A server as a child process: started with a log file, asked until it answers, ended with all it started."""

import asyncio
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import aiohttp

_POLITE_S = 30.0


@dataclass(frozen=True, slots=True)
class Server:
    pid: int
    started: float
    """On `time.monotonic()`: just before the process was made."""
    process: asyncio.subprocess.Process
    log: Path

    def check(self) -> None:
        """Raise with the end of its log when it is no longer there."""
        if self.process.returncode is not None:
            said = self.log.read_text(errors="replace")[-3000:]
            raise RuntimeError(f"the server ended with {self.process.returncode}: {said}")


@asynccontextmanager
async def server(command: Sequence[str], environment: Mapping[str, str], log: Path) -> AsyncIterator[Server]:
    """Run `command` while the block lasts; at its end nothing of it is left."""
    with log.open("wb") as file:
        started = time.monotonic()
        process = await asyncio.create_subprocess_exec(
            *command,
            env=dict(environment),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        yield Server(process.pid, started, process, log)
    finally:
        if process.returncode is None:
            process.terminate()
            with suppress(TimeoutError):
                async with asyncio.timeout(_POLITE_S):
                    await process.wait()
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def answering(
    session: aiohttp.ClientSession,
    url: str,
    of: Server,
    *,
    every_s: float = 0.01,
    limit_s: float = 300,
) -> None:
    """Ask `url` until it answers 200."""
    async with asyncio.timeout(limit_s):
        while True:
            of.check()
            try:
                async with session.get(url) as response:
                    if response.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(every_s)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
