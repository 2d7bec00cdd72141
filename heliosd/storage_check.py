"""Measures how fast this storage is on a large file of the store, keeps it, and lets engines be started accordingly."""

import asyncio
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from heliosd.core.names import Digest
from heliosd.core.storage_speed import Speed
from heliosd.core.units import GiB, MiB, format_bytes
from heliosd.engines.loader_formats import STREAMERS, load_format
from heliosd.engines.surroundings import installed
from heliosd.engines.tensor_files import RECIPE_SUFFIX
from heliosd.errors import Conflict, HeliosError, NotFound
from heliosd.state.storage import StorageSpeeds
from heliosd.store.away import AwayFile
from heliosd.store.stored import StoredModel

SMALLEST_BYTES = 64 * MiB
"""A smaller file tells more of the system calls than of the storage."""
LARGEST_BYTES = 16 * GiB
"""Of several files the largest up to this one: each is read a dozen times."""
LIMIT_S = 900.0


class Models(Protocol):
    """What is asked of the store."""

    async def models(self) -> tuple[StoredModel, ...]: ...

    async def away(self) -> Mapping[Digest, AwayFile]: ...

    def hold(self, revision: Digest) -> AbstractAsyncContextManager[Path]: ...


class Loads(Protocol):
    """Who loads weights from the store, or says how long that takes."""

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
        for model, name, size_bytes in await self._large_files():
            async with self._models.hold(model.revision) as directory:
                # What is kept as a recipe no plain read or streamer could take part with.
                if await asyncio.to_thread((directory / f"{name}{RECIPE_SUFFIX}").exists):
                    continue
                speeds = await _in_a_process(directory / name, self._on_cuda)
            await self._kept.replace(speeds, self._clock())
            self._tell(speeds)
            chosen = load_format((name,), self._on_cuda, installed(STREAMERS), speeds)
            return StorageReport(f"{name} of {model.ref}", size_bytes, speeds, chosen)
        raise self._none("all that are there share bytes with other models")

    async def _large_files(self) -> list[tuple[StoredModel, str, int]]:
        """The best to measure with first."""
        away = await self._models.away()
        found = [
            (file.size_bytes <= LARGEST_BYTES, file.size_bytes, file.path, model)
            for model in await self._models.models()
            for file in model.manifest.files
            if file.path.endswith(".safetensors") and file.digest not in away
        ]
        found.sort(key=lambda each: each[:3], reverse=True)
        large = [(model, name, size) for _, size, name, model in found if size >= self._smallest_bytes]
        if not large:
            raise self._none(f"its largest has {format_bytes(found[0][1])}" if found else "it has none")
        return large

    def _none(self, why: str) -> NotFound:
        return NotFound(
            f"cannot measure the storage: that takes a safetensors file of {format_bytes(self._smallest_bytes)} "
            f"or more in the store, and {why}; add a larger model first",
            code="no_large_file",
        )

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
