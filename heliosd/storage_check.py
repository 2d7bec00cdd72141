"""Measures how fast this storage is on a large file of the store, keeps it, and lets engines be started accordingly."""

import asyncio
import json
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from heliosd.core.names import Digest
from heliosd.core.storage_speed import Speed
from heliosd.core.units import GiB, MiB, format_bytes
from heliosd.engines.loader_formats import STREAMERS, load_format
from heliosd.engines.surroundings import installed
from heliosd.errors import Conflict, HeliosError, NotFound
from heliosd.state.storage import StorageSpeeds
from heliosd.store.stored import StoredModel

SMALLEST_BYTES = 64 * MiB
"""A smaller file tells more of the system calls than of the storage."""
LARGEST_BYTES = 16 * GiB
"""Of several files the largest up to this one: each is read a dozen times."""
LIMIT_S = 900.0


class Models(Protocol):
    """What is asked of the store."""

    async def models(self) -> tuple[StoredModel, ...]: ...

    def hold(self, revision: Digest) -> AbstractAsyncContextManager[Path]: ...


class Loads(Protocol):
    """An engine kind that loads weights from the store."""

    speeds: tuple[Speed, ...]


@dataclass(frozen=True, slots=True)
class StorageReport:
    file: str
    """Of which model."""
    size_bytes: int
    speeds: tuple[Speed, ...]
    load_format: str
    """What engines are started with from now on, where the operator set none."""


class StorageCheck:
    def __init__(
        self,
        models: Models,
        kept: StorageSpeeds,
        kinds: Sequence[Loads],
        *,
        on_cuda: bool,
        smallest_bytes: int = SMALLEST_BYTES,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._models = models
        self._kept = kept
        self._kinds = kinds
        self._on_cuda = on_cuda
        self._smallest_bytes = smallest_bytes
        self._clock = clock
        self._running = False

    async def recall(self) -> None:
        """Start engines by what was measured in an earlier life."""
        self._tell(await self._kept.all())

    async def measure(self) -> StorageReport:
        """Takes from seconds to minutes, and the disk's whole throughput. Raises Conflict while another one runs, and
        NotFound when the store has no large file."""
        if self._running:
            raise Conflict("cannot measure the storage: it is being measured just now; wait until that is done")
        self._running = True
        try:
            return await self._measure()
        finally:
            self._running = False

    async def _measure(self) -> StorageReport:
        model, name, size_bytes = await self._large_file()
        async with self._models.hold(model.revision) as directory:
            speeds = await _in_a_process(directory / name, self._on_cuda)
        await self._kept.replace(speeds, self._clock())
        self._tell(speeds)
        chosen = load_format((name,), self._on_cuda, installed(STREAMERS), speeds)
        return StorageReport(f"{name} of {model.ref}", size_bytes, speeds, chosen)

    async def _large_file(self) -> tuple[StoredModel, str, int]:
        found = [
            (file.size_bytes <= LARGEST_BYTES, file.size_bytes, file.path, model)
            for model in await self._models.models()
            for file in model.manifest.files
            if file.path.endswith(".safetensors")
        ]
        _, size_bytes, name, model = max(found, key=lambda each: each[:3], default=(False, 0, "", None))
        if model is None or size_bytes < self._smallest_bytes:
            largest = f"its largest has {format_bytes(size_bytes)}" if found else "it has none"
            raise NotFound(
                f"cannot measure the storage: that takes a safetensors file of {format_bytes(self._smallest_bytes)} "
                f"or more in the store, and {largest}; add a larger model first",
                code="no_large_file",
            )
        return model, name, size_bytes

    def _tell(self, speeds: tuple[Speed, ...]) -> None:
        for kind in self._kinds:
            kind.speeds = speeds


async def _in_a_process(path: Path, cuda: bool) -> tuple[Speed, ...]:
    """Raises HeliosError with the process's own words. Cancelled, it leaves no process."""
    command = [sys.executable, "-P", "-m", "heliosd.engines.loader_measure", str(path), *(["--cuda"] if cuda else [])]
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(LIMIT_S):
            out, said = await process.communicate()
    except TimeoutError:
        raise HeliosError(f"cannot measure the storage: {path.name} was not read in {LIMIT_S:.0f} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        words = said.decode(errors="replace").strip()
        raise HeliosError(f"cannot measure the storage: {words.rpartition(chr(10))[2]}", cause=words)
    return tuple(Speed(**json.loads(line)) for line in out.splitlines() if line.startswith(b"{"))
