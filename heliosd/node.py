"""The node: carries events to the scheduler and its commands to the world, and is the only caller of either.

Slow work (a launch, a reading, a measurement to be kept) runs in the node's own task group and comes back as an event.
"""

import asyncio
import logging
import secrets
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import assert_never

from heliosd.adapters import Adapters
from heliosd.config import Settings
from heliosd.core.adapters import with_room
from heliosd.core.claim import Claim
from heliosd.core.hardware import HostReading
from heliosd.core.lifecycle import State
from heliosd.core.messages import (
    Command,
    DevicesFound,
    DevicesRead,
    DrainAsked,
    DrainReplica,
    Event,
    Footprint,
    Forward,
    Grant,
    Hold,
    Limits,
    LimitsChanged,
    ModelsChanged,
    ModelsKnown,
    ModelsWanted,
    Note,
    PeersChanged,
    RefusalCode,
    Refuse,
    ReplicaBecameReady,
    ReplicaExited,
    ReplicaProgressed,
    ReplicaSlept,
    ReplicaWoke,
    RequestArrived,
    RequestReleased,
    SleepAsked,
    SleepReplica,
    StartReplica,
    StopAsked,
    StopReplica,
    Tick,
    WakeReplica,
    Wanted,
)
from heliosd.core.names import DeviceId, Digest, ModelRef, PeerName, ReplicaId, Ticket
from heliosd.core.peer_news import PeerNews
from heliosd.core.placement import Fits, MustWait, NeverFits, place
from heliosd.core.rooms import expected
from heliosd.core.scheduler import Scheduler
from heliosd.core.snapshot import Snapshot
from heliosd.core.timeline import Span, Timeline, as_rows
from heliosd.demands import Appraisal, Demands
from heliosd.devices import ram
from heliosd.devices.probe import Probe
from heliosd.engine_arguments import chosen_args
from heliosd.engines.engine import Engine, EngineKind, LaunchSpec
from heliosd.engines.loader_formats import HELIOS
from heliosd.engines.pool import Pool
from heliosd.engines.start_clock import StartClock
from heliosd.errors import Conflict, EngineFailed, HeliosError, NotFound
from heliosd.estimation.known import Known
from heliosd.explain import Facts, facts
from heliosd.foresight import Foresight
from heliosd.lease import Judgement, Lease, LocalLease, PeerLease, StartSoFar, refusal_error
from heliosd.narrate import command_entry, event_entry
from heliosd.state.journal import Journal
from heliosd.state.pins import Pins
from heliosd.state.recording import Recording
from heliosd.state.records import Measurement, Records
from heliosd.state.tier_wishes import TierWishes
from heliosd.state.usage import UsageTable
from heliosd.store.store import Store
from heliosd.store.stored import StoredModel
from heliosd.telemetry.metrics import Metrics
from heliosd.tiering import Tiering
from heliosd.wanted import WantedModels

log = logging.getLogger("heliosd.node")

_READ_RECIPES = (HELIOS, "dummy")
"""Load formats that take files which the store keeps in pieces, or none; all others read whole files."""
_ON_THE_WAY_UP = (State.FETCHING, State.STARTING, State.WAKING)
_ON_THE_WAY_TO_SLEEP = (State.READY, State.DRAINING, State.SLEEPING)


class Node:
    """Owner of the scheduler, of the requests that wait for it, and of the tasks that do what it says."""

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
        host_total_bytes: int = 0,
        recording: Recording | None = None,
        usage: UsageTable | None = None,
        tier_wishes: TierWishes | None = None,
    ) -> None:
        """`inbox` is where the pool reports to, and everybody else through `post`. `host_total_bytes`: the machine's
        RAM, of which sleepers may hold a part. Without `usage` nothing is known of earlier lives; without `tier_wishes`
        models stay in the tier where they are."""
        self._store = store
        self._probe = probe
        self._journal = journal
        self._records = records
        self._demands = demands
        self._pool = pool
        self._metrics = metrics
        self._settings = settings
        self._log_dir = log_dir
        self._host_total_bytes = host_total_bytes
        self._scheduler = Scheduler(self._limits())
        self.wanted = WantedModels(pins, demands, lambda: self._settings)
        self._adapters = Adapters(store, journal, metrics, self.now)
        self._inbox = inbox
        self._recording = recording
        self._foresight = Foresight(usage, records, demands, self._scheduler, self.post, self.now) if usage else None
        self.tiering = (
            Tiering(store, tier_wishes, self._scheduler, journal, metrics, self.post, self.now) if tier_wishes else None
        )
        self._answers: dict[Ticket, asyncio.Future[Lease]] = {}
        self._models: dict[str, str] = {}
        self._peer_holds: tuple[tuple[PeerName, tuple[str, ...]], ...] = ()
        self._peer_news: tuple[PeerNews, ...] = ()
        self._clocks: dict[ReplicaId, StartClock] = {}
        """Of the starts of replicas that are there."""
        self._first_words: dict[ReplicaId, Span] = {}
        """Of them, where somebody waited for the start: from ready to the first byte of an answer."""
        self._told: dict[Ticket, Callable[[Hold], None]] = {}
        self._read_now = asyncio.Event()
        self._store_moved = asyncio.Event()
        self._version = 0
        self._bumped = asyncio.Event()
        self._devices_known = asyncio.Event()

    # ---- what others ask -------------------------------------------------------

    @property
    def accepting(self) -> bool:
        """Devices are known and the node is not on its way down."""
        return self._devices_known.is_set() and not self._scheduler.draining

    @property
    def starting(self) -> bool:
        """An engine is on its way up, and somebody may wait for it."""
        return any(replica.state in _ON_THE_WAY_UP for replica in self._scheduler.replicas.values())

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
        appraisal = await self._demands.of(ref)
        model = str(appraisal.stored.ref) if appraisal else str(ref)
        answer: asyncio.Future[Lease] = asyncio.get_running_loop().create_future()
        self._answers[ticket] = answer
        self._models[ticket] = model
        if told is not None:
            self._told[ticket] = told
        now, timeout_s = self.now(), self._settings.queue.timeout_s
        deadline_at = now + (timeout_s if deadline_s is None else min(deadline_s, timeout_s))
        terms = (claim or Claim()).terms(self._settings.for_model(model).priority)
        demand = appraisal.demand if appraisal else None
        self.post(RequestArrived(now, ticket, model, demand, deadline_at, forwarded, terms))
        try:
            granted = await self._answered(answer, now)
            if isinstance(granted, PeerLease):
                granted = replace(granted, terms=terms, left_s=max(0.0, deadline_at - self.now()))
            elif appraisal is not None and appraisal.stored.adapter is not None:
                await self._adapters.bring(granted.replica, granted.engine, appraisal.stored)
            yield granted
        except NotFound as error:
            raise (await self._demands.unknown(ref)) if error.code == RefusalCode.UNKNOWN_MODEL else error from None
        finally:
            del self._answers[ticket], self._models[ticket]
            self._told.pop(ticket, None)
            self.post(RequestReleased(self.now(), ticket))

    async def _answered(self, answer: asyncio.Future[Lease], since: float) -> Lease:
        """The answer; the wait since then is counted under what became of it."""
        outcome = "left"
        try:
            lease = await answer
            outcome = "forwarded" if isinstance(lease, PeerLease) else "granted"
            return lease
        except HeliosError as error:
            outcome = error.code
            raise
        finally:
            self._metrics.waited(outcome, self.now() - since)

    async def load(self, ref: ModelRef) -> ReplicaId:
        """Start a replica unless there is one; returns when it is ready. Raises as `lease` does."""
        async with self.lease(self.new_ticket(), ref, forwarded=True) as lease:
            assert isinstance(lease, LocalLease), "what must not be forwarded is served here or refused"
            return lease.replica

    async def stop(self, subject: str) -> tuple[ReplicaId, ...]:
        """Drain and stop a replica, or all of a model; returns when their memory is free. Raises NotFound."""
        chosen = await self._named(subject, "stop")
        for replica in chosen:
            self.post(StopAsked(self.now(), replica))
        await self._until_gone(frozenset(chosen))
        return chosen

    async def sleep(self, subject: str) -> tuple[ReplicaId, ...]:
        """Put a replica, or all of a model, to sleep; returns when they sleep, their leases over.

        Raises NotFound, and Conflict when an engine cannot sleep or ended instead.
        """
        chosen = await self._named(subject, "put to sleep")
        for replica in chosen:
            if why := self._scheduler.sleepless(replica, self.now()):
                raise Conflict(f"cannot put {replica} to sleep: {why}", code="cannot_sleep")
            self.post(SleepAsked(self.now(), replica))
        running = self._scheduler.replicas
        while any(each in running and running[each].state in _ON_THE_WAY_TO_SLEEP for each in chosen):
            await self.changed(self._version)
            for each in chosen:
                if each in running and running[each].state is State.READY and not self._inbox.qsize():
                    why = self._scheduler.sleepless(each, self.now()) or "it went on to serve"
                    raise Conflict(f"cannot put {each} to sleep: {why}", code="cannot_sleep")
        if awake := [each for each in chosen if each not in running or running[each].state is not State.ASLEEP]:
            why = "it ended, or a request woke it at once; `heliosctl explain` tells"
            raise Conflict(f"cannot put {', '.join(awake)} to sleep: {why}", code="cannot_sleep")
        return chosen

    async def _named(self, subject: str, doing: str) -> tuple[ReplicaId, ...]:
        """The replicas of that id, model or alias. Raises NotFound."""
        running = self._scheduler.replicas
        stored = await self._store.by_name(subject)
        model = subject if stored is None else str(stored.ref)
        chosen = tuple(each.id for each in running.values() if each.id == subject or each.demand.model == model)
        if not chosen:
            why = "no replica runs under that name"
            if stored is not None and stored.adapter is not None:
                why = f"it is an adapter, served by the replicas of {stored.adapter.base}; name those"
            raise NotFound(f"cannot {doing} {subject}: {why}", code="replica_not_found")
        return chosen

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
        stored = await self._store.find(ref)
        if stored is None:
            raise await self._demands.unknown(ref)
        appraisal = await self._demands.appraise(
            stored, kv_cache_bytes=kv_cache_bytes, max_model_len=max_model_len, max_num_seqs=max_num_seqs
        )
        return self._judgement(appraisal, await self._store.known(appraisal.base))

    async def judge_unstored(self, prospect: StoredModel, known: Known) -> Judgement:
        """The same for a model that the store does not have yet. Raises BadRequest when its settings contradict."""
        await self._devices_known.wait()
        return self._judgement(await self._demands.appraise(prospect, known=known), known)

    def _judgement(self, appraisal: Appraisal, known: Known) -> Judgement:
        replicas = self._scheduler.replicas.values()
        ready = next((each for each in replicas if each.serves(appraisal.demand) and each.state is State.READY), None)
        if ready is not None:
            verdict, reason = "ready", f"{ready.id} is ready on {', '.join(ready.devices)}"
        else:
            match place(appraisal.demand, self._scheduler.ledger, self._scheduler.residents.at(self.now())):
                case Fits(reason=reason):
                    verdict = "fits"
                case MustWait(reason=reason):
                    verdict = "must_wait"
                case NeverFits(reason=reason):
                    verdict = "never_fits"
        predicted = appraisal.estimate
        return Judgement(
            model=str(appraisal.stored.ref),
            per_device=predicted.per_device,
            device_count=predicted.device_count,
            max_model_len=predicted.max_model_len,
            kv_tokens=predicted.kv_tokens,
            kv_bytes_per_token=predicted.kv_bytes_per_token,
            verdict=verdict,
            reason=reason,
            notes=predicted.notes,
            accounts=predicted.accounts,
            launch=predicted.launch,
            read=known.model,
            pipeline_parallel=predicted.pipeline_parallel,
        )

    def facts(self, subject: str) -> Facts:
        """What the scheduler knows of a ticket, a replica or a model."""
        return facts(self._scheduler, subject, self.now())

    def snapshot(self) -> Snapshot:
        return self._scheduler.snapshot(self.now())

    def engine(self, replica: ReplicaId) -> Engine | None:
        return self._pool.engine(replica)

    @property
    def engine_kinds(self) -> Mapping[str, EngineKind]:
        """The engines this node can start, by name: `vllm cuda`, `simulated`. GPUs and their slices share one."""
        named: dict[EngineKind, str] = {}
        for device, kind in self._pool.kinds.items():
            module = type(kind).__module__.rpartition(".")[2]
            named.setdefault(kind, " ".join(dict.fromkeys((module, str(device)))))
        return {name: kind for kind, name in named.items()}

    def log_file(self, replica: ReplicaId) -> Path:
        """Where a replica's own output goes, also after its end."""
        return self._log_dir / f"{replica}.log"

    async def changed(self, since: int) -> int:
        """Wait until something changed after version `since` (start with -1); returns the version then."""
        while self._version == since:
            await self._bumped.wait()
        return self._version

    def reconfigure(self, settings: Settings) -> None:
        """Take over settings that may change while running."""
        self._settings = self._demands.settings = settings
        self._demands.forget()
        self.wanted.changed()
        keep_alives = tuple(
            (replica.id, settings.for_model(replica.demand.model).keep_alive_s)
            for replica in self._scheduler.replicas.values()
        )
        self.post(LimitsChanged(self.now(), self._limits(), keep_alives))
        if self._foresight:
            self._foresight.changed()

    def store_changed(self) -> None:
        """A model was added, removed or renamed."""
        self._demands.forget()
        self.wanted.changed()
        self._store_moved.set()
        self.post(ModelsChanged(self.now()))
        if self._foresight:
            self._foresight.changed()

    def peers_changed(self, holds: Mapping[PeerName, frozenset[str]]) -> None:
        """What the live peers hold."""
        self._peer_holds = tuple((peer, tuple(sorted(models))) for peer, models in sorted(holds.items()))
        self.post(PeersChanged(self.now(), self._peer_holds, self._peer_news))

    def peers_told(self, news: tuple[PeerNews, ...]) -> None:
        """How busy the live peers are."""
        self._peer_news = news
        self.post(PeersChanged(self.now(), self._peer_holds, news))

    async def drain(self, deadline_s: float) -> None:
        """Take no new requests, finish the old, stop all replicas; returns then, or when the deadline has passed."""
        self.post(DrainAsked(self.now()))
        try:
            async with asyncio.timeout(deadline_s):
                while not self._scheduler.draining:
                    await self.changed(self._version)
                await self._until_gone(frozenset(self._scheduler.replicas))
        except TimeoutError:
            left = {each.id: len(each.leases) for each in self._scheduler.replicas.values()}
            log.warning("drain deadline passed", extra={"seconds": deadline_s, "leases": left})

    # ---- the loop --------------------------------------------------------------

    def now(self) -> float:
        """Seconds on the node's monotonic clock."""
        return asyncio.get_running_loop().time()

    def post(self, event: Event) -> None:
        """Tell the scheduler what happened; never blocks."""
        self._inbox.put_nowait(event)

    async def run(self) -> None:
        """Serve until cancelled; then all engines have ended."""
        try:
            await self._run()
        finally:
            if self._foresight:
                await self._foresight.end()

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            devices = await self._probe.devices()
            self._demands.devices = devices
            self._demands.forget()
            self._scheduler.number_after(await self._journal.last_replica())
            if self._recording:
                self._recording.begin(self._scheduler)
            tasks.create_task(self.wanted.follow(self._tell_wanted), name="wanted models")
            tasks.create_task(self._follow_store(), name="known models")
            if self._foresight:
                await self._foresight.begin()
            self.post(DevicesFound(self.now(), devices))
            if self._foresight:
                tasks.create_task(self._foresight.keep(), name="keep usage")
                tasks.create_task(self._foresight.run(), name="foresee")
            tasks.create_task(self._read_devices(), name="read devices")
            tasks.create_task(self._watch_faults(), name="watch faults")
            if self.tiering:
                tasks.create_task(self.tiering.run(), name="tiers")
            while True:
                self._handle(await self._next_event(), tasks)

    async def _next_event(self) -> Event:
        """The next thing that happened, or a `Tick` when the time comes that the scheduler waits for."""
        wakeup = self._scheduler.next_wakeup
        try:
            async with asyncio.timeout_at(wakeup):
                return await self._inbox.get()
        except TimeoutError:
            return Tick(self.now())

    def _handle(self, event: Event, tasks: asyncio.TaskGroup) -> None:
        event_entry(self._journal, event, self._scheduler, self._timeline(event))
        self._count(event)
        if isinstance(event, ReplicaBecameReady):
            tasks.create_task(self._keep_measurement(event), name=f"measure {event.replica}")
        if isinstance(event, ReplicaExited):
            self._clocks.pop(event.replica, None)
            self._first_words.pop(event.replica, None)
        for command in self._decide(event):
            command_entry(self._journal, command, self._scheduler, self._models)
            self._perform(command, tasks)
        if isinstance(event, DevicesFound):
            self._devices_known.set()
            self.wanted.changed()
        if isinstance(event, ReplicaBecameReady | ReplicaSlept | ReplicaWoke | ReplicaExited):
            self._read_now.set()
        if self.tiering:
            self.tiering.happened(event)
        self._bump()

    def _decide(self, event: Event) -> list[Command]:
        """Ask the scheduler, and keep what it answered for replay: above all the event that it fails on."""
        commands: list[Command] | None = None
        try:
            commands = self._scheduler.handle(event)
        finally:
            if self._recording:
                self._recording.note(self._scheduler, event, commands)
        return commands

    def _timeline(self, event: Event) -> Timeline | None:
        """Of the start that the event tells of."""
        clock = self._clocks.get(event.replica) if isinstance(event, ReplicaBecameReady) else None
        return clock.timeline(event.at) if clock else None

    def _progressed(self, replica: ReplicaId, phase: str) -> None:
        self.post(ReplicaProgressed(self.now(), replica, phase))

    def _clock(self, replica: ReplicaId) -> StartClock:
        """Of a start that was decided on; phases may be marked in any thread."""
        loop, started_at = asyncio.get_running_loop(), self._scheduler.replicas[replica].started_at

        def tell(phase: str) -> None:
            with suppress(RuntimeError):  # the loop has ended; the start is about to
                loop.call_soon_threadsafe(self._progressed, replica, phase)

        clock = self._clocks[replica] = StartClock(started_at, tell, loop.time)
        return clock

    def answered(self, replica: ReplicaId, asked_at: float, first_byte_at: float) -> None:
        """An engine has answered a request. The first answer to whoever waited for the start belongs to the start."""
        there = self._scheduler.replicas.get(replica)
        if there is None or there.ready_at is None or replica in self._first_words or asked_at > there.ready_at:
            return
        began_s, ended_s = there.ready_at - there.started_at, first_byte_at - there.started_at
        span = self._first_words[replica] = Span("first_token", round(began_s, 4), round(ended_s, 4))
        self._metrics.first_token(span.took_s)
        text = f"{replica} gave its first word {ended_s:.2f} s after the decision to start it"
        detail: dict[str, object] = {"timeline": as_rows([span])}
        self._journal.note("first_token", text, replica=replica, model=there.demand.model, detail=detail)

    def start_so_far(self, replica: ReplicaId) -> StartSoFar | None:
        """The start of a replica that is there, under way or over; None for others."""
        there, clock = self._scheduler.replicas.get(replica), self._clocks.get(replica)
        if there is None or clock is None:
            return None
        starting = there.state is State.STARTING
        known = expected(self._scheduler.usage, there.demand) if starting and not there.swapped else None
        since_s = self.now() - (there.started_at if there.progressed_at is None else there.progressed_at)
        told = clock.timeline(self.now() if starting else there.ready_at)
        first = self._first_words.get(replica)
        return StartSoFar(
            timeline=Timeline((*told.spans, first), first.ended_s) if first else told,
            starting=starting,
            age_s=self.now() - there.started_at,
            expected=known.phases if known else (),
            left_s=known.left_s(there.phases_done, since_s) if known else None,
        )

    def _count(self, event: Event) -> None:
        replica = (
            self._scheduler.replicas.get(event.replica)
            if isinstance(event, ReplicaBecameReady | ReplicaExited)
            else None
        )
        if replica is None:
            return
        if isinstance(event, ReplicaBecameReady):
            engine = self.engine(replica.id)
            timeline = self._timeline(event)
            phases = timeline.seconds() if timeline else engine.phases if engine else {}
            self._metrics.replica_started(replica.demand.model, phases, swapped=replica.swapped)
        elif isinstance(event, ReplicaExited) and event.cause is not None:
            self._metrics.replica_failed(replica.demand.model)

    def _perform(self, command: Command, tasks: asyncio.TaskGroup) -> None:
        name = type(command).__name__.removesuffix("Replica").lower()
        self._metrics.decided(name, command.code if isinstance(command, Refuse) else "")
        match command:
            case Grant(ticket, replica):
                self._grant(ticket, replica)
            case Forward(ticket, peer):
                self._answer(ticket, PeerLease(ticket, self._models.get(ticket, ""), peer))
            case Refuse(ticket):
                self._answer(ticket, refusal_error(command))
            case StartReplica(replica, demand, devices, reason):
                start = {"replica": replica, "model": demand.model, "devices": "+".join(devices), "reason": reason}
                log.info("start replica", extra=start)
                self._pool.expect(replica)
                tasks.create_task(self._launch(command), name=f"replica {replica}")
            case DrainReplica(replica, reason):
                log.info("drain replica", extra={"replica": replica, "reason": reason})
            case StopReplica(replica):
                self._pool.stop(replica)
            case SleepReplica(replica, level, reason):
                log.info("put replica to sleep", extra={"replica": replica, "sleep_level": level, "reason": reason})
                self._pool.sleep(replica, level)
            case WakeReplica(replica, reason):
                log.info("wake replica", extra={"replica": replica, "reason": reason})
                self._pool.wake(replica)
            case Note(subject, reason, warning):
                log.log(logging.WARNING if warning else logging.INFO, reason, extra={"subject": subject})
            case Hold(ticket):
                if tell := self._told.get(ticket):
                    tell(command)
            case _:
                assert_never(command)

    def _grant(self, ticket: Ticket, replica: ReplicaId) -> None:
        engine = self.engine(replica)
        model = self._models.get(ticket, "")
        if engine is None:  # it died in the same moment; its exit is in the inbox
            ended = f"cannot use {replica} of {model}: it has just ended; ask again"
            self._answer(ticket, EngineFailed(ended, replica=replica))
        else:
            self._answer(ticket, LocalLease(ticket, model, replica, engine))

    def _answer(self, ticket: Ticket, answer: Lease | HeliosError) -> None:
        future = self._answers.get(ticket)
        if future is None or future.done():
            return
        if isinstance(answer, HeliosError):
            future.set_exception(answer)
        else:
            future.set_result(answer)

    async def _launch(self, command: StartReplica) -> None:
        demand = command.demand
        clock = self._clock(command.replica)
        clock.mark("dispatch")
        settings = self._settings.for_model(demand.model)
        ledger = self._scheduler.ledger
        # Held to the end of the engine: it may read files late, and its ref may mean something else by then.
        async with AsyncExitStack() as used:
            await used.enter_async_context(self._adapters.of(command.replica))
            try:
                whole = settings.engine_args.get("load_format", HELIOS) not in _READ_RECIPES
                directory = await used.enter_async_context(self._store.hold(Digest(demand.revision), whole=whole))
            except (HeliosError, OSError, sqlite3.Error) as error:
                if command.takes_over is not None:
                    self._pool.stop(command.takes_over)
                self._pool.failed(command.replica, str(error))
                return
            clock.mark("resolve")
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
                ),
                takes_over=command.takes_over,
            )

    async def _keep_measurement(self, event: ReplicaBecameReady) -> None:
        replica = self._scheduler.replicas.get(event.replica)
        engine = self.engine(event.replica)
        if replica is None or engine is None:
            return
        kind = self._scheduler.ledger.devices[replica.devices[0]].kind
        demand, basis, timeline = replica.demand, replica.demand.basis, self._timeline(event)
        likely = basis.likely if basis else demand.per_device
        await self._records.add(
            Measurement(
                model=demand.model,
                revision=demand.revision,
                engine=self._demands.engine_name(kind),
                device_kind=kind,
                arguments=demand.arguments,
                predicted=demand.per_device,
                measured=event.measured,
                phases=engine.phases,
                timeline=timeline.spans if timeline and not replica.swapped else (),
                likely=likely,
                architecture=basis.architecture if basis else "",
                device_name=basis.device_name if basis else "",
                tensor_parallel=len(replica.devices) // demand.pipeline_parallel,
                law=basis.law if basis else {},
                features=basis.features if basis else {},
            )
        )
        self._check_estimate(
            replace(likely, kv_cache_bytes=demand.per_device.kv_cache_bytes), demand.per_device, event.measured
        )
        self._demands.measured()

    def _check_estimate(self, likely: Footprint, booked: Footprint, measured: Footprint) -> None:
        """Tell the metrics how near the prediction of a start came."""
        for term in ("weights", "kv_cache", "overhead", "total"):
            name = f"{term}_bytes"
            values = (getattr(likely, name), getattr(measured, name), getattr(booked, name))
            self._metrics.estimate_checked(term, *values)

    def _limits(self) -> Limits:
        return limits_of(self._settings, self._host_total_bytes)

    def _tell_wanted(self, wanted: tuple[Wanted, ...]) -> None:
        self.post(ModelsWanted(self.now(), wanted))

    async def _read_devices(self) -> None:
        """Reconcile the ledger with the devices: on a timer, and after whatever changes what is held."""
        while True:
            self._read_now.clear()
            pids = {replica: tuple(sorted(engine.pids)) for replica, engine in self._pool.engines.items()}
            ours: dict[DeviceId, set[int]] = {}
            for status in self.snapshot().replicas:
                for device in status.devices:
                    ours.setdefault(device, set()).update(pids.get(status.id, ()))
            readings = await self._probe.read({device: frozenset(found) for device, found in ours.items()})
            available = await asyncio.to_thread(ram.available_bytes)
            host = HostReading(self._host_total_bytes, available) if self._host_total_bytes else None
            self.post(DevicesRead(self.now(), readings, tuple(pids.items()), host))
            with suppress(TimeoutError):
                async with asyncio.timeout(self._settings.devices.read_interval_s):
                    await self._read_now.wait()

    async def _follow_store(self) -> None:
        """Tell the scheduler which models there are, at once and after each change."""
        while True:
            self._store_moved.clear()
            sizes = []
            for stored in await self._store.models():
                own = self._settings.for_model(str(stored.ref))
                devices = own.tensor_parallel * (own.pipeline_parallel or 1)
                sizes.append((str(stored.ref), stored.profile.weights_bytes // devices))
            self.post(ModelsKnown(self.now(), tuple(sizes)))
            await self._store_moved.wait()

    async def _watch_faults(self) -> None:
        async for fault in self._probe.faults():
            log.warning("device fault", extra={"device": fault.device, "fault": fault.message, "xid": fault.xid})
            self._journal.note("fault", f"{fault.device}: {fault.message}", detail={"xid": fault.xid})
            self._read_now.set()

    async def _until_gone(self, replicas: frozenset[ReplicaId]) -> None:
        while replicas & self._scheduler.replicas.keys():
            await self.changed(self._version)

    def _bump(self) -> None:
        self._version += 1
        self._bumped.set()
        self._bumped = asyncio.Event()


def limits_of(settings: Settings, host_total_bytes: int = 0) -> Limits:
    """What the operator lets the scheduler do."""
    return Limits(
        overtaking_s=settings.queue.overtaking_s,
        residence_s=settings.pool.residence_s,
        hot_swap=settings.pool.hot_swap,
        sleep=settings.pool.sleep,
        asleep_s=settings.pool.asleep_keep_alive_s,
        host_bytes=settings.pool.host_bytes(host_total_bytes),
        patience_s=settings.queue.patience_s,
        queue_length=settings.queue.length,
        safety_ratio=settings.devices.safety_ratio,
        prefetch_loads=settings.prefetch.max_loads if settings.prefetch.enabled else 0,
        prefetch_horizon_s=settings.prefetch.horizon_s,
    )
