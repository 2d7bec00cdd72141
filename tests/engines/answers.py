"""What tests of engines share: requests, a reply that remembers, and launch specs."""

import asyncio
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from heliosd.core.hardware import Device, DeviceKind
from heliosd.core.names import DeviceId, ReplicaId, Ticket
from heliosd.core.units import GiB, MiB
from heliosd.engines.engine import Engine, LaunchSpec, Request

HOST = Device(DeviceId("host"), DeviceKind.HOST, "this machine", 8 * GiB)
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


class Answer:
    """A `Reply` that keeps what is written, and tells when the first piece came."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.chunks: list[bytes] = []
        self.begun = asyncio.Event()

    async def start(self, status: int, headers: list[tuple[str, str]]) -> None:
        self.status = status
        self.headers = {name.lower(): value for name, value in headers}

    async def write(self, chunk: bytes) -> None:
        self.chunks.append(chunk)
        self.begun.set()

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[Any]:
        """The data of a stream's events, without `[DONE]`."""
        lines = [line[6:] for line in self.body.decode().splitlines() if line.startswith("data: ")]
        return [json.loads(line) for line in lines if line != "[DONE]"]


def request(path: str, body: Mapping[str, Any] | bytes | None = None, method: str = "POST") -> Request:
    raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    return Request(Ticket("t-1"), method, path, "", (("Content-Type", "application/json"),), raw)


async def ask(engine: Engine, path: str, body: Mapping[str, Any] | bytes | None = None, method: str = "POST") -> Answer:
    """One request and the whole answer."""
    answer = Answer()
    await engine.frontend.handle(request(path, body, method), answer)
    return answer


async def chat(engine: Engine, **options: Any) -> Answer:
    body = {"model": "m", "messages": QUESTION, "max_tokens": 16, "temperature": 0, **options}
    return await ask(engine, "/v1/chat/completions", body)


def spec(directory: Path, logs: Path, replica: str = "r1", **options: Any) -> LaunchSpec:
    plain: dict[str, Any] = {
        "replica": ReplicaId(replica),
        "served_names": ("m",),
        "directory": directory,
        "devices": (HOST,),
        "kv_cache_bytes": 16 * MiB,
        "max_model_len": 512,
        "max_num_seqs": 8,
        "log_file": logs / f"{replica}.log",
    }
    return LaunchSpec(**(plain | options))


async def until(true: Any, within_s: float) -> float:
    """Wait until `true()`; return the seconds it took. Fails when it takes longer than `within_s`."""
    began = time.monotonic()
    while not true():
        if time.monotonic() - began > within_s:
            raise AssertionError(f"not so within {within_s} s")
        await asyncio.sleep(0.005)
    return time.monotonic() - began


def zygote_of(engine: Engine) -> int:
    """The process that this engine was forked from."""
    (main,) = (process for process in map(psutil.Process, engine.pids) if process.ppid() not in engine.pids)
    return main.ppid()


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and is only not yet collected does not."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
