"""Moves of idle replicas that make one place large enough where only all free room together is. Values in, values out.

A search by cost: each step moves one idle replica off a device that has too little, to one of its like; that one may
have too little then, and gives up another. The cheapest state so far goes first, so that the first plan found costs the
fewest seconds of starting again; the number of moves and of states looked at is bounded.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from heapq import heappop, heappush

from heliosd.core.eviction import Resident
from heliosd.core.hardware import Device
from heliosd.core.ledger import Ledger
from heliosd.core.messages import Demand
from heliosd.core.names import DeviceId, ReplicaId
from heliosd.core.stages import Links, arranged, described_stages, links
from heliosd.core.topology import groups
from heliosd.core.units import format_bytes

MOST_MOVES = 4
"""More would move half a node for one request."""
MOST_STATES = 2000
"""Looked at for one demand: a third of a millisecond as a rule, some fifty when there is nothing to be found."""


@dataclass(frozen=True, slots=True)
class Move:
    replica: ReplicaId
    model: str
    start: DeviceId
    """Where it is."""
    end: DeviceId
    n_bytes: int
    reload_s: float
    copied: bool
    """There is room to start the new one before the old one stops."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Carry the moves out in their order, then the demand fits on `devices`.

    What cannot be copied is stopped in its turn, and started at its end once the others have gone from there.
    """

    devices: tuple[DeviceId, ...]
    moves: tuple[Move, ...]
    reason: str

    @property
    def cost_s(self) -> float:
        return sum(move.reload_s for move in self.moves)


@dataclass(order=True, slots=True)
class _State:
    least_s: float
    """What the moves cost, and what is missing still will at least; tenths decide."""
    moves: int
    link: Links
    """Of the place."""
    number: int
    """So that equal ones come in the order in which they were thought of."""
    devices: tuple[DeviceId, ...] = field(compare=False)
    at: Mapping[ReplicaId, DeviceId] = field(compare=False)
    """Who was moved, and where to."""


def defragment(
    demand: Demand,
    ledger: Ledger,
    residents: Iterable[Resident],
    reload_s: Mapping[ReplicaId, float],
    claimed: frozenset[DeviceId] = frozenset(),
    most_states: int = MOST_STATES,
) -> Plan | None:
    """The cheapest moves after which `demand` fits without a loss; None when it fits anyway, or none are found.

    Idle replicas of one device move, within devices of their kind, name and capacity; sleepers, the pinned and the busy
    stay. `reload_s`: seconds that a start of each takes. What older requests wait for (`claimed`) is left as it is.
    """
    usable = {
        device.id: device
        for device in ledger.devices.values()
        if ledger.healthy(device.id) and device.id not in claimed
    }
    free = {device: ledger.free_bytes(device) for device in usable}
    need, count = demand.per_device.total_bytes, demand.device_count
    fitting = {name: device for name, device in usable.items() if not demand.kinds or device.kind in demand.kinds}
    stages = demand.pipeline_parallel
    places = [
        arranged(place, fitting, stages)
        for place in groups(fitting, count, free, need, stages)
        if all(ledger.lasting_bytes(device) >= need for device in place)
    ]
    fits_now = any(all(free[device] >= need for device in place) for place in places)
    if fits_now or sum(max(0, free[device]) for device in fitting) < need * count:
        return None
    movable = {
        each.id: each
        for each in residents
        if each.ready and not each.busy and len(each.devices) == 1 and each.devices[0] in usable
        if each.id not in ledger.sleeping and each.id in reload_s
    }
    search = _Search(need, usable, free, movable, reload_s, most_states)
    found = search.cheapest(places, stages)
    return None if found is None else search.plan(found, demand)


class _Search:
    def __init__(
        self,
        need: int,
        devices: Mapping[DeviceId, Device],
        free: Mapping[DeviceId, int],
        movable: Mapping[ReplicaId, Resident],
        reload_s: Mapping[ReplicaId, float],
        most_states: int,
    ) -> None:
        self._most_states = most_states
        self._need = need
        self._devices = devices
        self._free = free
        self._movable = movable
        self._reload_s = reload_s
        self._on: dict[DeviceId, list[Resident]] = {device: [] for device in devices}
        for each in movable.values():
            if each.per_device.total_bytes > 0:
                self._on[each.devices[0]].append(each)
        self._like: dict[tuple[str, str, int], list[DeviceId]] = {}
        for device in devices.values():
            self._like.setdefault((device.kind, device.name, device.capacity_bytes), []).append(device.id)

    def cheapest(self, places: list[tuple[DeviceId, ...]], stages: int) -> _State | None:
        heap: list[_State] = []
        far = {place: links(place, self._devices, stages) for place in places}
        seen: set[tuple[tuple[DeviceId, ...], frozenset[tuple[ReplicaId, DeviceId]]]] = set()
        number = 0

        def push(devices: tuple[DeviceId, ...], at: Mapping[ReplicaId, DeviceId]) -> None:
            nonlocal number
            key = devices, frozenset(at.items())
            if key in seen or number >= self._most_states:
                return
            seen.add(key)
            number += 1
            least_s = self._least_s(devices, at)
            if least_s is not None:
                heappush(heap, _State(round(least_s, 1), len(at), far[devices], number, devices, at))

        for place in places:
            push(place, {})
        while heap and number < self._most_states:
            state = heappop(heap)
            lacking = self._lacking(state.devices, state.at)
            if not lacking:
                return state
            if state.moves < MOST_MOVES:
                for at in self._steps(state, max(lacking, key=lambda device: (lacking[device], device))):
                    push(state.devices, at)
        return None

    def _lacking(self, place: tuple[DeviceId, ...], at: Mapping[ReplicaId, DeviceId]) -> dict[DeviceId, int]:
        """What each device has too little once the demand and all who moved are where they go."""
        change = dict.fromkeys(place, self._need)
        for replica, end in at.items():
            resident = self._movable[replica]
            start, n_bytes = resident.devices[0], resident.per_device.total_bytes
            change[end] = change.get(end, 0) + n_bytes
            change[start] = change.get(start, 0) - n_bytes
        return {
            device: n_bytes - self._free[device]
            for device, n_bytes in change.items()
            if n_bytes > max(0, self._free[device])
        }

    def _least_s(self, place: tuple[DeviceId, ...], at: Mapping[ReplicaId, DeviceId]) -> float | None:
        """The cost so far, and of what is missing at the price of the cheapest byte there; None: it cannot be had."""
        total_s = sum(self._reload_s[replica] for replica in at)
        for device, n_bytes in self._lacking(place, at).items():
            here = self._left_on(device, at)
            if sum(each.per_device.total_bytes for each in here) < n_bytes:
                return None
            total_s += n_bytes * min(self._reload_s[each.id] / each.per_device.total_bytes for each in here)
        return total_s

    def _left_on(self, device: DeviceId, at: Mapping[ReplicaId, DeviceId]) -> list[Resident]:
        return [each for each in self._on[device] if each.id not in at]

    def _steps(self, state: _State, device: DeviceId) -> Iterator[dict[ReplicaId, DeviceId]]:
        """Every replica of a device, to every other device of its like."""
        one = self._devices[device]
        for resident in self._left_on(device, state.at):
            for end in self._like[one.kind, one.name, one.capacity_bytes]:
                if end != device:
                    yield {**state.at, resident.id: end}

    # ---- what is told -------------------------------------------------------------

    def plan(self, state: _State, demand: Demand) -> Plan:
        moves = self._ordered(state.at)
        freest = max(self._free.values())
        told = ", ".join(
            f"{move.model} ({move.replica}, {format_bytes(move.n_bytes)}, {move.reload_s:.1f} s) from {move.start} "
            f"to {move.end}"
            for move in moves
        )
        reason = (
            f"{demand.model} needs {format_bytes(self._need)} on "
            f"{described_stages(state.devices, self._devices, demand.pipeline_parallel)}; at most "
            f"{format_bytes(freest)} are free on one device, {format_bytes(sum(self._free.values()))} on all "
            f"{len(self._free)}; enough when these move: {told}"
        )
        return Plan(state.devices, moves, reason)

    def _ordered(self, at: Mapping[ReplicaId, DeviceId]) -> tuple[Move, ...]:
        """First those that have room to start before they stop; where none has, the cheapest stops first."""
        free, left, moves = dict(self._free), dict(at), list[Move]()
        while left:
            roomy = [each for each in left if free[left[each]] >= self._movable[each].per_device.total_bytes]
            chosen = min(roomy or left, key=lambda each: (self._reload_s[each], each))
            resident, end = self._movable[chosen], left.pop(chosen)
            start, n_bytes = resident.devices[0], resident.per_device.total_bytes
            free[end] -= n_bytes
            free[start] += n_bytes
            moves.append(Move(chosen, resident.model, start, end, n_bytes, self._reload_s[chosen], copied=bool(roomy)))
        return tuple(moves)
