"""The replicas of a node: started, put to sleep, woken, stopped, and what each may cost to lose.

The ladder down is ready, asleep with the weights in host memory (level 1), asleep without them (level 2), stopped. A
step is taken only where the engine offers it and host memory has room; what a sleeper really gave back decides whether
it stays one. Owned by the scheduler, and like it without a clock.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import count

from heliosd.core.breaker import Breakers
from heliosd.core.eviction import Resident
from heliosd.core.hardware import DeviceKind
from heliosd.core.ledger import Ledger
from heliosd.core.lifecycle import COMING, LEAVING, State
from heliosd.core.messages import (
    Command,
    Demand,
    DrainReplica,
    Footprint,
    Limits,
    Note,
    ReplicaBecameReady,
    ReplicaPressed,
    ReplicaSlept,
    ReplicaWoke,
    SleepReplica,
    StartReplica,
    StopReplica,
    WakeReplica,
    Wanted,
)
from heliosd.core.names import DeviceId, ReplicaId
from heliosd.core.oom import out_of_memory
from heliosd.core.replicas import Replica
from heliosd.core.start_forecast import SeenStart
from heliosd.core.units import format_bytes
from heliosd.core.usage import Usage

DRIFT_WORTH_TELLING = 0.01
"""Of what was predicted; less is what the next estimate learns silently."""
LEAK_RATIO = 0.2
"""A sleeper that keeps more than this share of what it held awake, and more than expected, has not given it back."""
SLEEPLESS_S = 600.0
"""A model whose sleep or wake failed is stopped instead for so long."""
OOM_SHARE = 0.05
"""What is booked on top after an engine ran out of memory and did not say how much it lacked."""

GROW_AFTER_S = 60.0
GROW_RATIO = 0.5
Key = tuple[str, str]


@dataclass
class WarmPool:
    limits: Limits = field(default_factory=Limits)
    ledger: Ledger = field(default_factory=Ledger)
    usage: Usage = field(default_factory=Usage)
    breakers: Breakers = field(default_factory=Breakers)
    replicas: dict[ReplicaId, Replica] = field(default_factory=dict)
    wanted: dict[Key, Wanted] = field(default_factory=dict)
    learned: dict[str, int] = field(default_factory=dict)
    """Bytes per device booked on top for a model whose engine ran out of memory."""
    residues: dict[str, int] = field(default_factory=dict)
    """What a model's replica kept on each device the last time it slept."""
    sleepless: dict[str, float] = field(default_factory=dict)
    """Until when a model is stopped rather than put to sleep."""
    growing: set[str] = field(default_factory=set)
    """Models whose next start takes all the room there is for its KV cache."""
    sizes: dict[str, int] = field(default_factory=dict)
    """What a replica of each model takes of a device: those asked for as estimated, others in the store roughly."""
    _by_key: dict[Key, list[Replica]] = field(default_factory=dict)
    numbers: "count[int]" = field(default_factory=lambda: count(1))

    def of(self, demand: Demand) -> list[Replica]:
        """Its replicas, oldest first. Not to be changed."""
        return self._by_key.get(demand.key, [])

    def gone(self, replica_id: ReplicaId) -> Replica:
        """Forget a replica whose memory is free."""
        replica = self.replicas.pop(replica_id)
        self.ledger.release(replica_id)
        mine = self._by_key[replica.demand.key]
        mine.remove(replica)
        if not mine:
            del self._by_key[replica.demand.key]
        return replica

    # ---- what it would cost ------------------------------------------------------

    def residents(self, at: float, *, sleep: bool = False) -> list[Resident]:
        """The replicas as the policies see them. With `sleep`, as those that would step down to sleep if they can."""
        pinned = self.pinned()
        return [self._resident(replica, at, sleep, replica.id in pinned) for replica in self.replicas.values()]

    def _resident(self, replica: Replica, at: float, sleep: bool, pinned: bool) -> Resident:
        booked = self.ledger.promised[replica.id][1]
        would = replica.then_sleep if replica.state is State.DRAINING else sleep and replica.state is State.READY
        sleeps = replica.state is State.SLEEPING or (would and self.sleep_level(replica, at) > 0)
        keeps = self.residue_bytes(replica) if sleeps else 0
        in_residence = replica.state is State.READY and at < self.resident_until(replica)
        return Resident(
            id=replica.id,
            model=replica.demand.model,
            devices=replica.devices,
            per_device=booked,
            ready=replica.state in (State.READY, State.ASLEEP) and not pinned,
            leaving=replica.state in LEAVING or replica.state is State.FAILED,
            busy=(bool(replica.leases) and replica.state is not State.FAILED) or in_residence,
            last_used=replica.last_used,
            loss_s=self._loss_s(replica, sleeps, at),
            keeps_bytes=keeps,
            pinned=pinned,
        )

    def _loss_s(self, replica: Replica, sleeps: bool, at: float) -> float:
        """Probability of reuse, times the seconds by which the next step down is slower to come back from."""
        model = replica.demand.model
        others = sum(1 for each in self.of(replica.demand) if each.state is State.READY and each is not replica)
        if others and replica.idle:
            return 0.0  # the others serve on; it was only there for a rush
        reload_s = self.usage.reload(model, self._whole_bytes(replica))
        wake_s = self.usage.wake(model, self._staged_bytes(replica))
        if replica.state is State.ASLEEP:
            return self.usage.reuse(model, at) * max(0.0, reload_s - wake_s)
        return self.usage.reuse(model, at) * (wake_s if sleeps else reload_s)

    def _whole_bytes(self, replica: Replica) -> int:
        return replica.demand.per_device.total_bytes * len(replica.devices)

    def residue_bytes(self, replica: Replica) -> int:
        """What is expected to stay on each device when it sleeps: what it did last time, else all that is not weights
        or KV cache."""
        booked = replica.demand.per_device
        return min(booked.total_bytes, self.residues.get(replica.demand.model, booked.overhead_bytes))

    def resident_until(self, replica: Replica) -> float:
        return (replica.ready_at or 0.0) + min(self.limits.residence_s, self.limits.patience_s)

    def sleep_level(self, replica: Replica, at: float) -> int:
        """How it would sleep now; 0: it cannot, or should not."""
        if not self.limits.sleep or at < self.sleepless.get(replica.demand.model, 0.0):
            return 0
        if 1 in replica.sleep_levels and self.ledger.host_free_bytes >= self._staged_bytes(replica):
            return 1
        return 2 if 2 in replica.sleep_levels else 0

    def _staged_bytes(self, replica: Replica) -> int:
        return replica.demand.per_device.weights_bytes * len(replica.devices)

    # ---- starting ------------------------------------------------------------------

    def adjusted(self, demand: Demand) -> Demand:
        """The demand with what is known now: more beside weights and KV cache after it ran out of memory, and a smaller
        KV cache where that and what foreign processes hold leave no room for the whole."""
        now, more = demand.per_device, self.learned.get(demand.model, 0)
        working = [device for device in self.ledger.devices if self.ledger.healthy(device)]
        # None works for now: what it takes then is what it would take on any of them.
        best = max((max(0, self.ledger.usable_bytes(device)) for device in working or self.ledger.devices), default=0)
        over = max(0, now.total_bytes + more - best)
        if not more and not over:
            return demand
        less = min(over, max(0, now.kv_cache_bytes - demand.kv_least_bytes)) if demand.kv_least_bytes else 0
        more = max(0, more - (over - less))
        changed = Footprint(now.weights_bytes, now.kv_cache_bytes - less, now.overhead_bytes + more)
        return demand if changed == now else replace(demand, per_device=changed)

    def start(self, demand: Demand, devices: tuple[DeviceId, ...], at: float, reason: str) -> tuple[Replica, Command]:
        """Book and start a replica. Its KV cache takes what is left over where nobody else is likely to need it."""
        demand, more = self._stretched(demand, devices)
        replica = self._begin(demand, devices, at)
        if more:
            reason += f"; {format_bytes(more)} that nobody else is likely to need go to its KV cache"
        return replica, StartReplica(replica.id, demand, devices, reason)

    def swap(self, old: Replica, demand: Demand, at: float, reason: str) -> tuple[Replica, Command]:
        """Start a replica in the engine of an idle one of the same mould, whose life ends here. See `fits_in`."""
        held, now = old.demand.per_device, demand.per_device
        demand = replace(demand, per_device=replace(now, kv_cache_bytes=held.kv_cache_bytes))
        self.gone(old.id)
        replica = self._begin(demand, old.devices, at)
        replica.swapped = True
        return replica, StartReplica(replica.id, demand, old.devices, reason, takes_over=old.id)

    def _begin(self, demand: Demand, devices: tuple[DeviceId, ...], at: float) -> Replica:
        """A replica that starts now, booked and known."""
        replica = Replica(
            ReplicaId(f"r{next(self.numbers)}"), demand, devices, started_at=at, keep_alive_s=demand.keep_alive_s
        )
        self.ledger.book(replica.id, devices, demand.per_device)
        self.replicas[replica.id] = replica
        self._by_key.setdefault(demand.key, []).append(replica)
        replica.become(State.STARTING)
        self.breakers.starting(demand.model, devices)
        return replica

    def fits_in(self, demand: Demand, old: Replica) -> bool:
        """Whether the engine of `old` can become this model's: of one mould, idle, with the memory it books."""
        held, now = old.demand.per_device, demand.per_device
        if not (self.limits.hot_swap and old.swaps and old.idle and demand.mould and demand.mould == old.demand.mould):
            return False
        if demand.adapters is not None or demand.key == old.demand.key:
            return False
        needs = now.weights_bytes + held.kv_cache_bytes + now.overhead_bytes
        there = self.ledger.promised[old.id][1].total_bytes
        return all(needs <= there + self.ledger.free_bytes(device) for device in old.devices)

    def _stretched(self, demand: Demand, devices: tuple[DeviceId, ...]) -> tuple[Demand, int]:
        """The rest of a device, where no other model that is known here could use it. A KV cache cannot shrink again
        without a restart, so what others could use is left to them: taking it would cost more swaps than it saves."""
        now = demand.per_device
        rest = min(self.ledger.free_bytes(device) for device in devices) - now.total_bytes
        more = min(rest, demand.kv_most_bytes - now.kv_cache_bytes)
        running = {replica.demand.model for replica in self.replicas.values()} | {demand.model}
        if demand.model in self.growing:
            self.growing.discard(demand.model)
            running |= self.sizes.keys()
        if more <= 0 or any(n_bytes <= rest for model, n_bytes in self.sizes.items() if model not in running):
            return demand, 0
        larger = Footprint(now.weights_bytes, now.kv_cache_bytes + more, now.overhead_bytes)
        return replace(demand, per_device=larger), more

    def became_ready(self, event: ReplicaBecameReady) -> list[Command]:
        replica = self.replicas[event.replica]
        replica.measured = event.measured
        replica.sleep_levels, replica.swaps = event.sleep_levels, event.swaps
        self.ledger.measure(replica.id, event.measured)
        self.breakers.started(replica.demand.model, replica.devices)
        if replica.state is State.STARTING:
            replica.become(State.READY)
            replica.ready_at = replica.last_used = event.at
            weights_bytes = replica.demand.per_device.weights_bytes * len(replica.devices)
            device = self.ledger.devices.get(replica.devices[0])
            tier = self.usage.places.tier(replica.demand.model)
            seen = SeenStart(event.phases, weights_bytes, device.kind if device else "", tier)
            if replica.swapped:
                self.usage.swapped(replica.demand.model, event.at - replica.started_at, seen)
            else:
                self.usage.started(replica.demand.model, event.at - replica.started_at, seen)
        return self._more_than_predicted(replica, event.measured)

    def _more_than_predicted(self, replica: Replica, measured: Footprint) -> list[Command]:
        predicted_bytes = replica.demand.per_device.total_bytes
        if measured.total_bytes <= predicted_bytes * (1 + DRIFT_WORTH_TELLING):
            return []
        drift = (
            f"{replica.id} of {replica.demand.model} holds {format_bytes(measured.total_bytes)}, "
            f"{format_bytes(measured.total_bytes - predicted_bytes)} more than predicted"
        )
        return [Note(replica.demand.model, drift, warning=True)]

    def pressed(self, event: ReplicaPressed) -> list[Command]:
        """The engine told how it fares: perhaps it may work on fewer requests, or more."""
        replica = self.replicas.get(event.replica)
        if replica is None or replica.state not in (State.READY, State.DRAINING):
            return []
        changed = replica.pressure.told(event, len(replica.leases))
        if changed is None:
            return []
        limited = replica.pressure.limit < replica.pressure.most
        return [Note(replica.demand.model, f"{replica.id} of {replica.demand.model} {changed}", warning=limited)]

    def grow(self, replica: Replica, at: float, waiting: int) -> list[Command]:
        """Drain a replica so that the next start takes the free room of its devices for its KV cache: beside it where
        the room suffices, else in its place.

        When the KV cache has limited it for `GROW_AFTER_S` and for longer than a start takes, as many wait as it works
        on, and the cache would be larger by a half.
        """
        limited_since = replica.pressure.limited_since
        free = min(self.ledger.free_bytes(device) for device in replica.devices)
        booked = replica.demand.per_device
        now = booked.kv_cache_bytes
        beside = free >= booked.total_bytes
        larger = min(free - (booked.total_bytes - now) if beside else now + free, replica.demand.kv_most_bytes)
        reload_s = self.usage.reload(replica.demand.model, self._whole_bytes(replica))
        if limited_since is None or at - limited_since < max(GROW_AFTER_S, 2 * reload_s):
            return []
        if waiting < replica.pressure.limit or larger < now * (1 + GROW_RATIO):
            return []
        self.growing.add(replica.demand.model)
        why = (
            f"its KV cache of {format_bytes(now)} has limited it for {at - limited_since:.0f} s and {waiting} requests "
            f"wait; it starts again in {reload_s:.0f} s with {format_bytes(larger)}"
        )
        return self.step_down(replica.id, at, why)

    # ---- the ladder ----------------------------------------------------------------

    def step_down(self, replica_id: ReplicaId, at: float, reason: str, *, sleep: bool = False) -> list[Command]:
        """Send a replica one step down the ladder, as gently as its state allows; with `sleep` to sleep, if it can.

        Harmless when it is already on its way.
        """
        replica = self.replicas.get(replica_id)
        if replica is None:
            return []
        match replica.state:
            case State.STARTING | State.WAKING | State.ASLEEP:
                if replica.state is State.STARTING:
                    self.breakers.called_off(replica.demand.model, replica.devices)
                replica.become(State.STOPPING)
                return [StopReplica(replica.id, reason)]
            case State.SLEEPING if not sleep:
                replica.become(State.STOPPING)
                return [StopReplica(replica.id, reason)]
            case State.READY:
                replica.then_sleep = sleep
                level = self.sleep_level(replica, at) if sleep else 0
                if level and not replica.leases:
                    return [self._sleep(replica, level, reason)]
                replica.become(State.DRAINING)
                return [DrainReplica(replica.id, reason), *self.drained(replica, at)]
            case State.DRAINING if not sleep:
                replica.then_sleep = False
        return []

    def drained(self, replica: Replica, at: float) -> list[Command]:
        """The last lease may be over: then what it drained for."""
        if replica.leases or replica.state is not State.DRAINING:
            return []
        if replica.then_sleep and (level := self.sleep_level(replica, at)):
            return [self._sleep(replica, level, "no lease is left")]
        replica.become(State.STOPPING)
        return [StopReplica(replica.id, "no lease is left")]

    def _sleep(self, replica: Replica, level: int, reason: str) -> Command:
        replica.become(State.SLEEPING)
        if level == 1:
            self.ledger.stage(replica.id, self._staged_bytes(replica))
        return SleepReplica(replica.id, level, reason)

    def slept(self, event: ReplicaSlept) -> list[Command]:
        """It sleeps. Did the memory come back? If not, it is stopped, and for a while its like is not put to sleep."""
        replica = self.replicas[event.replica]
        if replica.state is not State.SLEEPING:
            return []
        held = self.ledger.promised[replica.id][1]
        expected = self.residue_bytes(replica)
        self.ledger.slept(replica.id, event.residue, event.host_bytes)
        replica.become(State.ASLEEP)
        replica.slept_at, replica.level = event.at, event.level
        kept = event.residue.total_bytes
        if kept > held.total_bytes * LEAK_RATIO and kept > expected * (1 + LEAK_RATIO):
            why = (
                f"{replica.id} of {replica.demand.model} gave back "
                f"{format_bytes(held.total_bytes - kept)} of {format_bytes(held.total_bytes)} when it fell asleep, "
                f"{format_bytes(held.total_bytes - expected)} were expected"
            )
            self.sleepless[replica.demand.model] = event.at + SLEEPLESS_S
            return [
                Note(replica.demand.model, why, warning=True),
                *self.step_down(replica.id, event.at, "its memory did not come back"),
            ]
        self.residues[replica.demand.model] = kept
        return []

    def wake(self, replica: Replica, at: float, reason: str) -> Command:
        """Book what it needs awake, and wake it."""
        self.ledger.wake(replica.id, replica.demand.per_device)
        replica.become(State.WAKING)
        replica.started_at = at
        return WakeReplica(replica.id, reason)

    def woke(self, event: ReplicaWoke) -> list[Command]:
        replica = self.replicas[event.replica]
        self.ledger.measure(replica.id, event.measured)
        self.ledger.awake(replica.id)
        replica.measured = event.measured
        if replica.state is State.WAKING:
            replica.become(State.READY)
            replica.ready_at = replica.last_used = event.at
            self.usage.woke(replica.demand.model, event.at - replica.started_at)
        return self._more_than_predicted(replica, event.measured)

    def relieve_host(self, at: float) -> list[Command]:
        """Stop the sleepers that are worth least while the machine's RAM is nearly used up.

        What is on its way back counts, the pinned stay, and who holds none of it is left alone.
        """
        staged, pinned = self.ledger.staged, self.pinned()
        back = (State.STOPPING, State.FAILED, State.WAKING)
        missing = -self.ledger.host_free_bytes
        missing -= sum(staged.get(each.id, 0) for each in self.replicas.values() if each.state in back)
        commands: list[Command] = []
        asleep = [
            each
            for each in self.replicas.values()
            if each.state is State.ASLEEP and staged.get(each.id, 0) > 0 and each.id not in pinned
        ]
        for replica in sorted(asleep, key=lambda each: (self._loss_s(each, False, at), each.id)):
            if missing <= 0:
                break
            missing -= staged[replica.id]
            commands += self.step_down(replica.id, at, "host memory is nearly used up")
        return commands

    def still_missing(self, asleep: Replica) -> Demand:
        """What a sleeper needs on each of its devices besides what it holds there already."""
        residue = self.ledger.promised[asleep.id][1].total_bytes
        now = asleep.demand.per_device
        kept = min(residue, now.overhead_bytes)
        rest = Footprint(now.weights_bytes, max(0, now.kv_cache_bytes - (residue - kept)), now.overhead_bytes - kept)
        return replace(asleep.demand, per_device=rest)

    # ---- pins ----------------------------------------------------------------------

    def pinned(self) -> frozenset[ReplicaId]:
        """The replicas that an operator wants to stay: of each wanted model, the first so many."""
        found: set[ReplicaId] = set()
        for wanted in self.wanted.values():
            there = self.of(wanted.demand)
            awake = [each for each in there if each.state in COMING or each.state is State.READY]
            staying = awake + [each for each in there if each.state is State.ASLEEP]
            found |= {each.id for each in staying[: wanted.replicas]}
        return frozenset(found)

    def missing(self) -> Iterable[Wanted]:
        """Wanted models with too few replicas, those that sleep not counted."""
        for wanted in self.wanted.values():
            there = [each for each in self.of(wanted.demand) if each.state in COMING or each.state is State.READY]
            if len(there) < wanted.replicas:
                yield wanted

    # ---- ends ------------------------------------------------------------------------

    def exited(self, replica: Replica, cause: str, was: State, at: float) -> list[Command]:
        """What is learned from the death of a replica."""
        model = replica.demand.model
        commands: list[Command] = []
        if was in (State.SLEEPING, State.ASLEEP, State.WAKING):
            self.sleepless[model] = at + SLEEPLESS_S
        if was is not State.STARTING:
            opened = self.breakers.died(model, replica.devices, at, cause)
            if opened is not None:
                why = f"{model} died {opened.in_a_row} times in a burst on {'+'.join(replica.devices)}; next try in "
                commands.append(Note(model, f"{why}{opened.retry_at - at:.0f} s", warning=True))
        on_host = all(self.ledger.devices[each].kind is DeviceKind.HOST for each in replica.devices)
        if (shortage := out_of_memory(cause)) is not None and (on_host or not shortage.host):
            whole = replica.demand.per_device.total_bytes
            more = max(shortage.missing_bytes, int(whole * OOM_SHARE))
            self.learned[model] = self.learned.get(model, 0) + more
            why = (
                f"{model} ran out of memory with {format_bytes(whole)}; the next start books {format_bytes(more)} more"
            )
            commands.append(Note(model, why, warning=True))
        return commands
