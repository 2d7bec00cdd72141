"""Who used how much device memory for how long: each replica's promise, divided among those it serves.

At every moment the bytes promised to a replica belong in equal parts to the requests that hold its leases, and to
nobody (`IDLE`) while there are none. Everything is a whole number of bytes times microseconds, and what does not divide
goes to one of those who share, so the parts of a replica add up to its promise's integral to the last byte.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from heliosd.core.messages import Footprint
from heliosd.core.names import DeviceId, ReplicaId, Ticket

IDLE = "(idle)"
"""The account of memory that is promised to a replica while nobody uses it."""
NO_KEY = "(none)"
"""The account of requests that came without an API key."""
MICROSECONDS = 1_000_000

Promises = Mapping[ReplicaId, tuple[tuple[DeviceId, ...], Footprint]]


class Tokens(NamedTuple):
    """As an engine counts them. `cached` are those of the prompt that it did not have to compute."""

    prompt: int = 0
    cached: int = 0
    completion: int = 0

    def plus(self, other: "Tokens") -> "Tokens":
        return Tokens(self.prompt + other.prompt, self.cached + other.cached, self.completion + other.completion)

    def minus(self, other: "Tokens") -> "Tokens":
        return Tokens(self.prompt - other.prompt, self.cached - other.cached, self.completion - other.completion)


NO_TOKENS = Tokens()


class Holding(NamedTuple):
    """Whose memory it was: an account, the replica's model, and the device it lies on."""

    account: str
    model: str
    device: DeviceId


@dataclass
class _Replica:
    model: str
    promise: tuple[tuple[DeviceId, ...], Footprint]
    settled_us: int
    users: dict[Ticket, str] = field(default_factory=dict)
    """Who holds its leases, and on which account."""


@dataclass
class MemoryMeter:
    """Is told of every change of promises and leases, in the order of their times, in seconds on any steady clock."""

    _replicas: dict[ReplicaId, _Replica] = field(default_factory=dict)
    _where: dict[Ticket, ReplicaId] = field(default_factory=dict)
    _used: dict[Holding, int] = field(default_factory=dict)
    _last_us: int = 0

    def granted(self, at: float, replica: ReplicaId, ticket: Ticket, account: str) -> None:
        """A request may use a replica from now on."""
        known = self._replicas.get(replica)
        if known is not None:
            self._settle(known, self._us(at))
            known.users[ticket] = account
            self._where[ticket] = replica

    def released(self, at: float, ticket: Ticket) -> None:
        """It uses it no more. Harmless when it did not."""
        known = self._replicas.get(self._where.pop(ticket, ReplicaId("")))
        if known is not None:
            self._settle(known, self._us(at))
            known.users.pop(ticket, None)

    def promised(self, at: float, promises: Promises, model_of: Callable[[ReplicaId], str]) -> None:
        """Take in what each replica is promised on each of its devices; one that is missing has ended."""
        for replica, promise in promises.items():
            known = self._replicas.get(replica)
            if known is None:
                self._replicas[replica] = _Replica(model_of(replica), promise, self._us(at))
            elif known.promise is not promise:
                self._settle(known, self._us(at))
                known.promise = promise
        if len(self._replicas) > len(promises):
            for replica in [each for each in self._replicas if each not in promises]:
                self._settle(self._replicas[replica], self._us(at))
                for ticket in self._replicas.pop(replica).users:
                    self._where.pop(ticket, None)

    def device_of(self, replica: ReplicaId) -> DeviceId | None:
        """The first of its devices; None when it is not known."""
        known = self._replicas.get(replica)
        return known.promise[0][0] if known is not None and known.promise[0] else None

    def take(self, at: float) -> dict[Holding, int]:
        """Bytes times microseconds of each holding since they were last taken, up to now."""
        now_us = self._us(at)
        for known in self._replicas.values():
            self._settle(known, now_us)
        used, self._used = self._used, {}
        return used

    def _us(self, at: float) -> int:
        """Times never go back: an event may be told after one that came later."""
        self._last_us = max(self._last_us, round(at * MICROSECONDS))
        return self._last_us

    def _settle(self, known: _Replica, now_us: int) -> None:
        span_us, known.settled_us = now_us - known.settled_us, now_us
        devices, per_device = known.promise
        if span_us <= 0 or not per_device.total_bytes:
            return
        for account, amount in split(per_device.total_bytes * span_us, known.users.values()).items():
            for device in devices:
                holding = Holding(account, known.model, device)
                self._used[holding] = self._used.get(holding, 0) + amount


def split(amount: int, accounts: Iterable[str]) -> dict[str, int]:
    """Divide an amount among accounts, an equal part for each time one is named; the parts add up to it exactly.

    Nobody named: all of it is idle.
    """
    counts: dict[str, int] = {}
    for account in accounts:
        counts[account] = counts.get(account, 0) + 1
    if not counts:
        return {IDLE: amount}
    part, rest = divmod(amount, sum(counts.values()))
    parts = {account: part * count for account, count in counts.items()}
    parts[min(parts)] += rest
    return parts
