"""Plays a trace against the scheduler that `heliosd` runs, with engines and devices that are only arithmetic.

Time jumps from event to event, so an hour takes seconds. Starts on one device follow one another, as in the pool. What
must never happen (a promise beyond a device, a request answered twice or forgotten) is counted, not assumed away.
"""

import heapq
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import count

from heliosd.core.messages import (
    Command,
    DevicesFound,
    Event,
    Grant,
    Limits,
    ModelsKnown,
    Refuse,
    ReplicaBecameReady,
    ReplicaExited,
    ReplicaSlept,
    ReplicaWoke,
    RequestArrived,
    RequestReleased,
    SleepReplica,
    StartReplica,
    StopReplica,
    Tick,
    WakeReplica,
)
from heliosd.core.names import DeviceId, ReplicaId, Ticket
from heliosd.core.scheduler import Scheduler
from heliosd.core.usage import LOAD_BYTES_PER_S, SWAP_BASE_S
from heliosd.simulation.fleet import Fleet, Model
from heliosd.simulation.trace import Asked


@dataclass(frozen=True, slots=True)
class Speeds:
    """Of engines, as far as a request's time goes."""

    prefill_tokens_per_s: float = 8000.0
    memory_bytes_per_s: float = 2e12
    """A token takes one reading of the weights; several sequences share it."""
    most_tokens_per_s: float = 120.0
    stop_s: float = 1.0
    deadline_s: float = 600.0
    wake_bytes_per_s: float = 16 * 2**30
    """From pinned host memory."""
    wake_base_s: float = 0.3

    def wake_s(self, n_bytes: int) -> float:
        """For `n_bytes` of weights on each device."""
        return self.wake_base_s + n_bytes / self.wake_bytes_per_s

    def swap_s(self, n_bytes: int) -> float:
        """To read `n_bytes` of weights on each device into a running engine."""
        return SWAP_BASE_S + n_bytes / LOAD_BYTES_PER_S

    def first_token_s(self, asked: Asked) -> float:
        return asked.prompt_tokens / self.prefill_tokens_per_s

    def answer_s(self, asked: Asked, model: Model) -> float:
        """From the grant to the last token."""
        reading = max(1, model.demand.per_device.weights_bytes)
        rate = min(self.most_tokens_per_s, self.memory_bytes_per_s / reading)
        return self.first_token_s(asked) + asked.output_tokens / rate


@dataclass
class Outcome:
    """What became of a trace."""

    requests: int = 0
    answered: int = 0
    refused: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    first_token_s: list[float] = field(default_factory=list)
    """Of each answered request, since it was sent."""
    starts: int = 0
    wakes: int = 0
    swaps: int = 0
    """Starts in the engine of another."""
    swap_s: float = 0.0
    """Seconds in which engines started or woke, summed."""
    device_s: float = 0.0
    """Seconds in which a device held a replica, summed over devices."""
    promised_byte_s: float = 0.0
    overcommits: int = 0
    doubled: int = 0
    lost: int = 0
    span_s: float = 0.0
    capacity_bytes: int = 0
    events: int = 0

    full_at: float | None = None
    """When room was first made for somebody: until then there was more memory than anybody asked for."""
    promised_before_byte_s: float = 0.0
    """Of `promised_byte_s`, before that."""

    @property
    def committed(self) -> float:
        """Of the devices' memory, promised in the mean over time, since it was first scarce."""
        if self.full_at is None:
            return self.promised_byte_s / max(1.0, self.span_s * self.capacity_bytes)
        promised = self.promised_byte_s - self.promised_before_byte_s
        return promised / max(1.0, (self.span_s - self.full_at) * self.capacity_bytes)

    def within(self, limit_s: float) -> float:
        """The share of requests whose first token came within `limit_s`."""
        return sum(1 for each in self.first_token_s if each <= limit_s) / max(1, self.requests)


class World:
    """One node with its clients, for one trace."""

    def __init__(self, fleet: Fleet, scheduler: Scheduler | None = None, speeds: Speeds | None = None) -> None:
        self.fleet = fleet
        self.scheduler = scheduler or Scheduler(Limits(queue_length=10**9))
        self.speeds = speeds or Speeds()
        self.outcome = Outcome(capacity_bytes=sum(device.capacity_bytes for device in fleet.devices))
        self._events: list[tuple[float, int, Event]] = []
        self._numbers = count()
        self._asked: dict[Ticket, Asked] = {}
        self._waiting: set[Ticket] = set()
        self._gone: set[ReplicaId] = set()
        self._served: set[Ticket] = set()
        self._asked_all = False
        self._starting_until: dict[DeviceId, float] = {}
        self._now = 0.0

    def run(self, trace: Iterable[Asked]) -> Outcome:
        """Play it to the end: until the last answer is given."""
        self._take(DevicesFound(0.0, self.fleet.devices))
        known = ((name, model.demand.per_device.weights_bytes) for name, model in self.fleet.models.items())
        self._take(ModelsKnown(0.0, tuple(known)))
        for number, asked in enumerate(trace):
            self._until(asked.at_s)
            self._arrive(Ticket(f"t{number}"), asked)
        self._asked_all = True
        self._until(float("inf"))
        self.outcome.span_s = self._now
        self.outcome.lost = len(self._waiting)
        return self.outcome

    def _arrive(self, ticket: Ticket, asked: Asked) -> None:
        self.outcome.requests += 1
        model = self.fleet.models.get(asked.model)
        self._asked[ticket] = asked
        self._waiting.add(ticket)
        self._take(
            RequestArrived(
                asked.at_s,
                ticket,
                asked.model,
                model.demand if model else None,
                deadline_at=asked.at_s + self.speeds.deadline_s,
            )
        )

    def _until(self, at: float) -> None:
        """Everything that happens before `at`; the scheduler is woken when it asked to be."""
        while True:
            if self._asked_all and not self._waiting and not self._served:
                return  # whoever sleeps on is no longer part of it
            soonest = self._events[0][0] if self._events else float("inf")
            wakeup = self.scheduler.next_wakeup
            if wakeup is not None and wakeup < soonest and wakeup <= at and wakeup != float("inf"):
                self._take(Tick(max(wakeup, self._now)))
                continue
            if soonest > at or soonest == float("inf"):
                return
            _, _, event = heapq.heappop(self._events)
            if isinstance(event, RequestReleased):
                self._served.discard(event.ticket)
            if isinstance(event, ReplicaBecameReady | ReplicaSlept | ReplicaWoke) and event.replica in self._gone:
                continue
            self._take(event)

    def _take(self, event: Event) -> None:
        self._account(event.at)
        self.outcome.events += 1
        for command in self.scheduler.handle(event):
            self._carry_out(command, event.at)
        ledger = self.scheduler.ledger
        self.outcome.overcommits += any(ledger.free_bytes(device) < 0 for device in ledger.devices)

    def _account(self, at: float) -> None:
        """What was held since the last event."""
        passed_s = max(0.0, at - self._now)
        if passed_s:
            promised = self.scheduler.ledger.promised.values()
            self.outcome.device_s += passed_s * len({device for devices, _ in promised for device in devices})
            held = sum(each.total_bytes * len(devices) for devices, each in promised)
            self.outcome.promised_byte_s += passed_s * held
            self._now = at

    def _scarce(self, at: float) -> None:
        if self.outcome.full_at is None:
            self.outcome.full_at, self.outcome.promised_before_byte_s = at, self.outcome.promised_byte_s

    def _later(self, event: Event) -> None:
        heapq.heappush(self._events, (event.at, next(self._numbers), event))

    def _carry_out(self, command: Command, at: float) -> None:
        match command:
            case StartReplica(replica=replica, demand=demand, devices=devices, takes_over=taken):
                began, load_s = at, self.speeds.swap_s(demand.per_device.weights_bytes)
                if taken is None:
                    began = max(at, *(self._starting_until.get(device, 0.0) for device in devices))
                    load_s = self.fleet.models[demand.model].load_s
                    self._starting_until |= dict.fromkeys(devices, began + load_s)
                else:
                    self._scarce(at)
                    self._gone.add(taken)
                    self.outcome.swaps += 1
                self.outcome.starts += 1
                self.outcome.swap_s += load_s
                levels = frozenset({1, 2}) if self.scheduler.limits.sleep else frozenset[int]()
                self._later(ReplicaBecameReady(began + load_s, replica, demand.per_device, levels, swaps=True))
            case SleepReplica(replica=replica, level=level):
                self._scarce(at)
                booked = self.scheduler.replicas[replica].demand
                residue = replace(booked.per_device, weights_bytes=0, kv_cache_bytes=0)
                host_bytes = booked.per_device.weights_bytes * booked.device_count if level == 1 else 0
                took_s = self.speeds.wake_s(booked.per_device.weights_bytes if level == 1 else 0)
                self._later(ReplicaSlept(at + took_s, replica, level, residue, host_bytes))
            case WakeReplica(replica=replica):
                it = self.scheduler.replicas[replica]
                began = max(at, *(self._starting_until.get(device, 0.0) for device in it.devices))
                weights_bytes = it.demand.per_device.weights_bytes
                model = self.fleet.models[it.demand.model]
                took_s = self.speeds.wake_s(weights_bytes) if it.level == 1 else model.load_s / 2
                self._starting_until |= dict.fromkeys(it.devices, began + took_s)
                self.outcome.wakes += 1
                self.outcome.swap_s += took_s
                self._later(ReplicaWoke(began + took_s, replica, it.demand.per_device))
            case StopReplica(replica=replica):
                self._scarce(at)
                self._gone.add(replica)
                self._later(ReplicaExited(at + self.speeds.stop_s, replica, None))
            case Grant(ticket=ticket):
                asked = self._settled(ticket)
                self.outcome.answered += 1
                self.outcome.first_token_s.append(at - asked.at_s + self.speeds.first_token_s(asked))
                took_s = self.speeds.answer_s(asked, self.fleet.models[asked.model])
                self._served.add(ticket)
                self._later(RequestReleased(at + took_s, ticket))
            case Refuse(ticket=ticket, code=code):
                self._settled(ticket)
                self.outcome.refused[code] += 1
            case _:
                pass

    def _settled(self, ticket: Ticket) -> Asked:
        self.outcome.doubled += ticket not in self._waiting
        self._waiting.discard(ticket)
        return self._asked[ticket]
