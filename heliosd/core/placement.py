"""Whether a replica's bytes are to be had, on which devices, and at whose expense. Values in, values out."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

from heliosd.core.eviction import Resident, by_worth, smallest_sufficient
from heliosd.core.ledger import Ledger
from heliosd.core.messages import Demand
from heliosd.core.names import DeviceId, ReplicaId
from heliosd.core.units import format_bytes


@dataclass(frozen=True, slots=True)
class Fits:
    """Start it on these devices once the victims, all idle, are gone (none: now)."""

    devices: tuple[DeviceId, ...]
    victims: tuple[ReplicaId, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class MustWait:
    """The room exists but is in use."""

    devices: tuple[DeviceId, ...]
    drain: tuple[ReplicaId, ...]
    """Whom to drain should the wait grow too long; empty when enough is already on its way back."""
    reason: str


@dataclass(frozen=True, slots=True)
class NeverFits:
    """No set of devices here could hold it even if it were alone."""

    reason: str


Placement = Fits | MustWait | NeverFits


def place(
    demand: Demand,
    ledger: Ledger,
    residents: Iterable[Resident],
    claimed: frozenset[DeviceId] = frozenset(),
    *,
    only: tuple[DeviceId, ...] | None = None,
    barred: frozenset[tuple[DeviceId, ...]] = frozenset(),
) -> Placement:
    """Find the best place for `demand`.

    Preference: a place with free room, the tightest first; else one where idle replicas make room, those whose loss
    costs the fewest seconds; else one to wait for. Devices that fail are not considered. What older requests wait for
    (`claimed`) is left to them. `only` is the place of a sleeper that wakes; `barred` are groups on which it failed.
    """
    residents = tuple(residents)
    need = demand.per_device.total_bytes
    groups = [only] if only else [group for group in _device_groups(ledger, demand) if group not in barred]
    possible = [group for group in groups if all(ledger.lasting_bytes(device) >= need for device in group)]
    if not possible:
        return NeverFits(_never(demand, ledger, groups))
    possible = [group for group in possible if not claimed & set(group)]
    if not possible:
        return MustWait(
            (), (), f"needs {format_bytes(need)}; an older request waits for {_names(tuple(sorted(claimed)))}"
        )
    free_now = [group for group in possible if _free(ledger, group) >= need]
    if free_now:
        group = min(free_now, key=lambda each: (_free(ledger, each), each))
        return Fits(
            group, (), f"needs {format_bytes(need)}, {format_bytes(_free(ledger, group))} free on {_names(group)}"
        )
    return _make_room(demand, ledger, residents, possible)


def _make_room(
    demand: Demand, ledger: Ledger, residents: tuple[Resident, ...], possible: list[tuple[DeviceId, ...]]
) -> Fits | MustWait:
    need = demand.per_device.total_bytes
    views = [_Outlook.of(group, need, ledger, residents) for group in possible]
    soon = [view for view in views if view.comes_back]
    if soon:
        return min(soon, key=lambda view: view.devices).wait(need)
    idle = [view for view in views if view.idle]
    if idle:
        view = min(
            idle,
            key=lambda each: (
                sum(victim.loss_s for victim in each.idle),
                max(victim.last_used for victim in each.idle),
                len(each.idle),
                each.devices,
            ),
        )
        names = ", ".join(
            f"{each.model} ({each.id}, {format_bytes(each.per_device.total_bytes)}, {each.loss_s:.1f} s)"
            for each in view.idle
        )
        reason = f"{view.missing(need)}; idle, enough, and cheapest to start again: {names}"
        return Fits(view.devices, tuple(each.id for each in view.idle), reason)
    return min(views, key=lambda view: (not view.any, sum(each.busy for each in view.any), view.devices)).wait(need)


@dataclass(frozen=True, slots=True)
class _Outlook:
    """One group of devices, none of which has the room right now, as a request that wants it sees it."""

    devices: tuple[DeviceId, ...]
    free_bytes: int
    comes_back: bool
    """What is stopping already suffices: nobody else has to go."""
    idle: tuple[Resident, ...]
    """Idle replicas that suffice, else ()."""
    any: tuple[Resident, ...]
    """Ready replicas that suffice, the busy included, besides what is on its way out; else ()."""
    hopeless: bool
    """Even without any of our replicas there is no room: foreign processes hold it."""
    holders: tuple[str, ...]
    pinned: tuple[str, ...]

    @classmethod
    def of(
        cls, devices: tuple[DeviceId, ...], need: int, ledger: Ledger, residents: tuple[Resident, ...]
    ) -> "_Outlook":
        comes_back = idle_suffices = any_suffices = True
        hopeless = False
        pinned: set[str] = set()
        idle: dict[ReplicaId, Resident] = {}
        ready: dict[ReplicaId, Resident] = {}
        for device in devices:
            missing = need - ledger.free_bytes(device)
            if missing <= 0:
                continue
            here = [each for each in residents if device in each.devices]
            surely = sum(each.frees_bytes for each in here if each.leaving and not each.busy)
            coming = sum(each.frees_bytes for each in here if each.leaving)
            comes_back &= surely >= missing
            hopeless |= sum(each.per_device.total_bytes for each in here) < missing
            pinned |= {each.model for each in here if each.pinned}
            only_idle = smallest_sufficient([each for each in by_worth(here) if not each.busy], missing - surely)
            with_busy = smallest_sufficient(by_worth(here), missing - coming)
            idle_suffices &= bool(only_idle) or surely >= missing
            any_suffices &= bool(with_busy) or coming >= missing
            idle |= {each.id: each for each in only_idle}
            ready |= {each.id: each for each in with_busy}
        return cls(
            devices=devices,
            free_bytes=_free(ledger, devices),
            comes_back=comes_back,
            idle=tuple(idle.values()) if idle_suffices else (),
            any=tuple(ready.values()) if any_suffices else (),
            hopeless=hopeless,
            holders=tuple(sorted({each.model for each in residents if set(each.devices) & set(devices)})),
            pinned=tuple(sorted(pinned)),
        )

    def missing(self, need: int) -> str:
        return f"needs {format_bytes(need)}, {format_bytes(self.free_bytes)} free on {_names(self.devices)}"

    def wait(self, need: int) -> MustWait:
        """Nothing is claimed where only foreign processes stand in the way: nobody knows when they leave."""
        if self.hopeless:
            return MustWait((), (), f"{self.missing(need)}; foreign processes hold the rest")
        if not self.any and not self.comes_back and self.pinned:
            return MustWait((), (), f"{self.missing(need)}; {', '.join(self.pinned)} are pinned there")
        drain = () if self.comes_back else tuple(each.id for each in self.any)
        return MustWait(self.devices, drain, f"{self.missing(need)}; the rest is held by {', '.join(self.holders)}")


def _device_groups(ledger: Ledger, demand: Demand) -> Iterable[tuple[DeviceId, ...]]:
    """Sets of `count` healthy devices of equal kind and size; those with most free room for more than one."""
    count = demand.device_count
    usable = [
        device
        for device in ledger.devices.values()
        if ledger.healthy(device.id) and (not demand.kinds or device.kind in demand.kinds)
    ]
    if count == 1:
        yield from ((device.id,) for device in usable)
        return
    alike = sorted(usable, key=lambda device: (device.kind, device.name, device.capacity_bytes))
    for _, same in groupby(alike, key=lambda device: (device.kind, device.name, device.capacity_bytes)):
        ids = sorted((device.id for device in same), key=lambda device: (-ledger.free_bytes(device), device))
        if len(ids) >= count:
            yield tuple(sorted(ids[:count]))


def _never(demand: Demand, ledger: Ledger, groups: list[tuple[DeviceId, ...]]) -> str:
    each = demand.per_device
    parts = (
        f"{demand.model} needs {format_bytes(each.total_bytes)} on "
        f"{'one device' if demand.device_count == 1 else f'each of {demand.device_count} equal devices'} "
        f"({format_bytes(each.weights_bytes)} weights + {format_bytes(each.kv_cache_bytes)} KV cache + "
        f"{format_bytes(each.overhead_bytes)} overhead)"
    )
    if not ledger.devices:
        return f"{parts}; this node has no device for engines"
    if not groups:
        healthy = sum(1 for device in ledger.devices if ledger.healthy(device))
        return f"{parts}; this node has {healthy} healthy of {len(ledger.devices)} devices, too few of one kind"
    best = max(min(ledger.lasting_bytes(device) for device in group) for group in groups)
    missing = each.total_bytes - best
    return (
        f"{parts}; the largest here offers {format_bytes(best)} after the safety margin, "
        f"{format_bytes(missing)} too little"
        + (
            f": a KV cache of {format_bytes(each.kv_cache_bytes - missing)} would fit (set kv_cache or max_model_len)"
            if each.kv_cache_bytes > missing
            else ": it needs a smaller precision, more devices (tensor_parallel) or a larger device"
        )
    )


def _free(ledger: Ledger, group: tuple[DeviceId, ...]) -> int:
    return min(ledger.free_bytes(device) for device in group)


def _names(group: tuple[DeviceId, ...]) -> str:
    return "+".join(group)
