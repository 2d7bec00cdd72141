"""From the decision to start a replica to its engine: its files held, what it is launched with, and its whole life."""

import sqlite3
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from heliosd.adapters import Adapters
from heliosd.config import Settings
from heliosd.core.adapters import with_room
from heliosd.core.manifest import Manifest
from heliosd.core.messages import StartReplica
from heliosd.core.names import Digest, ReplicaId, parse_ref
from heliosd.core.retention import Tier
from heliosd.core.scheduler import Scheduler
from heliosd.engine_arguments import chosen_args
from heliosd.engines.engine import LaunchSpec
from heliosd.engines.loader_formats import HELIOS
from heliosd.engines.pool import Pool
from heliosd.errors import HeliosError
from heliosd.logs import trace_id_var
from heliosd.node.starts import Starts
from heliosd.store.store import Store

if TYPE_CHECKING:
    from heliosd.telemetry.tracing_node import NodeSpans

_READ_RECIPES = (HELIOS, "dummy")
"""Load formats that take files which the store keeps in pieces, or none; all others read whole files."""


class Launching:
    """`settings` are those of now: they may change while running."""

    def __init__(
        self,
        scheduler: Scheduler,
        pool: Pool,
        store: Store,
        adapters: Adapters,
        starts: Starts,
        settings: Callable[[], Settings],
        log_dir: Path,
        tier_of: Callable[[Manifest], str] | None = None,
        spans: "NodeSpans | None" = None,
    ) -> None:
        self._tier_of = tier_of
        self._spans = spans
        self._scheduler = scheduler
        self._pool = pool
        self._store = store
        self._adapters = adapters
        self._starts = starts
        self._settings = settings
        self._log_dir = log_dir

    def log_file(self, replica: ReplicaId) -> Path:
        """Where a replica's own output goes, also after its end."""
        return self._log_dir / f"{replica}.log"

    async def _tier(self, model: str) -> str:
        """Where its weights are."""
        stored = await self._store.find(parse_ref(model))
        return self._tier_of(stored.manifest) if stored and self._tier_of else Tier.NVME.value

    async def run(self, command: StartReplica) -> None:
        """Start the replica and stay with it until its engine has ended."""
        demand = command.demand
        if self._spans:  # this task is the engine's whole life, and logs nothing else
            trace_id_var.set(self._spans.trace_of(None, command.replica))
        clock = self._starts.begin(command.replica)
        clock.mark("dispatch")
        settings = self._settings().for_model(demand.model)
        ledger = self._scheduler.ledger
        # Held to the end of the engine: it may read files late, and its ref may mean something else by then.
        async with AsyncExitStack() as used:
            await used.enter_async_context(self._adapters.of(command.replica))
            try:
                if await self._store.bring_back(Digest(demand.revision)):
                    clock.mark("fetch")
                whole = settings.engine_args.get("load_format", HELIOS) not in _READ_RECIPES
                directory = await used.enter_async_context(self._store.hold(Digest(demand.revision), whole=whole))
            except (HeliosError, OSError, sqlite3.Error) as error:
                if command.takes_over is not None:
                    self._pool.stop(command.takes_over)
                self._pool.failed(command.replica, str(error))
                return
            clock.mark("resolve")
            if self._spans:
                self._spans.started_from(command.replica, await self._tier(demand.model))
            await self._pool.run(
                LaunchSpec(
                    replica=command.replica,
                    served_names=(demand.model,),
                    directory=directory,
                    devices=tuple(ledger.devices[device] for device in command.devices),
                    kv_cache_bytes=demand.per_device.kv_cache_bytes,
                    max_model_len=demand.max_model_len,
                    max_num_seqs=demand.max_num_seqs,
                    log_file=self.log_file(command.replica),
                    dtype=settings.dtype,
                    revision=demand.revision,
                    trust_remote_code=settings.trust_remote_code,
                    remote_code=demand.remote_code,
                    engine_args={**with_room(settings.engine_args, demand.adapters), **chosen_args(demand.arguments)},
                    sleep=self._scheduler.limits.sleep,
                    pipeline_parallel=demand.pipeline_parallel,
                    clock=clock,
                    traceparent=self._spans.traceparent_of(command.replica) if self._spans else "",
                ),
                takes_over=command.takes_over,
            )
