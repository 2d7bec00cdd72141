"""One set of devices, none of which may have the room right now, as a replica that wants it sees it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from heliosd.core.eviction import Resident, by_worth, smallest_sufficient
from heliosd.core.ledger import Ledger
from heliosd.core.names import DeviceId, ReplicaId
from heliosd.core.stages import Links


@dataclass(frozen=True, slots=True)
class DeviceOutlook:
    """One device of it. Groups share them, so that many groups are looked at for the price of their devices."""

    free_bytes: int
    missing_bytes: int
    """Zero or less: there is room."""
    here: tuple[Resident, ...]
    surely_bytes: int
    """On its way back, and nobody can hold it up."""
    coming_bytes: int
    """On its way back, some of it when the last lease ends."""
    idle: tuple[Resident, ...] | None
    """Idle replicas that suffice besides what is surely coming; None: they do not."""
    any: tuple[Resident, ...] | None
    """Ready replicas that suffice, the busy included, besides what is coming; None: they do not."""

    @classmethod
    def of(cls, device: DeviceId, need_bytes: int, ledger: Ledger, residents: Iterable[Resident]) -> "DeviceOutlook":
        free = ledger.free_bytes(device)
        missing = need_bytes - free
        if missing <= 0:
            return cls(free, missing, (), 0, 0, (), ())
        here = tuple(each for each in residents if device in each.devices)
        surely = sum(each.frees_bytes for each in here if each.leaving and not each.busy)
        coming = sum(each.frees_bytes for each in here if each.leaving)
        cheapest = by_worth(here)
        idle = smallest_sufficient([each for each in cheapest if not each.busy], missing - surely)
        busy = smallest_sufficient(cheapest, missing - coming)
        return cls(
            free_bytes=free,
            missing_bytes=missing,
            here=here,
            surely_bytes=surely,
            coming_bytes=coming,
            idle=idle if idle or surely >= missing else None,
            any=busy if busy or coming >= missing else None,
        )

    @property
    def comes_back(self) -> bool:
        return self.missing_bytes <= self.surely_bytes

    @property
    def hopeless(self) -> bool:
        return sum(each.per_device.total_bytes for each in self.here) < self.missing_bytes


@dataclass(frozen=True, slots=True)
class Outlook:
    devices: tuple[DeviceId, ...]
    link: Links
    """How far apart they are."""
    parts: Mapping[DeviceId, DeviceOutlook]
    """At least of these devices."""

    @property
    def free_bytes(self) -> int:
        return min(self.parts[device].free_bytes for device in self.devices)

    @property
    def comes_back(self) -> bool:
        """What is stopping already suffices: nobody else has to go."""
        return all(self.parts[device].comes_back for device in self.devices)

    @property
    def drains(self) -> bool:
        """What is on its way back suffices once its last leases are over: nobody else has to go."""
        return all(self.parts[device].missing_bytes <= self.parts[device].coming_bytes for device in self._lacking())

    def idle(self) -> tuple[Resident, ...]:
        """Idle replicas that suffice, else ()."""
        lacking = self._lacking()
        missing = {device: each.missing_bytes - each.surely_bytes for device, each in lacking.items()}
        return _together(lacking, [each.idle for each in lacking.values()], missing, busy=False)

    def any(self) -> tuple[Resident, ...]:
        """Ready replicas that suffice, the busy included, besides what is on its way out; else ()."""
        lacking = self._lacking()
        missing = {device: each.missing_bytes - each.coming_bytes for device, each in lacking.items()}
        return _together(lacking, [each.any for each in lacking.values()], missing, busy=True)

    @property
    def hopeless(self) -> bool:
        """Even without any of our replicas there is no room: foreign processes hold it."""
        return any(each.hopeless for each in self._lacking().values())

    @property
    def pinned(self) -> tuple[str, ...]:
        return tuple(sorted({one.model for each in self._lacking().values() for one in each.here if one.pinned}))

    def _lacking(self) -> dict[DeviceId, DeviceOutlook]:
        return {device: self.parts[device] for device in self.devices if self.parts[device].missing_bytes > 0}


def _together(
    parts: Mapping[DeviceId, DeviceOutlook],
    chosen: list[tuple[Resident, ...] | None],
    missing: Mapping[DeviceId, int],
    *,
    busy: bool,
) -> tuple[Resident, ...]:
    """What suits each device, all together, without those that turn out not to be needed.

    Where a replica frees room on several of the devices at once: the cheaper of that and of taking, one by one,
    whoever frees most for its worth.
    """
    if any(each is None for each in chosen):
        return ()
    each_its_own = {one.id: one for each in chosen for one in each or ()}
    here = [one for each in parts.values() for one in each.here if one.ready and (busy or not one.busy)]
    candidates = {one.id: one for one in here}
    if len(candidates) == len(here):
        return tuple(each_its_own.values())
    missing = {device: n_bytes for device, n_bytes in missing.items() if n_bytes > 0}
    greedy = _greedily(candidates, missing)
    return min(_needed(each_its_own, missing), _needed(greedy, missing), key=_cost)


def _greedily(candidates: Mapping[ReplicaId, Resident], missing: Mapping[DeviceId, int]) -> dict[ReplicaId, Resident]:
    """Take, until nothing is missing, the one that frees most of what still is for the seconds its loss costs."""
    left, still, taken = dict(candidates), dict(missing), dict[ReplicaId, Resident]()
    while left and any(n_bytes > 0 for n_bytes in still.values()):

        def price(one: Resident) -> tuple[bool, float, float, str]:
            useful = sum(min(one.frees_bytes, max(0, still.get(device, 0))) for device in one.devices)
            return one.busy, one.loss_s / useful if useful else float("inf"), one.last_used, one.id

        best = min(left.values(), key=price)
        taken[best.id] = left.pop(best.id)
        for device in best.devices:
            if device in still:
                still[device] -= best.frees_bytes
    return taken


def _needed(chosen: Mapping[ReplicaId, Resident], missing: Mapping[DeviceId, int]) -> tuple[Resident, ...]:
    """Leave out whoever is not needed, the dearest first."""
    kept = dict(chosen)
    spare = {
        device: sum(each.frees_bytes for each in kept.values() if device in each.devices) - n_bytes
        for device, n_bytes in missing.items()
    }
    for each in sorted(chosen.values(), key=lambda one: (one.busy, one.loss_s, one.last_used, one.id), reverse=True):
        concerned = [device for device in each.devices if device in missing]
        if all(spare[device] >= each.frees_bytes for device in concerned):
            del kept[each.id]
            for device in concerned:
                spare[device] -= each.frees_bytes
    return tuple(kept.values())


def _cost(chosen: tuple[Resident, ...]) -> tuple[int, float, int]:
    return sum(each.busy for each in chosen), sum(each.loss_s for each in chosen), len(chosen)
