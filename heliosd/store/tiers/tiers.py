"""Where the store's blobs are, and how they get from there to where they shall be. Decides nothing."""

import asyncio
import logging
import os
import shutil
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from heliosd.core.names import Digest
from heliosd.core.retention import Tier
from heliosd.core.units import MiB, format_bytes
from heliosd.errors import Conflict
from heliosd.store.blobs import Blobs
from heliosd.store.layout import Layout
from heliosd.store.part import Part
from heliosd.store.placed import elsewhere, size_of
from heliosd.store.threads import Threads
from heliosd.store.tiers.memory import Resident
from heliosd.store.tiers.volume import Volume, open_blob

log = logging.getLogger("heliosd.store")

T = TypeVar("T")

SPARE_BYTES = 64 * MiB
"""Left on each volume for whatever else needs to write a little."""


@dataclass(frozen=True, slots=True)
class TierLimits:
    """What the operator gives to each tier."""

    nvme_budget_bytes: int | None = None
    """None: what the file system has."""
    disk_dir: Path | None = None
    """None: there is no slower volume."""
    disk_budget_bytes: int | None = None
    host_memory_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Survey:
    """What is where, at one moment."""

    nvme: Mapping[Digest, int]
    disk: Mapping[Digest, int]
    budgets: Mapping[Tier, int]
    """What each tier may hold, what is there now included; of the host memory, what the operator allows."""


async def _at_once() -> None:
    return


class Tiers:
    """The only writer of places. One move at a time."""

    def __init__(self, layout: Layout, blobs: Blobs, threads: Threads, limits: TierLimits) -> None:
        self.limits = limits
        self._layout = layout
        self._blobs = blobs
        self._threads = threads
        self._volume = Volume(limits.disk_dir, layout) if limits.disk_dir is not None else None
        self._moving = asyncio.Lock()
        self._staging = asyncio.Lock()
        self._resident: dict[Digest, Resident] = {}
        self._locks = True
        self.host_limit_bytes = limits.host_memory_bytes
        """What may be in RAM now: others may need some of what the operator allows."""
        self.make_room: Callable[[int], Awaitable[None]] | None = None
        """Asked to get so many bytes of the store free; set by who plans."""

    async def open(self) -> None:
        """Raises ConfigError when the slower volume cannot be used."""
        if self._volume is not None and (removed := await self._threads.run(self._volume.open)):
            log.info("disk swept", extra={"path": str(self._volume.root), "files": removed})

    async def close(self) -> None:
        """Let go of what is in RAM."""
        for digest in tuple(self._resident):
            await self.unstage(digest)

    @property
    def staged(self) -> Mapping[Digest, int]:
        """Blobs in RAM, each with its bytes."""
        return {digest: each.size_bytes for digest, each in self._resident.items()}

    @property
    def staged_bytes(self) -> int:
        return sum(each.size_bytes for each in self._resident.values())

    @property
    def held(self) -> frozenset[Digest]:
        """Blobs in use."""
        return self._blobs.held

    @property
    def locked(self) -> bool:
        """Whether the kernel keeps what is in RAM there; else it may drop it."""
        return self._locks

    # ---- looking ---------------------------------------------------------------

    async def survey(self) -> Survey:
        """Look where everything is. Raises OSError."""
        return await self._threads.run(self._survey)

    def _survey(self) -> Survey:
        nvme: dict[Digest, int] = {}
        disk: dict[Digest, int] = {}
        for shard in os.scandir(self._layout.blobs):
            for entry in os.scandir(shard.path):
                where = disk if entry.is_symlink() else nvme
                where[Digest(entry.name)] = size_of(Path(entry.path)) or 0
        free_bytes = shutil.disk_usage(self._layout.root).free - SPARE_BYTES
        budgets = {Tier.NVME: _budget(self.limits.nvme_budget_bytes, sum(nvme.values()), free_bytes)}
        if self.limits.host_memory_bytes:
            budgets[Tier.HOST] = self.limits.host_memory_bytes
        if self._volume is not None:
            free_bytes = self._volume.free_bytes() - SPARE_BYTES
            budgets[Tier.DISK] = _budget(self.limits.disk_budget_bytes, sum(disk.values()), free_bytes)
        return Survey(nvme, disk, budgets)

    async def room_bytes(self, needs_bytes: int) -> tuple[int, str]:
        """What a download may take, after others made way for one of `needs_bytes` if they can; and in words whose
        room that is."""
        seen = await self.survey()
        left_bytes = seen.budgets[Tier.NVME] - sum(seen.nvme.values())
        if left_bytes < needs_bytes and self.make_room is not None:
            await self.make_room(needs_bytes)
            seen = await self.survey()
            left_bytes = seen.budgets[Tier.NVME] - sum(seen.nvme.values())
        budget = self.limits.nvme_budget_bytes
        words = str(self._layout.root)
        return left_bytes, words if budget is None else f"{words}, which may hold {format_bytes(budget)},"

    # ---- moving ----------------------------------------------------------------

    async def move(self, digest: Digest, target: Tier, pause: Callable[[], Awaitable[None]] = _at_once) -> int:
        """Bring a blob from the store to the disk or back; returns the bytes moved, 0 when it is there already.

        `pause` is awaited between chunks. Raises Conflict when somebody uses it or it was removed meanwhile,
        CorruptData when the bytes are not what their name says, and OSError; then everything is as it was.
        """
        volume = self._volume
        if volume is None:
            raise Conflict(f"cannot move the blob {digest} to {target}: there is no store.disk_dir")
        async with self._moving:
            await self.unstage(digest)
            here = self._blobs.path(digest)
            there = await self._threads.run(elsewhere, here)
            if (there is None) == (target is Tier.NVME):
                return 0
            self._check_free(digest, target)
            part = await self._threads.run(self._part, volume, digest, target)
            try:
                await self._copy(here, part, pause)
                await self._threads.run(part.finish)  # before anybody has to wait for it
                async with self._blobs.alone():
                    self._check_free(digest, target)
                    if await self._threads.run(size_of, here) is None:
                        raise Conflict(f"cannot move the blob {digest} to {target}: it was removed meanwhile")
                    finish = volume.take if target is Tier.DISK else volume.give
                    await self._threads.run(finish, part, digest)
                return part.size_bytes
            finally:
                await self._threads.run(part.discard)

    def _check_free(self, digest: Digest, target: Tier) -> None:
        if digest in self._blobs.held:
            raise Conflict(f"cannot move the blob {digest} to {target}: it is in use", code="model_in_use")

    def _part(self, volume: Volume, digest: Digest, target: Tier) -> Part:
        return volume.part(digest) if target is Tier.DISK else Part(self._layout.part(f"tier-{uuid.uuid4().hex}"))

    async def _copy(self, source: Path, part: Part, pause: Callable[[], Awaitable[None]]) -> None:
        handle = await self._opened(open_blob, source)
        try:
            while await self._threads.run(part.copy_from, handle):
                while await self._threads.run(part.absorb):
                    await pause()
        finally:
            os.close(handle)

    async def _opened(self, how: Callable[[Path], T], path: Path) -> T:
        try:
            return await self._threads.run(how, path)
        except FileNotFoundError as error:
            if await self._threads.run(os.path.lexists, path):  # a link to a disk that is gone
                raise
            raise Conflict(f"cannot move the blob {path.name}: it was removed meanwhile") from error

    # ---- RAM -------------------------------------------------------------------

    async def stage(self, digest: Digest, pause: Callable[[], Awaitable[None]] = _at_once) -> int:
        """Bring a blob into RAM and keep it there; returns its bytes, 0 when it is there or there is no room (any
        more). Raises Conflict when it was removed meanwhile, and OSError."""
        async with self._staging:
            if digest in self._resident:
                return 0
            found = await self._opened(Resident, self._blobs.path(digest))
            self._resident[digest] = found
            try:
                while self._resident.get(digest) is found and found.done_bytes < found.size_bytes:
                    if self.staged_bytes > self.host_limit_bytes:
                        break
                    locked = await self._threads.run(found.advance, lock=self._locks)
                    if self._locks and not locked:
                        self._locks = False
                        log.warning(
                            "cannot lock models in host memory: the kernel allows too little (ulimit -l, "
                            "LimitMEMLOCK of the unit); they are read ahead only, and it may drop them"
                        )
                    await pause()
            finally:
                if found.done_bytes < found.size_bytes:
                    self._resident.pop(digest, None)
                    await self._threads.run(found.close)
            return found.size_bytes if digest in self._resident else 0

    async def unstage(self, digest: Digest) -> None:
        """Let go of a blob in RAM; harmless when it is not there."""
        found = self._resident.get(digest)
        if found is None:
            return
        if found.done_bytes < found.size_bytes:
            del self._resident[digest]  # who brings it in notices, and lets go of it
            return
        del self._resident[digest]
        await self._threads.run(found.close)


def _budget(asked: int | None, used_bytes: int, free_bytes: int) -> int:
    there = used_bytes + max(0, free_bytes)
    return there if asked is None else min(asked, there)
