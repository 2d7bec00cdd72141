"""How the stages of a pipeline share a set of devices.

The ranks of a stage talk in every layer, a stage only hands its result on to the next: so the better links belong
inside the stages. Devices are told in the engine's order: those of the first stage, then those of the second. Pure.
"""

from collections.abc import Mapping

from heliosd.core.hardware import Device
from heliosd.core.names import DeviceId
from heliosd.core.topology import between, described, rank

Links = tuple[int, int]
"""How far apart devices of one stage are at most, and any two of the set, as `topology.rank` says."""


def cut(group: tuple[DeviceId, ...], stages: int) -> list[tuple[DeviceId, ...]]:
    """The devices of each stage, first to last."""
    size = len(group) // stages
    return [group[at : at + size] for at in range(0, len(group), size)]


def links(group: tuple[DeviceId, ...], devices: Mapping[DeviceId, Device], stages: int) -> Links:
    """Of two sets, the lesser is the better."""
    across = rank(group, devices)
    inside = across if stages == 1 else max(rank(each, devices) for each in cut(group, stages))
    return inside, across


def arranged(group: tuple[DeviceId, ...], devices: Mapping[DeviceId, Device], stages: int) -> tuple[DeviceId, ...]:
    """The same devices, dealt out so that those of a stage are near to one another.

    Stage by stage, each from the device that finds it hardest to have near ones around it: exact where nearness goes by
    pairs, switches or nodes, as it does on real machines.
    """
    size = len(group) // stages
    if stages == 1 or size == 1:
        return group
    left, dealt = sorted(group), list[tuple[DeviceId, ...]]()
    far = {one: {other: between(devices[one], devices[other]) for other in group if other != one} for one in group}

    def hardest(one: DeviceId) -> tuple[int, int]:
        distances = sorted(far[one][other] for other in left if other != one)
        needed = distances[size - 2]
        return -needed, sum(1 for each in distances if each <= needed)

    while left:
        stage = [min(left, key=hardest)]
        left.remove(stage[0])
        while len(stage) < size:
            nearest = min(left, key=lambda each: max(far[each][one] for one in stage))
            stage.append(nearest)
            left.remove(nearest)
        dealt.append(tuple(sorted(stage)))
    return tuple(device for stage in sorted(dealt) for device in stage)


def described_stages(group: tuple[DeviceId, ...], devices: Mapping[DeviceId, Device], stages: int) -> str:
    """`g0+g1, NVLink`; of several stages `g0+g1, NVLink -> g2+g3, NVLink`."""
    if stages == 1:
        return described(group, devices)
    return " -> ".join(described(each, devices) for each in cut(group, stages))
