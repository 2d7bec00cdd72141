"""What others ask of the node and tell it, and what runs as long as it does.

Slow work (a launch, a reading, a measurement to be kept) runs in the node's own task group and comes back as an event.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from heliosd.adapters import Adapters
from heliosd.arrivals import Arrivals
from heliosd.config import Settings
from heliosd.core.claim import Claim
from heliosd.core.lifecycle import State
from heliosd.core.messages import (
    DevicesFound,
    Event,
    Hold,
    LimitsChanged,
    ModelsChanged,
    ModelsWanted,
    PeersChanged,
    ReplicaBecameReady,
    ReplicaExited,
    ReplicaSlept,
    ReplicaWoke,
    Wanted,
)
from heliosd.core.names import ModelRef, PeerName, ReplicaId, Ticket
from heliosd.core.peer_news import PeerNews
from heliosd.core.scheduler import Scheduler
from heliosd.core.snapshot import Snapshot
from heliosd.demands import Demands
from heliosd.devices.probe import Probe
from heliosd.engines.engine import Engine, EngineKind
from heliosd.engines.pool import Pool
from heliosd.estimation.known import Known
from heliosd.explain import Facts, facts
from heliosd.foresight import Foresight
from heliosd.lease import Judgement, Lease, LocalLease, StartSoFar
from heliosd.node.answers import Answers
from heliosd.node.changes import Changes
from heliosd.node.draining import Draining
from heliosd.node.hourly import Hourly
from heliosd.node.judging import Judging
from heliosd.node.launching import Launching
from heliosd.node.leasing import Leasing
from heliosd.node.limits import limits_of
from heliosd.node.loop import Loop
from heliosd.node.measurements import Measurements
from heliosd.node.operating import Operating
from heliosd.node.performing import Performing
from heliosd.node.starts import Starts
from heliosd.node.stopping import Stopping
from heliosd.node.watching import DeviceWatch, StoreWatch
from heliosd.state.drained import DrainedDevices
from heliosd.state.hours import Hours
from heliosd.state.journal import Journal
from heliosd.state.pins import Pins
from heliosd.state.recording import Recording
from heliosd.state.records import Records
from heliosd.state.tier_wishes import TierWishes
from heliosd.state.usage import UsageTable
from heliosd.store.store import Store
from heliosd.store.stored import StoredModel
from heliosd.telemetry.metrics import Metrics
from heliosd.tiering import Tiering
from heliosd.wanted import WantedModels

if TYPE_CHECKING:
    from heliosd.metering import Metering
    from heliosd.telemetry.traces import Traces

_ON_THE_WAY_UP = (State.FETCHING, State.STARTING, State.WAKING)


class Node:
    """Owner of the scheduler and its inbox, and of the parts that do what it says."""

    def __init__(
        self,
        store: Store,
        probe: Probe,
        journal: Journal,
        records: Records,
        demands: Demands,
        pool: Pool,
        metrics: Metrics,
        settings: Settings,
        log_dir: Path,
        inbox: asyncio.Queue[Event],
        pins: Pins,
        drained: DrainedDevices,
        host_total_bytes: int = 0,
        recording: Recording | None = None,
        usage: UsageTable | None = None,
        tier_wishes: TierWishes | None = None,
        traces: "Traces | None" = None,
        metering: "Metering | None" = None,
        hours: Hours | None = None,
    ) -> None:
        """`inbox` is where the pool reports to, and everybody else through `post`. `host_total_bytes`: the machine's
        RAM, of which sleepers may hold a part. Without `usage` nothing is known of earlier lives; without `tier_wishes`
        models stay in the tier where they are; without `traces` requests are not traced; without `metering` nobody's
        use is metered; without `hours` nobody counts what each hour wants."""
        spans = traces.node if traces else None
        self._store = store
        self._probe = probe
        self._journal = journal
        self._demands = demands
        self._pool = pool
        self._settings = settings
        self._host_total_bytes = host_total_bytes
        self._inbox = inbox
        self._recording = recording
        self._peer_holds: tuple[tuple[PeerName, tuple[str, ...]], ...] = ()
        self._peer_news: tuple[PeerNews, ...] = ()
        self._devices_known = asyncio.Event()
        post, now = self.post, self.now
        current: Callable[[], Settings] = lambda: self._settings  # noqa: E731
        scheduler = self._scheduler = Scheduler(limits_of(settings, host_total_bytes))
        self.wanted = WantedModels(pins, demands, current)
        self._foresight = Foresight(usage, records, demands, scheduler, post, now) if usage else None
        self.tiering = (
            Tiering(store, tier_wishes, scheduler, journal, metrics, post, now, traces) if tier_wishes else None
        )
        self._hourly = Hourly(hours, scheduler, metrics) if hours else None
        self._changes = Changes()
        answers = Answers(pool.engine, metrics, now)
        adapters = Adapters(store, journal, metrics, now)
        arrivals = self._arrivals = Arrivals(scheduler.usage, journal, now)
        self._leasing = Leasing(demands, adapters, answers, current, post, now, arrivals, self._at_peers, spans)
        starts = self._starts = Starts(scheduler, journal, metrics, post, now, arrivals.before)
        tier_of = self.tiering.tier_of if self.tiering else None
        self._launching = Launching(scheduler, pool, store, adapters, starts, current, log_dir, tier_of, spans)
        measurements = Measurements(scheduler, pool, records, demands, metrics, starts)
        performing = Performing(pool, answers, self._launching, metrics)
        self._loop = Loop(
            scheduler, inbox, journal, recording, answers, starts, measurements, performing, now, spans, metering
        )
        self._judging = Judging(scheduler, demands, store, now)
        self._stopping = Stopping(scheduler, store, self._changes, inbox, now)
        self.draining = Draining(scheduler, self._changes, drained, self.wanted.retell, post, now)
        self.operator = Operating(
            scheduler,
            store,
            demands,
            journal,
            self._stopping,
            self._changes,
            post,
            now,
            self.new_ticket,
            lambda: self._settings.queue.timeout_s,
        )
        self._devices = DeviceWatch(scheduler, pool, probe, journal, host_total_bytes, current, post, now)
        self._models = StoreWatch(store, current, post, now)

    # ---- what others ask -------------------------------------------------------

    @property
    def accepting(self) -> bool:
        """Devices are known and the node is not on its way down."""
        return self._devices_known.is_set() and not self._scheduler.draining

    @property
    def starting(self) -> bool:
        """An engine is on its way up, and somebody may wait for it."""
        return any(replica.state in _ON_THE_WAY_UP for replica in self._scheduler.replicas.values())

    @property
    def calm(self) -> bool:
        """Nobody waits, no engine is on its way up, and the node is not on its way down."""
        return self.accepting and not self.starting and not self._scheduler.queue

    @property
    def idle(self) -> bool:
        """Besides, nobody is served."""
        return self.calm and not any(replica.leases for replica in self._scheduler.replicas.values())

    @property
    def shell_room_bytes(self) -> int:
        """Host memory that processes made ahead may hold, all together."""
        return self._scheduler.ledger.shell_room_bytes

    def new_ticket(self) -> Ticket:
        return Ticket(f"t-{secrets.token_hex(8)}")

    @asynccontextmanager
    async def lease(
        self,
        ticket: Ticket,
        ref: ModelRef,
        *,
        claim: Claim | None = None,
        deadline_s: float | None = None,
        forwarded: bool = False,
        told: Callable[[Hold], None] | None = None,
    ) -> AsyncIterator[Lease]:
        """Wait for a replica of `ref`, and give it back however the caller leaves.

        Who asks while the node is still looking for its devices is held, not refused.

        `told` is called on the event loop with each `Hold` while the request waits. `deadline_s` shortens the time
        that a request may wait and never lengthens it.

        Raises NotFound for a model nobody has, CannotFit, EngineFailed with the engine's own words, and Unavailable
        when the node drains, the queue is full or the deadline has passed.
        """
        await self._devices_known.wait()
        async with self._leasing.lease(ticket, ref, claim or Claim(), deadline_s, forwarded, told) as lease:
            yield lease

    async def load(self, ref: ModelRef) -> ReplicaId:
        """Start a replica unless there is one; returns when it is ready. Raises as `lease` does."""
        async with self.lease(self.new_ticket(), ref, forwarded=True) as lease:
            assert isinstance(lease, LocalLease), "what must not be forwarded is served here or refused"
            return lease.replica

    async def stop(self, subject: str) -> tuple[ReplicaId, ...]:
        """Drain and stop a replica, or all of a model; returns when their memory is free. Raises NotFound."""
        return await self._stopping.stop(subject)

    async def sleep(self, subject: str) -> tuple[ReplicaId, ...]:
        """Put a replica, or all of a model, to sleep; returns when they sleep. Raises NotFound and Conflict."""
        return await self._stopping.sleep(subject)

    async def drain(self, deadline_s: float) -> None:
        """Take no new requests, finish the old, stop all replicas; returns then, or when the deadline has passed."""
        await self._stopping.drain(deadline_s)

    async def judge(
        self,
        ref: ModelRef,
        *,
        kv_cache_bytes: int | None = None,
        max_model_len: int | None = None,
        max_num_seqs: int | None = None,
    ) -> Judgement:
        """Say what a replica would take and whether it is to be had, without starting anything. Raises NotFound."""
        await self._devices_known.wait()
        return await self._judging.stored(
            ref, kv_cache_bytes=kv_cache_bytes, max_model_len=max_model_len, max_num_seqs=max_num_seqs
        )

    async def judge_unstored(self, prospect: StoredModel, known: Known) -> Judgement:
        """The same for a model that the store does not have yet. Raises BadRequest when its settings contradict."""
        await self._devices_known.wait()
        return await self._judging.unstored(prospect, known)

    def facts(self, subject: str) -> Facts:
        """What the scheduler knows of a ticket, a replica or a model."""
        return facts(self._scheduler, subject, self.now())

    def snapshot(self) -> Snapshot:
        seen = self._scheduler.snapshot(self.now())
        return replace(seen, waiting=(*seen.waiting, *self._arrivals.waiting(len(seen.waiting))))

    def engine(self, replica: ReplicaId) -> Engine | None:
        return self._pool.engine(replica)

    @property
    def engine_kinds(self) -> Mapping[str, EngineKind]:
        """The engines this node can start, by name: `vllm cuda`, `simulated`. GPUs and their slices share one."""
        return self._pool.named_kinds()

    def log_file(self, replica: ReplicaId) -> Path:
        """Where a replica's own output goes, also after its end."""
        return self._launching.log_file(replica)

    def answered(self, replica: ReplicaId, asked_at: float, first_byte_at: float) -> None:
        """An engine has answered a request."""
        self._starts.answered(replica, asked_at, first_byte_at)

    def start_so_far(self, replica: ReplicaId) -> StartSoFar | None:
        """The start of a replica that is there, under way or over; None for others."""
        return self._starts.so_far(replica)

    async def changed(self, since: int) -> int:
        """Wait until something changed after version `since` (start with -1); returns the version then."""
        return await self._changes.after(since)

    # ---- what others tell ------------------------------------------------------

    def reconfigure(self, settings: Settings) -> None:
        """Take over settings that may change while running."""
        self._settings = self._demands.settings = settings
        keep_alives = tuple(
            (replica.id, settings.for_model(replica.demand.model).keep_alive_s)
            for replica in self._scheduler.replicas.values()
        )
        self._forget_demands()
        self.post(LimitsChanged(self.now(), limits_of(settings, self._host_total_bytes), keep_alives))

    def store_changed(self) -> None:
        """A model was added, removed or renamed."""
        self._models.changed()
        self._forget_demands()
        self.post(ModelsChanged(self.now()))

    def _forget_demands(self) -> None:
        self._demands.forget()
        self.wanted.changed()
        if self._foresight:
            self._foresight.changed()

    def peers_changed(self, holds: Mapping[PeerName, frozenset[str]]) -> None:
        """What the live peers hold."""
        self._peer_holds = tuple((peer, tuple(sorted(models))) for peer, models in sorted(holds.items()))
        self.post(PeersChanged(self.now(), self._peer_holds, self._peer_news))

    def _at_peers(self, model: str) -> bool:
        return any(model in models for _, models in self._peer_holds)

    def peers_told(self, news: tuple[PeerNews, ...]) -> None:
        """How busy the live peers are."""
        self._peer_news = news
        self.post(PeersChanged(self.now(), self._peer_holds, news))

    # ---- what runs -------------------------------------------------------------

    def now(self) -> float:
        """Seconds on the node's monotonic clock."""
        return asyncio.get_running_loop().time()

    def post(self, event: Event) -> None:
        """Tell the scheduler what happened; never blocks."""
        self._inbox.put_nowait(event)

    def _tell_wanted(self, wanted: tuple[Wanted, ...]) -> None:
        self.post(ModelsWanted(self.now(), wanted))

    async def run(self) -> None:
        """Serve until cancelled; then all engines have ended."""
        try:
            await self._run()
        finally:
            if self._foresight:
                await self._foresight.end()
            if self._hourly:
                await self._hourly.keep_now()

    def _listen(self) -> None:
        """Be told what others see happen."""
        self._store.watch = self._arrivals.watch
        if self.tiering:
            self.tiering.staged = self._arrivals.preparations.staged
        self._demands.at_once = lambda model: self._scheduler.usage.expected_at_once(model, self.now())

    async def _run(self) -> None:
        self._listen()
        async with asyncio.TaskGroup() as tasks:
            devices = await self._probe.devices()
            self._demands.devices = devices
            self._demands.forget()
            self._scheduler.number_after(await self._journal.last_replica())
            if self._recording:
                self._recording.begin(self._scheduler)
            tasks.create_task(self.wanted.follow(self._tell_wanted), name="wanted models")
            tasks.create_task(self._models.follow(), name="known models")
            if self._foresight:
                await self._foresight.begin()
            self.post(DevicesFound(self.now(), devices))
            await self.draining.begin()
            if self._foresight:
                tasks.create_task(self._foresight.keep(), name="keep usage")
                tasks.create_task(self._foresight.run(), name="foresee")
            if self._hourly:
                tasks.create_task(self._hourly.keep(), name="keep hours")
            tasks.create_task(self._devices.read(), name="read devices")
            tasks.create_task(self._devices.heed_faults(), name="watch faults")
            if self.tiering:
                tasks.create_task(self.tiering.run(), name="tiers")
            while True:
                event = await self._loop.next_event()
                self._loop.handle(event, tasks)
                self._happened(event)

    def _happened(self, event: Event) -> None:
        """The scheduler has taken it in."""
        if isinstance(event, DevicesFound):
            self._devices_known.set()
            self.wanted.changed()
        if isinstance(event, ReplicaBecameReady | ReplicaSlept | ReplicaWoke | ReplicaExited):
            self._devices.read_now()
        if self.tiering:
            self.tiering.happened(event)
        if self._hourly:
            self._hourly.happened(event)
        self._changes.note()
