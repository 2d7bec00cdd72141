"""Which of many models share a node's devices: as much worth as fits, found in milliseconds. Values in, values out.

A multiple knapsack problem, which is NP-hard; `tests.bench.packing` scores this against an exact solver. Three starts
(largest first into the tightest gap, most worth for a byte first, each device filled as full as can be) are each mended
by exchanging what is left outside for what lies inside, and the best is taken.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from heliosd.core.names import DeviceId
from heliosd.core.units import MiB

GRAIN = 2048
"""Steps into which a device's room is divided when it is filled as full as can be."""
CANNOT_RUN = 1 << 62
MOST_ROUNDS = 40
MOST_REGROUPINGS = 8
MOST_REGROUPED = 500
"""Items times devices; beyond it nothing is tried the other way round."""
MOST_CANDIDATES = 64
"""Of what is left outside, so many are tried on each device."""


@dataclass(frozen=True, slots=True)
class Item:
    """A replica that may be placed."""

    name: str
    sizes: Mapping[str, int]
    """Bytes on each device, by kind of device; a kind that is missing cannot run it."""
    worth: float
    """What it is good for to have it placed; more than zero."""
    device_count: int = 1

    @property
    def size_bytes(self) -> int:
        """On all its devices together, of the kind that takes least."""
        return min(self.sizes.values(), default=0) * self.device_count


@dataclass(frozen=True, slots=True)
class Room:
    """A device's bytes that may be promised."""

    device: DeviceId
    free_bytes: int
    kind: str = ""
    """Only devices of one kind are put together for an item that needs several."""


@dataclass(frozen=True, slots=True)
class Packing:
    placed: dict[str, tuple[DeviceId, ...]]
    left: tuple[str, ...]
    worth: float
    free_bytes: dict[DeviceId, int]


def pack(items: Iterable[Item], rooms: Iterable[Room]) -> Packing:
    """Place as much worth as possible. The same input gives the same answer; names must be unique."""
    asked = sorted((each for each in items if each.worth > 0), key=lambda each: each.name)
    hopeless = [each.name for each in asked if not each.sizes]
    asked = [each for each in asked if each.sizes]
    there = sorted(rooms, key=lambda each: each.device)
    orders = (
        sorted(asked, key=lambda each: (-each.size_bytes, each.name)),
        sorted(asked, key=lambda each: (-_density(each), -each.size_bytes, each.name)),
    )
    tables = [_Table(there) for _ in range(4)]
    for table, order in zip(tables, orders, strict=False):
        for each in order:
            table.put_tightest(each)
    for each in (one for one in orders[1] if one.device_count > 1):
        tables[2].put_tightest(each)
        tables[3].put_tightest(each, loosest=True)
    for table in tables[2:]:
        table.fill([each for each in orders[1] if each.device_count == 1])
    for table in tables:
        table.exchange([each for each in orders[1] if each.name not in table.where])
    best = _regrouped(max(tables, key=lambda table: table.worth), asked)
    return Packing(
        placed={name: best.where[name] for name in sorted(best.where)},
        left=tuple(sorted([*hopeless, *(each.name for each in asked if each.name not in best.where)])),
        worth=best.worth,
        free_bytes=dict(best.free),
    )


def _regrouped(table: "_Table", items: Sequence[Item]) -> "_Table":
    """Items of several devices tried out of their place, and what is outside tried in, as long as that helps: what has
    to give way may find another place."""
    if len(items) * len(table.free) > MOST_REGROUPED:
        return table
    for _ in range(MOST_REGROUPINGS):
        better = next((each for each in _tries(table, items) if each.worth > table.worth * (1 + 1e-9)), None)
        if better is None:
            return table
        table = better
    return table


def _tries(table: "_Table", items: Sequence[Item]) -> Iterator["_Table"]:
    for each in items:
        if each.name in table.where and each.device_count > 1:
            tried = table.copy()
            tried.take(each)
            tried.exchange([one for one in items if one.name not in tried.where and one is not each])
            tried.exchange([one for one in items if one.name not in tried.where])
            yield tried
    outside = sorted((each for each in items if each.name not in table.where), key=lambda each: -each.worth)
    for each in outside[:MOST_CANDIDATES]:
        for kind in sorted(each.sizes):
            tried = table.copy()
            if tried.force(each, kind):
                tried.exchange([one for one in items if one.name not in tried.where])
                yield tried


def _density(item: Item) -> float:
    return item.worth / max(1, item.size_bytes)


class _Table:
    """One attempt: what lies where, and what is free."""

    def __init__(self, rooms: Sequence[Room]) -> None:
        self.free = {room.device: room.free_bytes for room in rooms}
        self.kinds = {room.device: room.kind for room in rooms}
        self.where: dict[str, tuple[DeviceId, ...]] = {}
        self.on: dict[DeviceId, dict[str, Item]] = {room.device: {} for room in rooms}
        self.worth = 0.0

    def copy(self) -> "_Table":
        other = _Table(())
        other.free, other.kinds, other.where = dict(self.free), self.kinds, dict(self.where)
        other.on = {device: dict(items) for device, items in self.on.items()}
        other.worth = self.worth
        return other

    def force(self, item: Item, kind: str) -> bool:
        """Onto devices of this kind, where it costs least worth; what gives way is left outside. False: too large."""
        costs: list[tuple[float, DeviceId, list[Item]]] = []
        for device in sorted(self.free):
            if self.kinds[device] != kind:
                continue
            inside = [each for each in self.on[device].values() if each.device_count == 1]
            room = self.free[device] + sum(self.size_on(device, each) for each in inside) - self.size_on(device, item)
            if room >= 0:
                stay = {each.name for each in _most_worth(self._sized(device, inside), room)}
                go = [each for each in inside if each.name not in stay]
                costs.append((sum(each.worth for each in go), device, go))
        chosen = sorted(costs, key=lambda each: each[:2])[: item.device_count]
        if len(chosen) < item.device_count:
            return False
        for *_, go in chosen:
            for each in go:
                self.take(each)
        self.put(item, tuple(sorted(device for _, device, _ in chosen)))
        return True

    def put(self, item: Item, devices: tuple[DeviceId, ...]) -> None:
        self.where[item.name] = devices
        self.worth += item.worth
        for device in devices:
            self.free[device] -= item.sizes[self.kinds[device]]
            self.on[device][item.name] = item

    def take(self, item: Item) -> None:
        self.worth -= item.worth
        for device in self.where.pop(item.name):
            self.free[device] += item.sizes[self.kinds[device]]
            del self.on[device][item.name]

    def put_tightest(self, item: Item, *, loosest: bool = False) -> bool:
        """Onto the devices that it leaves least free, or most; False where there are none."""
        found: list[tuple[int, list[DeviceId]]] = []
        for kind in sorted(set(self.kinds.values())):
            fitting = sorted(
                (device for device in self.free if self.kinds[device] == kind and self._holds(device, item)),
                key=lambda device: (-self.free[device] if loosest else self.free[device], device),
            )
            if len(fitting) >= item.device_count:
                chosen = fitting[: item.device_count]
                left = sum(self.free[device] for device in chosen)
                found.append((-left if loosest else left, chosen))
        if not found:
            return False
        self.put(item, tuple(sorted(min(found)[1])))
        return True

    def _holds(self, device: DeviceId, item: Item) -> bool:
        return self.free[device] >= self.size_on(device, item)

    def size_on(self, device: DeviceId, item: Item) -> int:
        """More than any device has where it cannot run there."""
        return item.sizes.get(self.kinds[device], CANNOT_RUN)

    def _sized(self, device: DeviceId, items: Iterable[Item]) -> list[tuple[Item, int]]:
        return [(each, self.size_on(device, each)) for each in items]

    def fill(self, items: Sequence[Item]) -> None:
        """Each device in turn as full of worth as can be, the smallest first."""
        left = list(items)
        for device in sorted(self.free, key=lambda each: (self.free[each], each)):
            for each in _most_worth(self._sized(device, left), self.free[device]):
                self.put(each, (device,))
            left = [each for each in left if each.name not in self.where]

    def exchange(self, outside: list[Item]) -> None:
        """Give what is worth less for what is worth more, as long as that helps."""
        for _ in range(MOST_ROUNDS):
            outside = [each for each in outside if not self.put_tightest(each) and not self._moved_for(each)]
            if not self._exchanged(outside):
                return

    def _moved_for(self, item: Item) -> bool:
        """Put it where one other makes room by moving to another device; the smallest that suffices is moved."""
        if item.device_count > 1:
            return False
        for device in sorted(self.free):
            missing = self.size_on(device, item) - self.free[device]
            inside = [each for each in self.on[device].values() if each.device_count == 1]
            for other in sorted(inside, key=lambda each: (self.size_on(device, each), each.name)):
                if self.size_on(device, other) < missing:
                    continue
                targets = [each for each in self.free if each != device and self._holds(each, other)]
                if targets:
                    self.take(other)
                    self.put(other, (min(targets, key=lambda each: (self.free[each], each)),))
                    self.put(item, (device,))
                    return True
        return False

    def _exchanged(self, outside: list[Item]) -> bool:
        """On each device the choice of most worth, from what lies there and what is outside; whether any was better."""
        single = [each for each in outside if each.device_count == 1]
        improved = False
        for device in sorted(self.free):
            inside = [each for each in self.on[device].values() if each.device_count == 1]
            room = self.free[device] + sum(self.size_on(device, each) for each in inside)
            near = [each for each in single if self.size_on(device, each) <= room][:MOST_CANDIDATES]
            if not near:
                continue
            chosen = _most_worth(self._sized(device, [*inside, *near]), room)
            gain = sum(each.worth for each in chosen) - sum(each.worth for each in inside)
            if gain <= 1e-9 * max(1.0, self.worth):
                continue
            kept = {each.name for each in chosen}
            for each in inside:
                if each.name not in kept:
                    self.take(each)
                    outside.append(each)
            for each in chosen:
                if each.name not in self.where:
                    self.put(each, (device,))
            outside[:] = [each for each in outside if each.name not in self.where]
            single = [each for each in outside if each.device_count == 1]
            improved = True
        return improved


def _most_worth(items: Sequence[tuple[Item, int]], room_bytes: int) -> list[Item]:
    """The choice of most worth that fits, of items with their sizes: a knapsack, exact but for sizes rounded up to a
    2,048th of the room."""
    possible = [(each, size) for each, size in items if size <= room_bytes]
    if sum(size for _, size in possible) <= room_bytes:
        return [each for each, _ in possible]
    grain = max(MiB, -(-room_bytes // GRAIN))
    width = room_bytes // grain
    best = [0.0] * (width + 1)
    taken = [0] * (width + 1)
    for at, (each, size_bytes) in enumerate(possible):
        size, bit = -(-size_bytes // grain), 1 << at
        for filled in range(width, size - 1, -1):
            with_it = best[filled - size] + each.worth
            if with_it > best[filled]:
                best[filled] = with_it
                taken[filled] = taken[filled - size] | bit
    full = max(range(width + 1), key=lambda filled: best[filled])
    return [each for at, (each, _) in enumerate(possible) if taken[full] >> at & 1]
