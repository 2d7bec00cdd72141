"""Who gives up room: a pure choice among replicas, each with its reason."""

from collections.abc import Iterable
from dataclasses import dataclass

from heliosd.core.messages import Footprint
from heliosd.core.names import DeviceId, ReplicaId


@dataclass(frozen=True, slots=True)
class Resident:
    """A replica as the policies see it."""

    id: ReplicaId
    model: str
    devices: tuple[DeviceId, ...]
    per_device: Footprint
    ready: bool
    """Only one that is ready or asleep, and not pinned, can be asked to go."""
    leaving: bool
    """Its room is already on the way back."""
    busy: bool
    last_used: float
    loss_s: float = 0.0
    """Seconds of waiting to be expected should it go: probability of reuse times seconds to have it back."""
    keeps_bytes: int = 0
    """What stays on each device when it goes: the residue of one that falls asleep."""
    pinned: bool = False
    """An operator wants it to stay."""

    @property
    def frees_bytes(self) -> int:
        return max(0, self.per_device.total_bytes - self.keeps_bytes)

    @property
    def density(self) -> float:
        """What a byte that it would free is worth to keep."""
        return self.loss_s / max(1, self.frees_bytes)


def by_worth(residents: Iterable[Resident]) -> list[Resident]:
    """Ready replicas, cheapest to lose first: the idle before the busy, then by the seconds of waiting that a byte of
    them saves, then the longest unused."""
    return sorted(
        (each for each in residents if each.ready),
        key=lambda each: (each.busy, each.density, each.last_used, each.id),
    )


def smallest_sufficient(candidates: Iterable[Resident], missing_bytes: int) -> tuple[Resident, ...]:
    """Take candidates in order until they cover what is missing, then leave out those that turn out not to be needed.

    Empty when they do not cover it, or nothing is missing.
    """
    taken: list[Resident] = []
    freed = 0
    for candidate in candidates:
        if freed >= missing_bytes:
            break
        taken.append(candidate)
        freed += candidate.frees_bytes
    if freed < missing_bytes:
        return ()
    for each in list(taken):
        if freed - each.frees_bytes >= missing_bytes:
            taken.remove(each)
            freed -= each.frees_bytes
    return tuple(taken)
