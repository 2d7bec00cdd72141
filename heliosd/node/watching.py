"""What the node keeps an eye on for the scheduler: the devices, their faults, and which models the store has."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from heliosd.config import Settings
from heliosd.core.hardware import HostReading, ProcessMemory
from heliosd.core.leaks import SLICES
from heliosd.core.messages import DevicesRead, Event, ModelsKnown
from heliosd.core.names import DeviceId, ReplicaId
from heliosd.core.scheduler import Scheduler
from heliosd.devices import held, ram
from heliosd.devices.probe import Probe
from heliosd.engines.pool import Pool
from heliosd.state.journal import Journal
from heliosd.store.store import Store

_READINGS_A_SLICE = 4
"""So many times in each slice of `leaks.window_s` the processes are looked at: one of them may find them idle."""

log = logging.getLogger("heliosd.node")


class DeviceWatch:
    """`host_total_bytes`: the machine's RAM; zero: it is not watched."""

    def __init__(
        self,
        scheduler: Scheduler,
        pool: Pool,
        probe: Probe,
        journal: Journal,
        host_total_bytes: int,
        settings: Callable[[], Settings],
        post: Callable[[Event], None],
        now: Callable[[], float],
    ) -> None:
        self._scheduler = scheduler
        self._pool = pool
        self._probe = probe
        self._journal = journal
        self._host_total_bytes = host_total_bytes
        self._settings = settings
        self._post = post
        self._now = now
        self._read_now = asyncio.Event()
        self._memory_at = float("-inf")

    def read_now(self) -> None:
        """What is held has changed: do not wait for the timer."""
        self._read_now.set()

    async def read(self) -> None:
        """Reconcile the ledger with the devices: on a timer, and after whatever changes what is held."""
        while True:
            self._read_now.clear()
            pids = {replica: tuple(sorted(engine.pids)) for replica, engine in self._pool.engines.items()}
            ours: dict[DeviceId, set[int]] = {}
            for replica in self._scheduler.replicas.values():
                for device in replica.devices:
                    ours.setdefault(device, set()).update(pids.get(replica.id, ()))
            readings = await self._probe.read({device: frozenset(found) for device, found in ours.items()})
            available = await asyncio.to_thread(ram.available_bytes)
            host = HostReading(self._host_total_bytes, available) if self._host_total_bytes else None
            memory, daemon = await self._held(pids)
            full = await asyncio.to_thread(held.spaces, self._places())
            self._post(DevicesRead(self._now(), readings, tuple(pids.items()), host, memory, daemon, full))
            with suppress(TimeoutError):
                async with asyncio.timeout(self._settings().devices.read_interval_s):
                    await self._read_now.wait()

    async def _held(
        self, pids: dict[ReplicaId, tuple[int, ...]]
    ) -> tuple[tuple[tuple[ReplicaId, ProcessMemory], ...], ProcessMemory | None]:
        """What processes hold, where it is time to look: the kernel walks through all their pages."""
        if self._now() < self._memory_at:
            return (), None
        self._memory_at = self._now() + self._settings().leaks.window_s / SLICES / _READINGS_A_SLICE
        return await asyncio.to_thread(held.held_memory, pids)

    def _places(self) -> dict[str, Path]:
        settings = self._settings()
        return {"store": settings.store.path, "state": settings.node.state_dir}

    async def heed_faults(self) -> None:
        """Tell of faults, and read the devices at once."""
        async for fault in self._probe.faults():
            log.warning("device fault", extra={"device": fault.device, "fault": fault.message, "xid": fault.xid})
            self._journal.note("fault", f"{fault.device}: {fault.message}", detail={"xid": fault.xid})
            self._read_now.set()


class StoreWatch:
    """`settings` are those of now: they say over how many devices a model is split."""

    def __init__(
        self,
        store: Store,
        settings: Callable[[], Settings],
        post: Callable[[Event], None],
        now: Callable[[], float],
    ) -> None:
        self._store = store
        self._settings = settings
        self._post = post
        self._now = now
        self._moved = asyncio.Event()

    def changed(self) -> None:
        """A model was added, removed or renamed."""
        self._moved.set()

    async def follow(self) -> None:
        """Tell the scheduler which models there are, at once and after each change."""
        while True:
            self._moved.clear()
            sizes = []
            for stored in await self._store.models():
                own = self._settings().for_model(str(stored.ref))
                devices = own.tensor_parallel * (own.pipeline_parallel or 1)
                sizes.append((str(stored.ref), stored.profile.weights_bytes // devices))
            self._post(ModelsKnown(self._now(), tuple(sizes)))
            await self._moved.wait()
