"""What it frees and costs to send a replica one step down, before anybody does it."""

from dataclasses import dataclass

from heliosd.core.lifecycle import State
from heliosd.core.names import DeviceId, ReplicaId
from heliosd.core.replicas import Replica
from heliosd.core.warm_pool import WarmPool


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one replica, as it is now. Bytes are those on all its devices together."""

    replica: ReplicaId
    model: str
    devices: tuple[DeviceId, ...]
    state: State
    leases: int
    held_bytes: int
    held_awake_bytes: int
    """What it was booked with to serve."""
    asleep_bytes: int
    """What it would still hold asleep."""
    sleepless: str | None
    """Why it cannot sleep; None: it can."""
    finish_s: float
    """Until the requests that it serves are probably done."""
    reload_s: float
    """To start it again."""
    wake_s: float
    reuse: float
    """How likely it is asked for again soon."""
    pinned: bool

    @property
    def sleeps(self) -> bool:
        """Its next step down is to sleep."""
        return self.state is State.READY and self.sleepless is None


def cost(pool: WarmPool, replica: Replica, at: float, sleepless: str | None) -> Cost:
    """`sleepless`: why it cannot sleep."""
    count, booked = len(replica.devices), replica.demand.per_device
    model = replica.demand.model
    return Cost(
        replica=replica.id,
        model=model,
        devices=replica.devices,
        state=replica.state,
        leases=len(replica.leases),
        held_bytes=pool.ledger.promised[replica.id][1].total_bytes * count,
        held_awake_bytes=booked.total_bytes * count,
        asleep_bytes=pool.residue_bytes(replica) * count,
        sleepless=sleepless,
        finish_s=pool.usage.lease(model) if replica.leases else 0.0,
        reload_s=pool.usage.reload(model, booked.total_bytes * count),
        wake_s=pool.usage.wake(model, booked.weights_bytes * count),
        reuse=pool.usage.reuse(model, at),
        pinned=replica.id in pool.pinned(),
    )
