"""How near devices are to one another, and over which sets of them one replica could be split. Pure values."""

from collections.abc import Iterator, Mapping
from itertools import combinations, groupby
from math import comb

from heliosd.core.hardware import Device, DeviceKind, LinkKind
from heliosd.core.names import DeviceId

MOST_COMBINATIONS = 128
"""Of alike devices: up to so many sets are all looked at (8 choose 4 are 70, 16 choose 2 are 120)."""

_WORDS = {
    LinkKind.NVLINK: "NVLink",
    LinkKind.PCIE_SWITCH: "PCIe switch",
    LinkKind.PCIE_HOST: "PCIe host bridge",
    LinkKind.NUMA: "same NUMA node",
    LinkKind.SYSTEM: "across NUMA nodes",
}
_RANKS = {kind: rank for rank, kind in enumerate(LinkKind)}
_UNKNOWN = len(_RANKS)


def rank(group: tuple[DeviceId, ...], devices: Mapping[DeviceId, Device]) -> int:
    """How far apart the two of a set are that are farthest apart: 0 is NVLink; one device is as near as can be.

    The slowest link decides: every collective waits for it.
    """
    return max((_between(devices[one], devices[other]) for one, other in combinations(group, 2)), default=0)


def described(group: tuple[DeviceId, ...], devices: Mapping[DeviceId, Device]) -> str:
    """`g0+g1, NVLink`; without the link where there is none, or nobody knows."""
    names = "+".join(group)
    far = rank(group, devices)
    return names if len(group) == 1 or far == _UNKNOWN else f"{names}, {_WORDS[list(LinkKind)[far]]}"


def groups(
    devices: Mapping[DeviceId, Device], count: int, free_bytes: Mapping[DeviceId, int], need_bytes: int
) -> list[tuple[DeviceId, ...]]:
    """Sets of `count` devices of equal kind, name and capacity that one replica could be split over.

    MIG slices are none: the driver gives them no way to reach one another, so each serves alone. Of few devices every
    set is there; of many, those that grow from each device by the nearest next one, once with the freest and once with
    the fullest that still has room, and the freest of all.
    """
    if count == 1:
        return [(each,) for each in devices]
    found: dict[tuple[DeviceId, ...], None] = {}
    splittable = [each for each in devices.values() if each.kind is not DeviceKind.MIG]
    for _, alike in groupby(sorted(splittable, key=_likeness), key=_likeness):
        same = list(alike)
        if comb(len(same), count) <= MOST_COMBINATIONS:
            found |= dict.fromkeys(combinations(sorted(each.id for each in same), count))
        else:
            found |= dict.fromkeys(_grown(same, count, free_bytes, need_bytes))
    return list(found)


def _likeness(device: Device) -> tuple[str, str, int]:
    return device.kind, device.name, device.capacity_bytes


def _grown(
    same: list[Device], count: int, free_bytes: Mapping[DeviceId, int], need_bytes: int
) -> Iterator[tuple[DeviceId, ...]]:
    def freest(device: Device) -> tuple[int, int, str]:
        return 0, -free_bytes[device.id], device.id

    def tightest(device: Device) -> tuple[int, int, str]:
        lacks = need_bytes - free_bytes[device.id]
        return (1, lacks, device.id) if lacks > 0 else (0, -lacks, device.id)

    yield tuple(sorted(each.id for each in sorted(same, key=freest)[:count]))
    for order in (freest, tightest):
        for seed in same:
            group = [seed]
            far = {each.id: _between(seed, each) for each in same if each is not seed}
            while len(group) < count:
                rest = [each for each in same if each not in group]
                nearest = min(rest, key=lambda each: (far[each.id], order(each)))
                group.append(nearest)
                far = {each.id: max(far[each.id], _between(nearest, each)) for each in rest if each is not nearest}
            yield tuple(sorted(each.id for each in group))


def _between(one: Device, other: Device) -> int:
    link = next((kind for device, kind in one.links if device == other.id), None)
    if link is not None:
        return _RANKS[link]
    if one.numa_node is None or other.numa_node is None:
        return _UNKNOWN
    return _RANKS[LinkKind.NUMA if one.numa_node == other.numa_node else LinkKind.SYSTEM]
