"""Whether a replica's bytes are to be had, on which devices, and at whose expense. Values in, values out."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from heliosd.core.eviction import Resident
from heliosd.core.hardware import DeviceKind
from heliosd.core.ledger import Ledger
from heliosd.core.messages import Demand
from heliosd.core.names import DeviceId, PeerName, ReplicaId
from heliosd.core.outlook import DeviceOutlook, Outlook
from heliosd.core.stages import Links, arranged, described_stages, links
from heliosd.core.topology import groups
from heliosd.core.units import GiB, format_bytes


@dataclass(frozen=True, slots=True)
class Fits:
    """Start it on these devices once the victims, all idle, are gone (none: now)."""

    devices: tuple[DeviceId, ...]
    victims: tuple[ReplicaId, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class MustWait:
    """The room exists but is in use, or fails for now."""

    devices: tuple[DeviceId, ...]
    drain: tuple[ReplicaId, ...]
    """Whom to drain should the wait grow too long; empty when enough is already on its way back."""
    reason: str
    soon: bool = False
    """Enough is on its way back: nobody else has to go."""
    out: tuple[DeviceId, ...] = ()
    """Not empty: the only devices that could hold it fail, or it failed on them and is not tried there for a while."""


@dataclass(frozen=True, slots=True)
class NeverFits:
    """No set of devices here could hold it even if it were alone and all of them worked."""

    reason: str


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """A peer is expected to serve it sooner than this node, where it must wait or can never fit. See `neighbours`."""

    peer: PeerName
    reason: str
    """Shows the seconds here and there."""


IDLE_GIB_S = 0.1
"""Among places where idle replicas make room, what would lie idle there afterwards counts as so many seconds: it could
have kept somebody ready. Chosen by simulation (`tests.bench.traces`): it commits 1 % more memory at no more swaps."""

Placement = Fits | MustWait | NeverFits
"""What this node's own devices say."""
Verdict = Placement | Elsewhere


def place(
    demand: Demand,
    ledger: Ledger,
    residents: Iterable[Resident],
    claimed: frozenset[DeviceId] = frozenset(),
    *,
    only: tuple[DeviceId, ...] | None = None,
    barred: frozenset[tuple[DeviceId, ...]] = frozenset(),
    idle_gib_s: float = IDLE_GIB_S,
) -> Placement:
    """Find the best place for `demand`.

    In this order: a place with free room; one where enough is on its way back already; one where idle replicas make
    room, those whose loss costs the fewest seconds, what is left over priced too (tenths decide, less is noise); one to
    wait for. Among equals of several devices those with the better link (NVLink, PCIe switch, PCIe host bridge, same
    NUMA node, the rest), inside the stages of a pipeline first, then the tightest. Devices that fail or run out are not
    considered; where only those that fail could hold it, it must wait for them. What older requests wait for
    (`claimed`) is left to them. `only` is the place of a sleeper that wakes; `barred` are groups on which it failed;
    `idle_gib_s` is the price of a GiB that is left over.
    """
    residents = tuple(residents)
    need = demand.per_device.total_bytes
    possible = [group for group in _able(demand, ledger, only) if group not in barred]
    if not possible:
        if later := _able(demand, ledger, only, failing=True):
            return _out_for_now(demand, ledger, later)
        return NeverFits(_never(demand, ledger, [only] if only else _groups(ledger, demand, failing=True)))
    possible = [group for group in possible if not claimed & set(group)]
    if not possible:
        return MustWait(
            (), (), f"needs {format_bytes(need)}; a request before it waits for {'+'.join(sorted(claimed))}"
        )
    running_out = [group for group in possible if ledger.running_out & set(group)]
    possible = [group for group in possible if group not in running_out]
    if not possible:
        names = ", ".join("+".join(group) for group in running_out)
        return MustWait((), (), f"needs {format_bytes(need)}; {names} will soon be full of foreign memory")
    views = {
        device: DeviceOutlook.of(device, need, ledger, residents)
        for device in sorted({device for group in possible for device in group})
    }
    stages = demand.pipeline_parallel
    outlooks = [Outlook(group, links(group, ledger.devices, stages), views) for group in possible]
    free_now = [each for each in outlooks if each.free_bytes >= need]
    if free_now:
        best = min(free_now, key=lambda each: (each.link, each.free_bytes, _spare(each, views), each.devices))
        return Fits(best.devices, (), _free_on(best, demand, ledger))
    return _make_room(demand, ledger, residents, outlooks, idle_gib_s)


def _make_room(
    demand: Demand, ledger: Ledger, residents: tuple[Resident, ...], outlooks: list[Outlook], idle_gib_s: float
) -> Fits | MustWait:
    soon = [each for each in outlooks if each.comes_back]
    if soon:
        return _wait(min(soon, key=lambda each: (each.link, each.devices)), (), demand, ledger, residents)
    idle = [(each, victims) for each in outlooks if (victims := each.idle())]
    if idle:
        best, victims = min(idle, key=lambda each: _price(each[0], each[1], idle_gib_s))
        names = ", ".join(
            f"{each.model} ({each.id}, {format_bytes(each.per_device.total_bytes)}, {each.loss_s:.1f} s)"
            for each in victims
        )
        reason = f"{_free_on(best, demand, ledger)}; idle, enough, and cheapest to start again: {names}"
        return Fits(best.devices, tuple(each.id for each in victims), reason)
    draining = [each for each in outlooks if each.drains]
    if draining:
        return _wait(min(draining, key=lambda each: (each.link, each.devices)), (), demand, ledger, residents)
    ready = [(each, each.any()) for each in outlooks]
    least, drain = min(
        ready, key=lambda each: (not each[1], sum(one.busy for one in each[1]), each[0].link, each[0].devices)
    )
    return _wait(least, drain, demand, ledger, residents)


def _price(
    place: Outlook, victims: tuple[Resident, ...], idle_gib_s: float
) -> tuple[float, Links, float, float, int, tuple[DeviceId, ...]]:
    alone = len(place.devices) == 1  # of several devices the link matters more
    left_gib = (place.free_bytes + _least_freed(place, victims)) / GiB if alone else 0.0
    loss_s = sum(each.loss_s for each in victims) + idle_gib_s * left_gib
    latest = max(each.last_used for each in victims)
    return round(loss_s, 1), place.link, loss_s, latest, len(victims), place.devices


def _least_freed(place: Outlook, victims: tuple[Resident, ...]) -> int:
    """What the victims free on the device of the place where that is least."""
    return min(sum(each.frees_bytes for each in victims if device in each.devices) for device in place.devices)


def _wait(
    view: Outlook, drain: tuple[Resident, ...], demand: Demand, ledger: Ledger, residents: tuple[Resident, ...]
) -> MustWait:
    """Nothing is claimed where only foreign processes stand in the way: nobody knows when they leave."""
    missing = _free_on(view, demand, ledger)
    if view.hopeless:
        return MustWait((), (), f"{missing}; foreign processes hold the rest")
    if not drain and not view.comes_back and view.pinned:
        return MustWait((), (), f"{missing}; {', '.join(view.pinned)} are pinned there")
    holders = sorted({each.model for each in residents if set(each.devices) & set(view.devices)})
    held = f"{missing}; the rest is held by {', '.join(holders)}"
    return MustWait(view.devices, tuple(each.id for each in drain), held, view.comes_back)


def _free_on(view: Outlook, demand: Demand, ledger: Ledger) -> str:
    where = described_stages(view.devices, ledger.devices, demand.pipeline_parallel)
    why = f" ({demand.division_reason})" if demand.division_reason else ""
    return f"needs {format_bytes(demand.per_device.total_bytes)}, {format_bytes(view.free_bytes)} free on {where}{why}"


def _spare(view: Outlook, views: Mapping[DeviceId, DeviceOutlook]) -> int:
    return sum(views[device].free_bytes for device in view.devices)


def _able(
    demand: Demand, ledger: Ledger, only: tuple[DeviceId, ...] | None, *, failing: bool = False
) -> list[tuple[DeviceId, ...]]:
    """The places that could hold it if it were alone; with `failing`, those too that fail for now."""
    places = [only] if only else _groups(ledger, demand, failing=failing)
    need = demand.per_device.total_bytes
    return [
        group
        for group in places
        if all(ledger.lasting_bytes(each) >= need and (failing or ledger.healthy(each)) for each in group)
    ]


def _out_for_now(demand: Demand, ledger: Ledger, places: list[tuple[DeviceId, ...]]) -> MustWait:
    """All places that could hold it fail, or it failed there."""
    devices = sorted({device for group in places for device in group})
    failing = [device for device in devices if not ledger.healthy(device)]
    why = ", ".join(f"{device} ({ledger.fault(device)})" for device in failing)
    if not failing:
        why = f"{', '.join('+'.join(group) for group in places)} (it failed there)"
    needs = f"needs {format_bytes(demand.per_device.total_bytes)}"
    return MustWait((), (), f"{needs}; what could hold it is out for now: {why}", out=tuple(failing or devices))


def _groups(ledger: Ledger, demand: Demand, *, failing: bool = False) -> list[tuple[DeviceId, ...]]:
    """Sets of healthy devices of the kinds it was estimated for, over which it could be split, stage by stage; with
    `failing`, of those too that fail for now."""
    usable = {
        device.id: device
        for device in ledger.devices.values()
        if (failing or ledger.healthy(device.id))
        and (not demand.kinds or device.kind in demand.kinds)
        and (not demand.within or device.id in demand.within)
    }
    free = {device: ledger.free_bytes(device) for device in usable}
    stages = demand.pipeline_parallel
    found = groups(usable, demand.device_count, free, demand.per_device.total_bytes, stages)
    return found if stages == 1 else [arranged(group, usable, stages) for group in found]


def _never(demand: Demand, ledger: Ledger, groups: list[tuple[DeviceId, ...]]) -> str:
    each = demand.per_device
    parts = (
        f"{demand.model} needs {format_bytes(each.total_bytes)} on "
        f"{'one device' if demand.device_count == 1 else f'each of {demand.device_count} equal devices'}"
        f"{f' in {demand.pipeline_parallel} pipeline stages' if demand.pipeline_parallel > 1 else ''} "
        f"({format_bytes(each.weights_bytes)} weights + {format_bytes(each.kv_cache_bytes)} KV cache + "
        f"{format_bytes(each.overhead_bytes)} overhead)"
    )
    if not ledger.devices:
        return f"{parts}; this node has no device for engines"
    if not groups and demand.device_count > 1 and any(_is_slice(ledger, device) for device in ledger.devices):
        return f"{parts}; {_slices(demand, ledger)}"
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
            else ": it needs a smaller precision, more devices (tensor_parallel, pipeline_parallel) or a larger device"
        )
    )


def _is_slice(ledger: Ledger, device: DeviceId) -> bool:
    return ledger.healthy(device) and ledger.devices[device].kind is DeviceKind.MIG


def _slices(demand: Demand, ledger: Ledger) -> str:
    """Why slices are no help, and whether the largest of them would take the whole model."""
    each, count = demand.per_device, demand.device_count
    whole = count * (each.weights_bytes + each.kv_cache_bytes) + each.overhead_bytes
    largest = max(ledger.lasting_bytes(device) for device in ledger.devices if _is_slice(ledger, device))
    settings = "tensor_parallel" if demand.pipeline_parallel == 1 else "tensor_parallel and pipeline_parallel"
    return (
        "MIG slices have no way to reach one another, so each serves alone: the whole model needs about "
        f"{format_bytes(whole)} ({count} x {format_bytes(each.weights_bytes + each.kv_cache_bytes)} + "
        f"{format_bytes(each.overhead_bytes)}), the largest slice offers {format_bytes(largest)}: "
        + (f"set {settings} to 1" if whole <= largest else f"it needs {count} GPUs that are not sliced")
    )
