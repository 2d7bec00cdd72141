"""The adapters that running engines have read: each once per engine, its files held until the engine's end."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from heliosd.core.names import Digest, ModelRef, ReplicaId
from heliosd.engines.engine import Engine
from heliosd.errors import EngineFailed
from heliosd.state.journal import Journal
from heliosd.store.store import Store
from heliosd.store.stored import StoredModel
from heliosd.telemetry.metrics import Metrics


@dataclass
class _Read:
    """What one engine has read."""

    revisions: dict[ModelRef, Digest] = field(default_factory=dict)
    one_at_a_time: asyncio.Lock = field(default_factory=asyncio.Lock)
    held: AsyncExitStack = field(default_factory=AsyncExitStack)


class Adapters:
    def __init__(self, store: Store, journal: Journal, metrics: Metrics, now: Callable[[], float]) -> None:
        self._store = store
        self._journal = journal
        self._metrics = metrics
        self._now = now
        self._read: dict[ReplicaId, _Read] = {}

    @asynccontextmanager
    async def of(self, replica: ReplicaId) -> AsyncIterator[None]:
        """For the length of a replica's life; at its end what its engine could read is let go."""
        read = self._read[replica] = _Read()
        async with read.held:
            try:
                yield
            finally:
                del self._read[replica]

    async def bring(self, replica: ReplicaId, engine: Engine, adapter: StoredModel) -> None:
        """Have the engine know this adapter by its ref, with the content that it has now.

        Raises as `Store.hold` does, and EngineFailed when the engine does not take it or has ended meanwhile.
        """
        read = self._read.get(replica)
        if read is None:
            raise _ended(replica, adapter)
        if read.revisions.get(adapter.ref) == adapter.revision:
            return
        async with read.one_at_a_time, AsyncExitStack() as mine:
            if read.revisions.get(adapter.ref) == adapter.revision:
                return
            began = self._now()
            # Engines open an adapter's weights themselves, whatever their load format.
            directory = await mine.enter_async_context(self._store.hold(adapter.revision, whole=True))
            await engine.load_adapter(str(adapter.ref), directory)
            if replica not in self._read:
                raise _ended(replica, adapter)
            # The older content stays held too: requests under way go on with it.
            read.held.push_async_callback(mine.pop_all().aclose)
            read.revisions[adapter.ref] = adapter.revision
            self._note(replica, adapter, self._now() - began)

    def _note(self, replica: ReplicaId, adapter: StoredModel, seconds: float) -> None:
        self._metrics.adapter_loaded(seconds)
        text = f"{replica} read the adapter {adapter.ref} in {seconds:.2f} s"
        detail = {"revision": adapter.revision, "seconds": round(seconds, 4)}
        self._journal.note("adapter", text, model=str(adapter.ref), replica=replica, detail=detail)


def _ended(replica: ReplicaId, adapter: StoredModel) -> EngineFailed:
    return EngineFailed(f"cannot use {adapter.ref} on {replica}: it has just ended; ask again", replica=replica)
