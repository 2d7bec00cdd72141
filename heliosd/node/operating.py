"""Replicas started, moved, limited, woken and sent away on an operator's word: first the plan, then the same done."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from heliosd.core.costs import Cost
from heliosd.core.imagining import imagine
from heliosd.core.lifecycle import COMING, State
from heliosd.core.messages import Demand, Event, LimitAsked, StartAsked
from heliosd.core.names import DeviceId, ModelRef, ReplicaId, Ticket, parse_ref
from heliosd.core.placement import Fits, MustWait, NeverFits, Placement
from heliosd.core.replicas import Replica
from heliosd.core.rooms import takes_s
from heliosd.core.scheduler import Scheduler
from heliosd.demands import Demands
from heliosd.errors import BadRequest, CannotFit, Conflict, EngineFailed, Unavailable
from heliosd.node.changes import Changes
from heliosd.node.stopping import Stopping
from heliosd.state.journal import Journal
from heliosd.store.store import Store


@dataclass(frozen=True, slots=True)
class Wish:
    """How replicas are to be; what is None or empty is left to the configuration and the node."""

    devices: tuple[str, ...] = ()
    max_model_len: int | None = None
    max_num_seqs: int | None = None
    kv_cache_bytes: int | None = None

    @property
    def limits(self) -> bool:
        return any(each is not None for each in (self.max_model_len, self.max_num_seqs, self.kv_cache_bytes))


@dataclass(frozen=True, slots=True)
class Start:
    """One replica more."""

    demand: Demand
    at: Placement
    seconds: float
    wakes: ReplicaId | None = None
    beside: bool = True
    """There is room beside the one that it replaces."""

    @property
    def takes_bytes(self) -> int:
        return self.demand.per_device.total_bytes * self.demand.device_count


@dataclass(frozen=True, slots=True)
class Scaled:
    """What is to be done, or was, to have so many replicas."""

    model: str
    there: tuple[ReplicaId, ...]
    starts: tuple[Start, ...]
    stops: tuple[Cost, ...]


@dataclass(frozen=True, slots=True)
class Limited:
    replica: ReplicaId
    limit: Literal["max_num_seqs", "kv_cache_bytes", "max_model_len"]
    before: int | None
    after: int
    now: bool
    """Its engine need not start again."""


class Operating:
    """Whatever is asked goes through the scheduler, like everything else."""

    def __init__(
        self,
        scheduler: Scheduler,
        store: Store,
        demands: Demands,
        journal: Journal,
        stopping: Stopping,
        changes: Changes,
        post: Callable[[Event], None],
        now: Callable[[], float],
        new_ticket: Callable[[], Ticket],
        patience_s: Callable[[], float],
    ) -> None:
        """`patience_s`: how long room may be waited for."""
        self._scheduler = scheduler
        self._store = store
        self._demands = demands
        self._journal = journal
        self._stopping = stopping
        self._changes = changes
        self._post = post
        self._now = now
        self._new_ticket = new_ticket
        self._patience_s = patience_s
        self._one_at_a_time = asyncio.Lock()

    # ---- plans -----------------------------------------------------------------

    async def costs(self, subject: str, doing: str) -> tuple[Cost, ...]:
        """What sending away a replica, or all of a model, frees and costs. Raises NotFound."""
        return self.costs_of(await self._stopping.named(subject, doing))

    def costs_of(self, replicas: tuple[ReplicaId, ...]) -> tuple[Cost, ...]:
        return tuple(self._scheduler.cost(each, self._now()) for each in replicas if each in self._scheduler.replicas)

    async def plan_scale(self, ref: ModelRef, count: int, wish: Wish) -> Scaled:
        """Raises NotFound, BadRequest for devices that are none, and CannotFit for what can never be had."""
        demand = await self._wanted(ref, wish)
        there = [each for each in self._scheduler.replicas.values() if each.serves(demand)]
        awake = [each for each in there if each.state is State.READY or each.state in COMING]
        asleep = [each for each in there if each.state is State.ASLEEP and not wish.devices and not wish.limits]
        missing = count - len(awake)
        starts: list[Start] = []
        for sleeper in asleep[: max(0, missing)]:
            at = Fits(sleeper.devices, (), f"{sleeper.id} sleeps there")
            starts.append(Start(sleeper.demand, at, takes_s(self._scheduler.usage, demand, asleep=True), sleeper.id))
        fresh = self._imagined(demand, max(0, missing - len(starts)))
        usual_s = takes_s(self._scheduler.usage, demand, asleep=False)
        starts += [Start(demand, at, usual_s) for at in fresh]
        idlest = sorted(awake, key=lambda each: (len(each.leases), each.last_used, each.id))
        surplus = tuple(each.id for each in idlest[: max(0, -missing)])
        return Scaled(demand.model, tuple(each.id for each in awake), tuple(starts), self.costs_of(surplus))

    async def plan_move(self, subject: str, devices: tuple[str, ...]) -> tuple[Cost, Start]:
        """Raises NotFound, BadRequest, CannotFit, and Conflict when it is there already."""
        replica = self._one(await self._stopping.named(subject, "move"), subject)
        if set(replica.devices) <= set(devices):
            raise Conflict(f"cannot move {replica.id}: it is on {', '.join(replica.devices)} already")
        demand = await self._like(replica, Wish(devices))
        return self._scheduler.cost(replica.id, self._now()), self._instead(replica, demand)

    async def plan_limits(self, subject: str, wish: Wish) -> tuple[tuple[Limited, ...], tuple[Start, ...]]:
        """What changes, and the starts that need another engine for it. Raises NotFound, Conflict and CannotFit."""
        changes: list[Limited] = []
        starts: list[Start] = []
        for name in await self._stopping.named(subject, "change the limits of"):
            replica = self._scheduler.replicas[name]
            if replica.state is not State.READY:
                raise Conflict(f"cannot change the limits of {name}: it is {replica.state}; wait until it is ready")
            mine = _limited(replica, wish)
            if any(not each.now for each in mine):
                mine = [replace(each, now=False) for each in mine]
                demand = await self._like(replica, replace(wish, devices=replica.devices))
                starts.append(self._instead(replica, demand))
            changes += mine
        return tuple(changes), tuple(starts)

    # ---- the same, done ----------------------------------------------------------

    async def scale(self, ref: ModelRef, count: int, wish: Wish) -> tuple[tuple[ReplicaId, ...], tuple[ReplicaId, ...]]:
        """Have so many replicas; returns which were started or woken, and which stopped, when they are ready and gone.

        Raises as `plan_scale`, Unavailable when there was no room for as long as a request may wait, and EngineFailed.
        """
        async with self._one_at_a_time:
            plan = await self.plan_scale(ref, count, wish)
            begun = [await self._begin(each.demand, each.wakes) for each in plan.starts]
            ready = [await self._until_ready(each) for each in begun]
            stopped = [each.replica for each in plan.stops]
            for name in stopped:
                await self._stop(name)
            return tuple(ready), tuple(stopped)

    async def wake(self, subject: str) -> tuple[ReplicaId, ...]:
        """Wake a replica, or all of a model. Raises NotFound, and Conflict when none sleeps."""
        asleep = await self.sleepers(subject)
        async with self._one_at_a_time:
            begun = [await self._begin(self._scheduler.replicas[each].demand, each) for each in asleep]
            return tuple([await self._until_ready(each) for each in begun])

    async def sleepers(self, subject: str) -> tuple[ReplicaId, ...]:
        """Those of them that sleep. Raises NotFound, and Conflict when none does."""
        named = await self._stopping.named(subject, "wake")
        states = {each: self._scheduler.replicas[each].state for each in named}
        asleep = tuple(each for each, state in states.items() if state is State.ASLEEP)
        if not asleep:
            said = ", ".join(f"{each} is {state}" for each, state in states.items())
            raise Conflict(f"cannot wake {subject}: {said}", code="not_asleep")
        return asleep

    async def move(self, subject: str, devices: tuple[str, ...]) -> tuple[ReplicaId, ReplicaId]:
        """Have a replica run elsewhere; returns which was stopped and which runs instead. Raises as `plan_move`."""
        async with self._one_at_a_time:
            cost, start = await self.plan_move(subject, devices)
            return cost.replica, await self._swap(cost.replica, start)

    async def limit(self, subject: str, wish: Wish) -> tuple[tuple[Limited, ...], dict[ReplicaId, ReplicaId]]:
        """Change limits; returns what changed, and which replica runs instead of which. Raises as `plan_limits`."""
        async with self._one_at_a_time:
            changes, _ = await self.plan_limits(subject, wish)
            replaced: dict[ReplicaId, ReplicaId] = {}
            for each in changes:
                if each.now:
                    self._post(LimitAsked(self._now(), each.replica, each.after))
                    await self._until(lambda each=each: self._bound(each))  # type: ignore[misc]
                elif each.replica not in replaced and each.replica in self._scheduler.replicas:
                    replica = self._scheduler.replicas[each.replica]
                    demand = await self._like(replica, replace(wish, devices=replica.devices))
                    replaced[each.replica] = await self._swap(each.replica, self._instead(replica, demand))
            return changes, replaced

    async def evict(self, subject: str, to: Literal["auto", "sleep", "stop"]) -> tuple[ReplicaId, ...]:
        """Send a replica, or all of a model, a step down. Raises NotFound, and Conflict for who cannot sleep."""
        costs = await self.costs(subject, "evict")
        for each in costs:
            if to == "sleep" and not each.sleeps and each.state is not State.ASLEEP:
                why = each.sleepless or f"it is {each.state}"
                raise Conflict(f"cannot put {each.replica} to sleep: {why}", code="cannot_sleep")
        for each in costs:
            if to != "stop" and each.sleeps:
                await self._stopping.sleep(each.replica)
            elif to != "sleep":
                await self._stop(each.replica)
        return tuple(each.replica for each in costs)

    # ---- how ---------------------------------------------------------------------

    async def _wanted(self, ref: ModelRef, wish: Wish) -> Demand:
        stored = await self._store.find(ref)
        if stored is None:
            raise await self._demands.unknown(ref)
        appraisal = await self._demands.appraise(
            stored,
            kv_cache_bytes=wish.kv_cache_bytes,
            max_model_len=wish.max_model_len,
            max_num_seqs=wish.max_num_seqs,
        )
        return self._within(appraisal.demand, wish.devices)

    async def _like(self, replica: Replica, wish: Wish) -> Demand:
        """What a replica like this one would take, apart from what is wished."""
        wish = replace(
            wish,
            max_model_len=wish.max_model_len or replica.demand.max_model_len,
            max_num_seqs=wish.max_num_seqs or replica.demand.max_num_seqs,
        )
        return await self._wanted(parse_ref(replica.demand.model), wish)

    def _within(self, demand: Demand, devices: tuple[str, ...]) -> Demand:
        if not devices:
            return demand
        known = self._scheduler.ledger.devices
        if unknown := [each for each in devices if DeviceId(each) not in known]:
            raise BadRequest(
                f"cannot use {', '.join(unknown)}: no such device here; known are: {', '.join(sorted(known))}",
                code="bad_devices",
                param="devices",
            )
        if len(set(devices)) < demand.device_count:
            raise BadRequest(
                f"cannot run {demand.model} on {', '.join(devices)}: it is split over {demand.device_count} devices, "
                f"{len(set(devices))} are named",
                code="bad_devices",
                param="devices",
            )
        return replace(demand, within=frozenset(map(DeviceId, devices)))

    def _one(self, named: tuple[ReplicaId, ...], subject: str) -> Replica:
        if len(named) > 1:
            raise Conflict(f"cannot move {subject}: {len(named)} replicas run, {', '.join(named)}; name one")
        return self._scheduler.replicas[named[0]]

    def _imagined(self, demand: Demand, count: int, gone: ReplicaId | None = None) -> list[Placement]:
        """Where more replicas would go. Raises CannotFit for what can never be had."""
        residents = self._scheduler.residents.at(self._now())
        adjusted = self._scheduler.pool.adjusted(demand)
        found = imagine(adjusted, count, self._scheduler.ledger, residents, gone)
        for at in found:
            if isinstance(at, NeverFits):
                raise CannotFit(f"cannot start {demand.model}: {at.reason}")
        return found

    def _instead(self, replica: Replica, demand: Demand) -> Start:
        """A start in place of a replica: beside it where there is room, else once it has stopped.

        Raises Unavailable where there would be no room even then: it must not stop for nothing.
        """
        seconds = takes_s(self._scheduler.usage, demand, asleep=False)
        at = self._imagined(demand, 1)[0]
        if isinstance(at, Fits) and not at.victims:
            return Start(demand, at, seconds)
        at = self._imagined(demand, 1, gone=replica.id)[0]
        if not isinstance(at, Fits):
            raise Unavailable(f"cannot start another for {replica.id}: {at.reason}", retry_after_s=30.0)
        return Start(demand, at, seconds, beside=False)

    async def _swap(self, old: ReplicaId, start: Start) -> ReplicaId:
        if start.beside:
            new = await self._until_ready(await self._begin(start.demand, None))
            await self._stop(old)
            return new
        await self._stop(old)
        return await self._until_ready(await self._begin(start.demand, None))

    async def _stop(self, replica: ReplicaId) -> None:
        if replica in self._scheduler.replicas:
            await self._stopping.stop(replica)

    async def _begin(self, demand: Demand, sleeper: ReplicaId | None) -> ReplicaId:
        """Start or wake one, once there is room."""
        deadline_at = self._now() + self._patience_s()
        reason = "there is no room"
        try:
            async with asyncio.timeout_at(deadline_at):
                while True:
                    wish = self._new_ticket()
                    self._post(StartAsked(self._now(), demand, wish, sleeper))
                    await self._until(lambda wish=wish: (self._scheduler.wished or ("",))[0] == wish)  # type: ignore[misc]
                    version = self._changes.version
                    if self._scheduler.wished and (begun := self._scheduler.wished[1]) is not None:
                        return begun
                    match self._imagined(demand, 1)[0]:
                        case MustWait(reason=why, out=out) if out:
                            raise Unavailable(f"cannot start {demand.model}: {why}", retry_after_s=30.0)
                        case MustWait(reason=why) | Fits(reason=why):
                            reason = why
                    await self._changes.after(version)
        except TimeoutError:
            raise Unavailable(
                f"cannot start {demand.model}: after {self._patience_s():.0f} s {reason}", retry_after_s=30.0
            ) from None

    async def _until_ready(self, replica: ReplicaId) -> ReplicaId:
        running = self._scheduler.replicas
        await self._until(lambda: replica not in running or running[replica].state not in COMING)
        if replica in running and running[replica].state is State.READY:
            return replica
        await self._journal.flushed()
        ends = await self._journal.read(subject=replica, kinds=("exited", "stop"), limit=1)
        said = ends[-1].message if ends else f"{replica} ended"
        cause = ends[-1].detail.get("cause") if ends else None
        raise EngineFailed(f"cannot have {replica} ready: {said}", cause=cause, replica=replica)

    def _bound(self, change: Limited) -> bool:
        replica = self._scheduler.replicas.get(change.replica)
        return replica is None or replica.pressure.most == change.after

    async def _until(self, so: Callable[[], bool]) -> None:
        while not so():
            await self._changes.after(self._changes.version)


def _limited(replica: Replica, wish: Wish) -> list[Limited]:
    demand = replica.demand
    changes: list[Limited] = []
    if wish.max_num_seqs is not None and wish.max_num_seqs != replica.pressure.most:
        now = wish.max_num_seqs <= demand.max_num_seqs
        changes.append(Limited(replica.id, "max_num_seqs", replica.pressure.most, wish.max_num_seqs, now))
    if wish.kv_cache_bytes is not None and wish.kv_cache_bytes != demand.per_device.kv_cache_bytes:
        before = demand.per_device.kv_cache_bytes
        changes.append(Limited(replica.id, "kv_cache_bytes", before, wish.kv_cache_bytes, False))
    if wish.max_model_len is not None and wish.max_model_len != demand.max_model_len:
        changes.append(Limited(replica.id, "max_model_len", demand.max_model_len, wish.max_model_len, False))
    return changes
