"""The replicas on the devices as the policies see them, worked out once until something changes."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from heliosd.core.eviction import Resident
from heliosd.core.names import ReplicaId
from heliosd.core.warm_pool import WarmPool


@dataclass
class Residents:
    """Owned by the scheduler, which says when they are out of date."""

    pool: WarmPool
    _seen: dict[tuple[float, bool], list[Resident]] = field(default_factory=dict)

    def changed(self) -> None:
        """A replica is another than before, or what is booked for one."""
        self._seen.clear()

    def at(self, at: float, *, sleep: bool = False) -> list[Resident]:
        """All of them, with what is booked for each and what its loss would cost. With `sleep`, as those that would
        step down to sleep if they can."""
        if (there := self._seen.get((at, sleep))) is None:
            there = self._seen[at, sleep] = self.pool.residents(at, sleep=sleep)
        return there

    def cost_s(self, victims: Iterable[ReplicaId], at: float, *, sleep: bool = False) -> float:
        """What the loss of these is expected to cost."""
        chosen = set(victims)
        return sum(each.loss_s for each in self.at(at, sleep=sleep) if each.id in chosen)
