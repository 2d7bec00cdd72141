"""A node's surroundings gone mad, for the storm: clients, engines and devices that lie, die and change their minds.

The world knows the truth: which bytes really are held, who really has been answered. The scheduler is told what a
driver, perhaps a lying one, says. Everything is drawn from one seed.
"""

import heapq
import math
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import count

from heliosd.core.hardware import Device, DeviceKind, DeviceReading, HostReading
from heliosd.core.ledger import Ledger
from heliosd.core.lifecycle import State
from heliosd.core.messages import (
    Command,
    Demand,
    DevicesFound,
    DevicesRead,
    DrainAsked,
    Event,
    Footprint,
    Grant,
    Limits,
    LimitsChanged,
    ModelsChanged,
    ModelsWanted,
    Priority,
    RefusalCode,
    Refuse,
    ReplicaBecameReady,
    ReplicaDied,
    ReplicaExited,
    ReplicaPressed,
    ReplicaSlept,
    ReplicaWoke,
    RequestArrived,
    RequestReleased,
    SleepAsked,
    SleepReplica,
    StartReplica,
    StopAsked,
    StopReplica,
    Terms,
    Tick,
    WakeReplica,
    Wanted,
)
from heliosd.core.names import DeviceId, ReplicaId, Ticket
from heliosd.core.scheduler import Scheduler
from heliosd.core.units import GiB

CAPACITY_BYTES = 80 * GiB
HOST_BYTES = 150 * GiB
PATIENCE_S, LEASE_S, START_S, STOP_S, SLEEP_S, WAKE_S = 5.0, 7.0, 3.0, 1.0, 1.0, 1.0
OVERTAKING_S = 20.0
TURN_S = PATIENCE_S + LEASE_S + SLEEP_S + STOP_S + START_S + WAKE_S
SEQUENCES = 4
TROUBLE_S, READ_EVERY_S = 12.0, 5.0
RUSH_EVERY_S, RUSH_S = 600.0, 120.0
TWINS = ("m1", "m3", "m5")
"""Models that have another of the same mould."""
SIZES_GIB = (6, 10, 15, 25, 40, 50, 60, 75, 100)
OOM = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."
_SERVES = (State.READY, State.DRAINING)
"""What a granted replica may be when the scheduler has said all: it may be sent away right after its last lease."""
LIMITS = Limits(patience_s=PATIENCE_S, overtaking_s=OVERTAKING_S, asleep_s=40.0, host_bytes=HOST_BYTES)


@dataclass
class Waiting:
    """A request that was not answered yet, and what may hold it up by rights."""

    at: float
    model: str
    deadline_at: float | None
    models_before: int = 0
    """Other models that requests before it wait for; counted when it came, and again when it came of age."""
    same_before: int = 0
    aged: bool = False
    hampered_s: float = 0.0
    """How long foreign memory, faults, lies or pins stood in the way while it waited."""
    failures: int = 0
    """Engines that failed while it waited."""

    @property
    def bound_s(self) -> float:
        """What the scheduler's module states, and what failures and the world itself add to it."""
        turns = (self.models_before + 1 + self.failures) * TURN_S
        return OVERTAKING_S + turns + START_S + math.ceil(self.same_before / 1) * LEASE_S + self.hampered_s


@dataclass
class Replica:
    """An engine as it really is."""

    demand: Demand
    devices: tuple[DeviceId, ...]
    held_bytes: int = 0
    """On each device."""
    staged_bytes: int = 0
    state: str = "starting"


@dataclass
class Tally:
    events: int = 0
    overcommits: int = 0
    lost: int = 0
    doubled: int = 0
    broken: int = 0
    """Stops and sleeps under a lease, grants of what is not ready, wakes of what does not sleep."""
    max_wait_ratio: float = 0.0
    troubled_s: float = 0.0
    """How long foreign memory, faults, lies or pins stood in anybody's way."""
    span_s: float = 0.0
    happened: Counter[str] = field(default_factory=Counter)
    answered: Counter[str] = field(default_factory=Counter)


class Storm:
    """One node, for as many events as are asked for."""

    def __init__(self, seed: int, devices: int = 3) -> None:
        self.random = random.Random(seed)
        self.now = 0.0
        self.tally = Tally()
        self.scheduler = Scheduler(LIMITS, Ledger())
        self.devices = [DeviceId(f"g{at}") for at in range(devices)]
        self.demands = {f"m{at}": self._demand(at, size) for at, size in enumerate(SIZES_GIB)}
        for name in TWINS:
            self.demands[name] = replace(self.demands[name], mould=name)
            self.demands[f"{name}-twin"] = replace(self.demands[name], model=f"{name}-twin")
        self.demands["pair"] = replace(self.demands["m3"], model="pair", revision="pair", device_count=2)
        self.waiting: dict[Ticket, Waiting] = {}
        self.held: dict[Ticket, ReplicaId] = {}
        self.settled: set[Ticket] = set()
        self.running: dict[ReplicaId, Replica] = {}
        self.foreign = dict.fromkeys(self.devices, 0)
        self.lies: dict[DeviceId, float] = {}
        self.faults: set[DeviceId] = set()
        self.host_free_bytes = 2 * HOST_BYTES
        self.pins: tuple[Wanted, ...] = ()
        self._ends: list[tuple[float, Callable[[], None]]] = []
        self._agenda: list[tuple[float, int, Event]] = []
        self._order = count()
        self._tickets = count()
        self._refused = ""
        cards = (Device(each, DeviceKind.SIMULATED, "card", CAPACITY_BYTES) for each in self.devices)
        self._tell(DevicesFound(0.0, tuple(cards)))

    def _demand(self, number: int, gib: int) -> Demand:
        total = gib * GiB
        footprint = Footprint(total * 6 // 10, total * 3 // 10, total // 10)
        return Demand(
            f"m{number}", "rev", footprint, max_num_seqs=SEQUENCES,
            keep_alive_s=self.random.choice([0.0, 6.0, 60.0, math.inf]),
            kv_least_bytes=footprint.kv_cache_bytes // 4,
            kv_most_bytes=self.random.choice([0, 20 * GiB]), max_replicas=self.random.choice([1, 1, 2]),
        )  # fmt: skip

    # ---- what happens --------------------------------------------------------------

    def run(self, events: int) -> Tally:
        """Play so many events, then let the world come to rest and count who was forgotten."""
        happenings = [
            (self._arrive, 60), (self._cancel, 6), (self._kill, 3), (self._operator, 3), (self._foreign, 1),
            (self._lie, 1), (self._fault, 0.5), (self._press, 12), (self._read, 10), (self._pin, 0.5),
            (self._change, 1), (self._host, 1),
        ]  # fmt: skip
        acts, weights = zip(*happenings, strict=True)
        while self.tally.events < events:
            rush = self.now % RUSH_EVERY_S < RUSH_S
            self._pass(self.random.expovariate(1.0) * (0.2 if rush else 1.0))
            act = self.random.choices(acts, weights)[0]
            self.tally.happened[act.__name__.strip("_")] += 1
            act()
        self.tally.span_s = self.now
        self._calm()
        return self.tally

    def _calm(self) -> None:
        """No more arrivals and no more harm: all who wait are answered."""
        self._ends.clear()
        self.foreign = dict.fromkeys(self.devices, 0)
        self.lies.clear()
        self.faults.clear()
        self.pins = ()
        self._tell(ModelsWanted(self.now, ()))
        for _ in range(100_000):
            if not self.waiting and not self.scheduler.queue:
                break
            self._pass(READ_EVERY_S)
            self._read()
        self.tally.lost += len(self.waiting) + len(self.scheduler.queue)
        self._tell(DrainAsked(self.now))
        while self.running and self._next(math.inf):
            pass
        ledger = self.scheduler.ledger
        self.tally.overcommits += len(ledger.promised) + len(ledger.staged) + len(self.running)

    def _pass(self, seconds: float) -> None:
        until = self.now + seconds
        while self._next(until):
            pass
        self._spend(until)
        over = [each for each in self._ends if each[0] <= self.now]
        self._ends = [each for each in self._ends if each[0] > self.now]
        for _, end in over:
            end()
        if over:
            self._read()

    def _next(self, until: float) -> bool:
        """The next thing on the agenda, or the tick the scheduler asked for, if it comes before `until`."""
        wakeup = self.scheduler.next_wakeup
        due = self._agenda[0][0] if self._agenda else math.inf
        if wakeup is not None and wakeup <= due and wakeup <= until:
            assert wakeup > self.now - 1e-9, f"asks to be woken at {wakeup} at {self.now}"
            self._spend(max(self.now, wakeup))
            self._tell(Tick(self.now))
            return True
        if due > until or due == math.inf:
            return False
        when, _, event = heapq.heappop(self._agenda)
        self._spend(max(self.now, when))
        self._happen(event)
        return True

    def _spend(self, until: float) -> None:
        passed_s = until - self.now
        if passed_s > 0:
            troubled = bool(self.lies or self.faults or self.pins or any(self.foreign.values()))
            self.tally.troubled_s += passed_s * troubled
            for each in self.waiting.values():
                each.hampered_s += passed_s * troubled
            self.now = until
        for ticket, each in self.waiting.items():
            if not each.aged and self.now - each.at >= OVERTAKING_S:
                each.aged = True
                self._count_before(ticket, each)

    def _count_before(self, ticket: Ticket, mine: Waiting) -> None:
        before = [
            queued for queued in self.scheduler.queue.values()
            if queued.request.ticket != ticket and queued.request.at <= mine.at
        ]  # fmt: skip
        mine.models_before = len({queued.demand.model for queued in before} - {mine.model})
        mine.same_before = sum(1 for queued in before if queued.demand.model == mine.model)

    def _later(self, most_s: float, event: Event) -> None:
        self._at(self.now + self.random.uniform(0, most_s), event)

    def _at(self, when: float, event: Event) -> None:
        heapq.heappush(self._agenda, (when, next(self._order), replace(event, at=when)))

    def _happen(self, event: Event) -> None:
        """Something that was on its way arrives, if there still is whom it is about."""
        event = replace(event, at=self.now)
        match event:
            case RequestReleased():
                self.held.pop(event.ticket, None)
                self._tell(event)
            case ReplicaBecameReady(replica=name) if (it := self.running.get(name)) and it.state == "starting":
                if self._take(it, it.demand.per_device.total_bytes):
                    it.state = "ready"
                    self._tell(replace(event, measured=self._measured(it)))
                else:
                    self._end(name, OOM)
            case ReplicaSlept(replica=name, level=level) if (it := self.running.get(name)) and it.state == "sleeping":
                self._fall_asleep(name, it, level)
            case ReplicaWoke(replica=name) if (it := self.running.get(name)) and it.state == "waking":
                if self.random.random() < 0.1 or not self._take(it, it.demand.per_device.total_bytes):
                    self.tally.happened["failed wake"] += 1
                    self._end(name, OOM if self.random.random() < 0.5 else "cannot wake: cuMemMap failed")
                else:
                    it.state, it.staged_bytes = "ready", 0
                    self._tell(replace(event, measured=self._measured(it)))
            case ReplicaExited(replica=name, cause=cause) if name in self.running:
                self._end(name, cause)
            case DevicesRead():
                self._read()
            case _:
                pass

    def _fall_asleep(self, name: ReplicaId, it: Replica, level: int) -> None:
        whole = it.demand.per_device
        kept = whole.overhead_bytes
        if self.random.random() < 0.1:
            self.tally.happened["sleep that leaks"] += 1
            kept = whole.total_bytes * self.random.randint(3, 10) // 10
        it.held_bytes = kept
        it.staged_bytes = whole.weights_bytes * len(it.devices) if level == 1 else 0
        it.state = "asleep"
        self._tell(ReplicaSlept(self.now, name, level, Footprint(0, 0, kept), it.staged_bytes))

    def _measured(self, it: Replica) -> Footprint:
        """Mostly what was predicted; sometimes a little more or less."""
        booked = it.demand.per_device
        drift = int(booked.total_bytes * self.random.choice([0, 0, 0, -0.01, 0.01]))
        return Footprint(booked.weights_bytes, booked.kv_cache_bytes, max(0, booked.overhead_bytes + drift))

    def _take(self, it: Replica, n_bytes: int) -> bool:
        """Whether the memory is really there; then it is held."""
        for device in it.devices:
            others = sum(each.held_bytes for each in self.running.values() if device in each.devices and each is not it)
            if others + n_bytes + self.foreign[device] > CAPACITY_BYTES:
                return False
        it.held_bytes = n_bytes
        return True

    def _end(self, name: ReplicaId, cause: str | None) -> None:
        """The engine is gone; its clients see their answers break off."""
        it = self.running.pop(name)
        lost = [ticket for ticket, replica in self.held.items() if replica == name]
        self.tally.broken += bool(lost) and cause is None
        for ticket in lost:
            del self.held[ticket]
        if cause is not None:
            for each in self.waiting.values():
                each.failures += 1
        if cause is not None and it.state in ("ready", "asleep") and self.random.random() < 0.5:
            self.running[name] = it
            self._tell(ReplicaDied(self.now, name))
            del self.running[name]
        self._tell(ReplicaExited(self.now, name, cause))

    def _arrive(self) -> None:
        ticket, model = Ticket(f"t{next(self._tickets)}"), self._model()
        chance = self.random
        terms = Terms(
            key=chance.choice(["", "a", "b", "c"]), share=chance.choice([0.5, 1.0, 4.0]),
            priority=chance.choice(list(Priority)), work_tokens=chance.choice([1, 100, 5000, 50_000]),
            prefix=tuple(chance.randrange(50) for _ in range(chance.randrange(4))),
        )  # fmt: skip
        deadline_at = self.now + chance.uniform(5, 200) if chance.random() < 0.3 else None
        mine = self.waiting[ticket] = Waiting(self.now, model, deadline_at)
        self._count_before(ticket, mine)
        self._tell(RequestArrived(self.now, ticket, model, self.demands[model], deadline_at, terms=terms))

    def _model(self) -> str:
        return self.random.choices(list(self.demands), [8, 6, 5, 4, 4, 3, 2, 1, 1, *[4] * len(TWINS), 2])[0]

    def _cancel(self) -> None:
        """A client goes, waiting or served; sometimes it says so twice."""
        known = [*self.waiting, *self.held]
        if known:
            ticket = self.random.choice(known)
            self.waiting.pop(ticket, None)
            self.held.pop(ticket, None)
            self.settled.add(ticket)
            for _ in range(self.random.choice([1, 1, 2])):
                self._tell(RequestReleased(self.now, ticket))

    def _kill(self) -> None:
        if self.running:
            name = self.random.choice(list(self.running))
            causes = ["killed by signal 9", OOM, "RuntimeError: CUDA error: an illegal memory access"]
            self._end(name, self.random.choice(causes))

    def _operator(self) -> None:
        if self.running:
            name = self.random.choice(list(self.running))
            self._tell(self.random.choice([StopAsked(self.now, name), SleepAsked(self.now, name)]))

    def _foreign(self) -> None:
        """Somebody else takes memory that is really free, or gives it back."""
        device = self.random.choice(self.devices)
        ours = sum(each.held_bytes for each in self.running.values() if device in each.devices)
        free = CAPACITY_BYTES - ours
        self.foreign[device] = self.random.randint(0, max(0, free))
        self._later(1.0, DevicesRead(0.0, (), ()))
        self._over(lambda: self.foreign.update({device: 0}))

    def _over(self, end: Callable[[], None]) -> None:
        """Trouble ends after some seconds, and the next reading tells."""
        self._ends.append((self.now + self.random.uniform(1, TROUBLE_S), end))

    def _lie(self) -> None:
        """The driver reports a device's use wrongly, by a factor, until it is asked to stop."""
        device = self.random.choice(self.devices)
        self.lies[device] = self.random.choice([0.0, 0.5, 1.3, 5.0])
        self._over(lambda: self._forget(self.lies, device))
        self._read()

    @staticmethod
    def _forget(lies: dict[DeviceId, float], device: DeviceId) -> None:
        lies.pop(device, None)

    def _fault(self) -> None:
        device = self.random.choice(self.devices)
        self.faults.add(device)
        self._over(lambda: self.faults.discard(device))
        self._read()

    def _press(self) -> None:
        ready = [name for name, each in self.running.items() if each.state == "ready"]
        if ready:
            name = self.random.choice(ready)
            running = sum(1 for replica in self.held.values() if replica == name)
            ratio = min(1.0, self.random.choice([0.1, 0.5, 0.8, 0.95, 1.0]))
            self._tell(ReplicaPressed(self.now, name, running, 0, ratio, self.random.choice([0, 0, 1])))

    def _pin(self) -> None:
        self.pins = (Wanted(self.demands["m0"], 1), Wanted(self.demands["m8"], 1))
        self._tell(ModelsWanted(self.now, self.pins))
        self._over(self._unpin)

    def _unpin(self) -> None:
        self.pins = ()
        self._tell(ModelsWanted(self.now, ()))

    def _change(self) -> None:
        self._tell(self.random.choice([ModelsChanged(self.now), LimitsChanged(self.now, LIMITS)]))

    def _host(self) -> None:
        self.host_free_bytes = self.random.choice([0, HOST_BYTES // 4, 2 * HOST_BYTES])
        self._read()

    def _read(self) -> None:
        readings = []
        for device in self.devices:
            ours = sum(each.held_bytes for each in self.running.values() if device in each.devices)
            used = int((ours + self.foreign[device]) * self.lies.get(device, 1.0))
            fault = "GPU is lost" if device in self.faults else None
            readings.append(DeviceReading(device, used, CAPACITY_BYTES - used, fault=fault))
        host = HostReading(4 * HOST_BYTES, self.host_free_bytes + 4 * HOST_BYTES // 20)
        self._tell(DevicesRead(self.now, tuple(readings), (), host))

    # ---- what is said ----------------------------------------------------------------

    def _tell(self, event: Event) -> None:
        self.tally.events += 1
        for command in self.scheduler.handle(event):
            self._obey(command)
        wakeup = self.scheduler.next_wakeup
        assert wakeup is None or wakeup > self.now, f"asks to be woken at {wakeup} for what it could do at {self.now}"

    def _obey(self, command: Command) -> None:
        replicas = self.scheduler.replicas
        match command:
            case Grant(ticket, name):
                it = self.running.get(name)
                self.tally.broken += it is None or it.state != "ready" or replicas[name].state not in _SERVES
                if self._settle(ticket, "granted"):
                    self.held[ticket] = name
                    self._later(LEASE_S, RequestReleased(0.0, ticket))
            case Refuse(ticket, code):
                self._settle(ticket, code)
                self.tally.broken += code is RefusalCode.CANNOT_FIT and self._can_fit(ticket)
            case StartReplica(name, demand, devices, _, taken):
                self.running[name] = Replica(demand, devices)
                if taken is not None:
                    old = self.running.pop(taken)
                    self.tally.happened["hot swap"] += 1
                    self.tally.broken += taken in self.held.values() or old.state != "ready"
                    self.running[name].held_bytes = old.held_bytes
                self._check_promises(devices)
                if self.random.random() < 0.08:
                    self._later(START_S, ReplicaExited(0.0, name, self.random.choice([OOM, "ImportError: no kernel"])))
                else:
                    levels = self.random.choice([frozenset(), frozenset({1, 2}), frozenset({1, 2}), frozenset({2})])
                    swaps = self.random.random() < 0.8
                    self._later(START_S, ReplicaBecameReady(0.0, name, Footprint(0, 0, 0), levels, swaps))
            case SleepReplica(name, level):
                self.tally.broken += name in self.held.values() or self.running[name].state != "ready"
                self.running[name].state = "sleeping"
                self._later(SLEEP_S, ReplicaSlept(0.0, name, level, Footprint(0, 0, 0), 0))
            case WakeReplica(name):
                self.tally.broken += self.running[name].state != "asleep"
                self.running[name].state = "waking"
                self._check_promises(self.running[name].devices)
                self._later(WAKE_S, ReplicaWoke(0.0, name, Footprint(0, 0, 0)))
            case StopReplica(name):
                self.tally.broken += name in self.held.values()
                if name in self.running:
                    self.running[name].state = "stopping"
                    self._later(STOP_S, ReplicaExited(0.0, name, None))
            case _:
                pass

    def _can_fit(self, ticket: Ticket) -> bool:
        """No device is broken as far as was told, so what was refused for its size must really be too large."""
        refused = self.demands[self._refused]
        fits = refused.per_device.total_bytes < CAPACITY_BYTES * (1 - LIMITS.safety_ratio) * 0.9
        healthy = all(map(self.scheduler.ledger.healthy, self.devices))
        return healthy and fits and refused.device_count <= len(self.devices)

    def _check_promises(self, devices: tuple[DeviceId, ...]) -> None:
        ledger = self.scheduler.ledger
        self.tally.overcommits += any(ledger.free_bytes(device) < 0 for device in devices)

    def _settle(self, ticket: Ticket, how: str) -> bool:
        """Whether somebody still waits for this answer."""
        self.tally.doubled += ticket in self.settled and ticket not in self.waiting
        mine = self.waiting.pop(ticket, None)
        if mine is None:
            return False
        self.settled.add(ticket)
        self._refused = mine.model
        self.tally.answered[how] += 1
        self.tally.max_wait_ratio = max(self.tally.max_wait_ratio, (self.now - mine.at) / mine.bound_s)
        return True
