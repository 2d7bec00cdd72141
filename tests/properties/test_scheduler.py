"""Random histories of the scheduler: nobody is answered twice, stopped under a lease, forgotten, or starved.

The world below plays clients, engines and devices against a real `Scheduler`, with bounded leases, starts and stops,
and checks after every event what must always hold. The bound on waiting is the one the scheduler's module states.
"""

import heapq
import random
from dataclasses import dataclass, field
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from heliosd.core.hardware import Device, DeviceKind, DeviceReading
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
    RefusalCode,
    Refuse,
    ReplicaBecameReady,
    ReplicaDied,
    ReplicaExited,
    RequestArrived,
    RequestReleased,
    StartReplica,
    StopAsked,
    StopReplica,
    Tick,
)
from heliosd.core.names import DeviceId, ReplicaId, Ticket
from heliosd.core.scheduler import Scheduler
from heliosd.core.units import GiB
from tests.effort import examples

PATIENCE_S, LEASE_S, START_S, STOP_S = 5.0, 7.0, 3.0, 1.0
TURN_S = PATIENCE_S + LEASE_S + STOP_S + START_S


@dataclass
class World:
    """Everything around the scheduler, with a clock of its own."""

    seed: int
    device_count: int = 1
    failures: bool = False
    now: float = 0.0
    asked_at: dict[Ticket, float] = field(default_factory=dict)
    model_of: dict[Ticket, str] = field(default_factory=dict)
    behind: dict[Ticket, int] = field(default_factory=dict)
    """How many other models older requests waited for when this one came."""
    failed: int = 0
    """Engines that died so far; each may cost those who wait another turn."""
    failed_before: dict[Ticket, int] = field(default_factory=dict)
    answered: dict[Ticket, float] = field(default_factory=dict)
    running: set[ReplicaId] = field(default_factory=set)
    held: dict[Ticket, ReplicaId] = field(default_factory=dict)
    gone: set[Ticket] = field(default_factory=set)
    agenda: list[tuple[float, int, Event]] = field(default_factory=list)
    order: "count[int]" = field(default_factory=count)
    history: list[tuple[Event, list[Command]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.scheduler = Scheduler(Limits(patience_s=PATIENCE_S), Ledger())
        devices = tuple(
            Device(DeviceId(f"g{i}"), DeviceKind.SIMULATED, "card", 80 * GiB) for i in range(self.device_count)
        )
        self.sizes = {f"m{i}": size * GiB for i, size in enumerate((10, 25, 40, 50, 60, 75, 100))}
        self.tell(DevicesFound(0.0, devices))

    def demand(self, model: str) -> Demand:
        size = self.sizes[model]
        footprint = Footprint(size // 2, size - size // 2, 0)
        return Demand(model, "rev", footprint, keep_alive_s=self.random.choice([0.0, 4.0, 300.0]))

    def at(self, when: float, event: Event) -> None:
        heapq.heappush(self.agenda, (when, next(self.order), event))

    def ask(self, number: int) -> None:
        ticket, model = Ticket(f"t{number}"), self.random.choice(list(self.sizes))
        older = {queued.demand.model for queued in self.scheduler.queue.values()}
        self.behind[ticket] = len(older - {model})
        self.asked_at[ticket], self.model_of[ticket] = self.now, model
        self.failed_before[ticket] = self.failed
        if self.random.random() < 0.1:  # a client that gives up, perhaps while it waits
            self.at(self.now + self.random.uniform(0, 5), RequestReleased(0, ticket))
            self.gone.add(ticket)
        self.tell(RequestArrived(self.now, ticket, model, self.demand(model)))

    def tell(self, event: Event) -> None:
        if isinstance(event, RequestReleased):
            self.held.pop(event.ticket, None)
        if isinstance(event, ReplicaDied):  # its clients see their answers break off
            self.held = {ticket: replica for ticket, replica in self.held.items() if replica != event.replica}
        if isinstance(event, ReplicaExited):
            self.running.discard(event.replica)
            self.failed += event.cause is not None
            lost = [ticket for ticket, replica in self.held.items() if replica == event.replica]
            assert not lost or event.cause, f"{event.replica} was stopped under {lost}"
            for ticket in lost:
                del self.held[ticket]
        commands = self.scheduler.handle(event)
        self.history.append((event, commands))
        for command in commands:
            self.obey(command)
        self.check()

    def obey(self, command: object) -> None:
        match command:
            case Grant(ticket, replica):
                self.answer(ticket)
                assert self.scheduler.replicas[replica].state is State.READY
                assert self.scheduler.replicas[replica].demand.model == self.model_of[ticket]
                self.held[ticket] = replica
                self.at(self.now + self.random.uniform(0, LEASE_S), RequestReleased(0, ticket))
            case Refuse(ticket, code):
                self.answer(ticket)
                if code is RefusalCode.CANNOT_FIT:
                    assert self.sizes[self.model_of[ticket]] > 79 * GiB
            case StartReplica(replica):
                self.running.add(replica)
                when = self.now + self.random.uniform(0, START_S)
                if self.failures and self.random.random() < 0.2:
                    self.at(when, ReplicaExited(0, replica, "CUDA error: out of memory"))
                else:
                    self.at(when, ReplicaBecameReady(0, replica, Footprint(1, 1, 1)))
                    if self.failures and self.random.random() < 0.2:
                        died_at = when + self.random.uniform(0, 20)
                        self.at(died_at, ReplicaDied(0, replica))
                        self.at(died_at + self.random.uniform(0, STOP_S), ReplicaExited(0, replica, "killed"))
            case StopReplica(replica):
                assert replica not in self.held.values(), f"{replica} is stopped under a lease"
                self.at(self.now + self.random.uniform(0, STOP_S), ReplicaExited(0, replica, None))

    def answer(self, ticket: Ticket) -> None:
        assert ticket not in self.answered, f"{ticket} was answered twice"
        self.answered[ticket] = self.now
        if ticket in self.gone:
            return
        waited_s = self.now - self.asked_at[ticket]
        failed = self.failed - self.failed_before[ticket]
        bound_s = (self.behind[ticket] + 1 + failed) * TURN_S + START_S
        assert waited_s <= bound_s + 1e-6, f"{ticket} waited {waited_s:.1f} s, the bound is {bound_s:.1f} s"

    def check(self) -> None:
        wakeup = self.scheduler.next_wakeup
        assert wakeup is None or wakeup > self.now, "it asks to be woken for something it could have done already"
        ledger = self.scheduler.ledger
        for device in ledger.devices:
            assert ledger.promised_bytes(device) <= ledger.usable_bytes(device) or ledger.foreign.get(device)
        assert set(ledger.promised) == set(self.scheduler.replicas) == self.running

    def advance(self) -> bool:
        """Let the next thing happen; False when nothing ever will."""
        wakeup = self.scheduler.next_wakeup
        due = self.agenda[0][0] if self.agenda else float("inf")
        if wakeup is not None and wakeup <= due:
            self.now = max(self.now, wakeup)
            self.tell(Tick(self.now))
            return True
        if not self.agenda:
            return False
        when, _, event = heapq.heappop(self.agenda)
        self.now = max(self.now, when)
        match event:
            case RequestReleased(_, ticket):
                self.tell(RequestReleased(self.now, ticket))
            case ReplicaBecameReady(_, replica, measured):
                if replica in self.running:
                    self.tell(ReplicaBecameReady(self.now, replica, measured))
            case ReplicaDied(_, replica):
                if replica in self.running:
                    self.tell(ReplicaDied(self.now, replica))
            case ReplicaExited(_, replica, cause):
                if replica in self.running:
                    self.tell(ReplicaExited(self.now, replica, cause))
        return True

    def live(self, requests: int) -> None:
        for number in range(requests):
            until = self.now + self.random.expovariate(1 / 1.5)
            while self.agenda and min(self.agenda[0][0], self.scheduler.next_wakeup or float("inf")) <= until:
                self.advance()
            self.now = max(self.now, until)
            self.ask(number)
            if self.random.random() < 0.02 and self.scheduler.replicas:
                self.tell(StopAsked(self.now, self.random.choice(list(self.scheduler.replicas))))
        for _ in range(100_000):
            if len(self.answered.keys() | self.gone) == len(self.asked_at) and not self.scheduler.queue:
                break
            assert self.advance(), f"left waiting: {list(self.scheduler.queue)}"
        assert not self.scheduler.queue
        assert self.asked_at.keys() <= self.answered.keys() | self.gone


@settings(max_examples=examples(60), deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 10**9), devices=st.integers(1, 3))
def test_everyone_is_answered_once_and_within_the_bound(seed: int, devices: int) -> None:
    World(seed, devices).live(120)


@settings(max_examples=examples(60), deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 10**9), devices=st.integers(1, 3))
def test_engines_that_fail_take_nobody_with_them(seed: int, devices: int) -> None:
    world = World(seed, devices, failures=True)
    world.live(120)


@settings(max_examples=examples(30), deadline=None)
@given(seed=st.integers(0, 10**9))
def test_draining_answers_everybody_and_leaves_nothing(seed: int) -> None:
    world = World(seed)
    world.live(40)
    for number in range(1000, 1010):
        world.ask(number)
    world.tell(DrainAsked(world.now))
    assert not world.scheduler.queue
    while world.scheduler.replicas:
        assert world.advance()
    assert world.scheduler.ledger.promised_bytes(DeviceId("g0")) == 0


@settings(max_examples=examples(30), deadline=None)
@given(seed=st.integers(0, 10**9))
def test_the_same_events_give_the_same_commands(seed: int) -> None:
    world = World(seed)
    world.live(40)
    again = Scheduler(Limits(patience_s=PATIENCE_S), Ledger())
    assert [again.handle(event) for event, _ in world.history] == [commands for _, commands in world.history]


@pytest.mark.parametrize("foreign_gib", [20, 79])
def test_foreign_memory_is_never_promised(foreign_gib: int) -> None:
    world = World(1)
    reading = DeviceReading(DeviceId("g0"), used_bytes=foreign_gib * GiB, free_bytes=(80 - foreign_gib) * GiB)
    world.tell(DevicesRead(0.0, (reading,), ()))
    commands = world.scheduler.handle(RequestArrived(0.0, Ticket("t"), "m5", world.demand("m5")))
    assert not any(isinstance(command, StartReplica | Refuse) for command in commands)
    assert "foreign" in world.scheduler.snapshot(0.0).waiting[0].reason
