"""The scheduler's record of one replica: its state, its leases, and since when."""

from dataclasses import dataclass, field

from heliosd.core.lifecycle import State, advance
from heliosd.core.messages import Demand, Footprint
from heliosd.core.names import DeviceId, ReplicaId, Ticket
from heliosd.core.pressure import Pressure
from heliosd.core.routing import Prefixes
from heliosd.core.snapshot import MemoryStatus, ReplicaStatus


@dataclass
class Replica:
    """Written only by the scheduler. Leases are a set of tickets, so releasing twice is harmless."""

    id: ReplicaId
    demand: Demand
    devices: tuple[DeviceId, ...]
    started_at: float
    keep_alive_s: float
    """Of its demand, until the operator changes it."""
    state: State = State.PLANNED
    leases: set[Ticket] = field(default_factory=set)
    granted_at: dict[Ticket, float] = field(default_factory=dict)
    ready_at: float | None = None
    last_used: float = 0.0
    measured: Footprint | None = None
    sleep_levels: frozenset[int] = frozenset()
    """How its engine can sleep."""
    swaps: bool = False
    """Its engine can become another model's of the same mould."""
    swapped: bool = False
    """It began in another's engine."""
    then_sleep: bool = False
    """Draining, it sleeps rather than stops when the last lease is over."""
    slept_at: float | None = None
    level: int = 0
    """At which it sleeps, or last slept."""
    prefixes: Prefixes = field(default_factory=Prefixes)
    died_while: State | None = None
    """What it was when its engine ended by itself."""
    phases_done: tuple[str, ...] = ()
    """Of its start."""
    progressed_at: float | None = None
    """When the last of them ended."""
    pressure: Pressure = field(init=False)

    def __post_init__(self) -> None:
        most = self.demand.max_num_seqs
        self.pressure = Pressure(most, most)

    def become(self, state: State) -> None:
        self.state = advance(self.state, state)

    def progressed(self, phase: str, at: float) -> None:
        """A phase of its start has ended."""
        if self.state is State.STARTING:
            self.phases_done, self.progressed_at = (*self.phases_done, phase), at

    @property
    def load(self) -> int:
        """Requests it works on."""
        return len(self.leases)

    @property
    def open(self) -> bool:
        """It may work on one more request."""
        return self.state is State.READY and len(self.leases) < self.pressure.limit

    def grant(self, ticket: Ticket, at: float, prefix: tuple[int, ...]) -> None:
        self.leases.add(ticket)
        self.granted_at[ticket] = self.last_used = at
        self.prefixes.read(prefix)

    def release(self, ticket: Ticket, at: float) -> float:
        """Take a lease back; returns how long it was held, in seconds."""
        self.leases.remove(ticket)
        self.last_used = at
        return at - self.granted_at.pop(ticket, at)

    def serves(self, demand: Demand) -> bool:
        return self.demand.key == demand.key

    @property
    def idle(self) -> bool:
        return self.state is State.READY and not self.leases

    @property
    def expires_at(self) -> float:
        """When it has been idle for its keep-alive; never while it is used or not ready."""
        return self.last_used + self.keep_alive_s if self.idle else float("inf")

    def status(self, pinned: bool = False, memory: MemoryStatus | None = None) -> ReplicaStatus:
        return ReplicaStatus(
            id=self.id,
            model=self.demand.model,
            revision=self.demand.revision,
            state=self.state,
            devices=self.devices,
            leases=frozenset(self.leases),
            promised=self.demand.per_device,
            measured=self.measured,
            started_at=self.started_at,
            idle_since=self.last_used if self.idle else None,
            keep_alive_s=self.keep_alive_s,
            level=self.level if self.state in (State.SLEEPING, State.ASLEEP, State.WAKING) else 0,
            limit=self.pressure.limit,
            kv_used_ratio=self.pressure.used_ratio,
            pinned=pinned,
            memory=memory,
        )
