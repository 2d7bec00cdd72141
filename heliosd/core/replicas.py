"""The scheduler's record of one replica: its state, its leases, and since when."""

from dataclasses import dataclass, field

from heliosd.core.eviction import Resident
from heliosd.core.lifecycle import LEAVING, State, advance
from heliosd.core.messages import Demand, Footprint
from heliosd.core.names import DeviceId, ReplicaId, Ticket
from heliosd.core.snapshot import ReplicaStatus


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
    ready_at: float | None = None
    last_used: float = 0.0
    measured: Footprint | None = None

    def become(self, state: State) -> None:
        self.state = advance(self.state, state)

    def serves(self, demand: Demand) -> bool:
        return self.demand.key == demand.key

    @property
    def idle(self) -> bool:
        return self.state is State.READY and not self.leases

    @property
    def expires_at(self) -> float:
        """When it has been idle for its keep-alive; never while it is used or not ready."""
        return self.last_used + self.keep_alive_s if self.idle else float("inf")

    def resident(self, booked: Footprint, loss_s: float) -> Resident:
        return Resident(
            id=self.id,
            model=self.demand.model,
            devices=self.devices,
            per_device=booked,
            ready=self.state is State.READY,
            leaving=self.state in LEAVING or self.state is State.FAILED,
            busy=bool(self.leases) and self.state is not State.FAILED,
            last_used=self.last_used,
            loss_s=loss_s,
        )

    def status(self) -> ReplicaStatus:
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
        )
