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
_SLOW = range(_RANKS[LinkKind.NUMA], _UNKNOWN)


def rank(group: tuple[DeviceId, ...], devices: Mapping[DeviceId, Device]) -> int:
    """How far apart the two of a set are that are farthest apart: 0 is NVLink; one device is as near as can be.

    The slowest link decides: every collective waits for it.
    """
    return max((between(devices[one], devices[other]) for one, other in combinations(group, 2)), default=0)


def described(group: tuple[DeviceId, ...], devices: Mapping[DeviceId, Device]) -> str:
    """`g0+g1, NVLink`; without the link where there is none, or nobody knows."""
    names = "+".join(group)
    far = rank(group, devices)
    return names if len(group) == 1 or far == _UNKNOWN else f"{names}, {_WORDS[list(LinkKind)[far]]}"


def slow(far: int) -> bool:
    """Whether devices so far apart are too far for tensor parallelism: there is a way between them, but it leads from
    one PCIe host bridge to another, through the CPU, and every layer waits for it twice."""
    return far in _SLOW


def groups(
    devices: Mapping[DeviceId, Device],
    count: int,
    free_bytes: Mapping[DeviceId, int],
    need_bytes: int,
    stages: int = 1,
) -> list[tuple[DeviceId, ...]]:
    """Sets of `count` devices of equal kind, name and capacity that one replica could be split over.

    MIG slices are none: the driver gives them no way to reach one another, so each serves alone. Of few devices every
    set is there; of many, those that grow from each device by the nearest next one, once with the freest and once with
    the fullest that still has room, and the freest of all. For a pipeline, nearness counts within each of its `stages`
    first; how a set is dealt out to them is not said here (`stages.arranged`).
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
            found |= dict.fromkeys(_grown(same, count, free_bytes, need_bytes, count // stages))
    return list(found)


def _likeness(device: Device) -> tuple[str, str, int]:
    return device.kind, device.name, device.capacity_bytes


def _grown(
    same: list[Device], count: int, free_bytes: Mapping[DeviceId, int], need_bytes: int, size: int
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
            far = {each.id: between(seed, each) for each in same if each is not seed}
            stage = dict(far)
            while len(group) < count:
                rest = [each for each in same if each not in group]
                if len(group) % size == 0:
                    stage = dict.fromkeys(far, 0)  # the first of a stage is near to nobody yet
                nearest = min(rest, key=lambda each: (stage[each.id], far[each.id], order(each)))
                group.append(nearest)
                near = {each.id: between(nearest, each) for each in rest if each is not nearest}
                far = {each: max(far[each], distance) for each, distance in near.items()}
                stage = {each: max(stage[each], distance) for each, distance in near.items()}
            yield tuple(sorted(each.id for each in group))


def between(one: Device, other: Device) -> int:
    """How far apart two devices are, as in `rank`."""
    link = next((kind for device, kind in one.links if device == other.id), None)
    if link is not None:
        return _RANKS[link]
    if one.numa_node is None or other.numa_node is None:
        return _UNKNOWN
    return _RANKS[LinkKind.NUMA if one.numa_node == other.numa_node else LinkKind.SYSTEM]
