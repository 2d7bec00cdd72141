"""Which sets of devices are candidates, and how near their members are."""

from heliosd.core.hardware import Device, DeviceKind, LinkKind
from heliosd.core.names import DeviceId
from heliosd.core.topology import MOST_COMBINATIONS, described, groups, rank
from heliosd.core.units import GiB


def fleet(count: int, island: int, kind: DeviceKind = DeviceKind.CUDA) -> dict[DeviceId, Device]:
    """Cards of 80 GiB in NVLink islands of so many; the islands are on different NUMA nodes."""
    names = [DeviceId(f"g{number:02}") for number in range(count)]
    return {
        name: Device(
            name,
            kind,
            "card",
            80 * GiB,
            numa_node=number // island,
            links=tuple(
                (other, LinkKind.NVLINK if at // island == number // island else LinkKind.SYSTEM)
                for at, other in enumerate(names)
                if other != name
            ),
        )
        for number, name in enumerate(names)
    }


def free(devices: dict[DeviceId, Device]) -> dict[DeviceId, int]:
    return dict.fromkeys(devices, 80 * GiB)


def test_of_eight_devices_every_four_are_looked_at() -> None:
    devices = fleet(8, 4)
    assert len(set(groups(devices, 4, free(devices), GiB))) == 70


def test_of_many_devices_a_bounded_number_of_sets_is_looked_at_and_every_island_is_among_them() -> None:
    devices = fleet(32, 8)
    found = groups(devices, 8, free(devices), GiB)
    assert len(found) <= MOST_COMBINATIONS
    islands = {tuple(sorted(list(devices)[at : at + 8])) for at in range(0, 32, 8)}
    assert islands <= set(found)


def test_of_many_devices_the_freest_set_and_the_tightest_of_an_island_are_among_them() -> None:
    devices = fleet(32, 8)
    room = {name: (number % 8 + 1) * GiB for number, name in enumerate(devices)}
    found = groups(devices, 4, room, 3 * GiB)
    assert max(min(room[device] for device in group) for group in found) == 8 * GiB
    assert ("g02", "g03", "g04", "g05") in found, "3, 4, 5 and 6 GiB: the fullest that have room"


def test_slices_and_unequal_cards_make_no_set() -> None:
    assert groups(fleet(2, 2, DeviceKind.MIG), 2, free(fleet(2, 2)), GiB) == []
    unequal = fleet(1, 1) | {DeviceId("other"): Device(DeviceId("other"), DeviceKind.CUDA, "older card", 80 * GiB)}
    assert groups(unequal, 2, free(unequal), GiB) == []
    assert groups(fleet(2, 2, DeviceKind.MIG), 1, free(fleet(2, 2)), GiB) == [("g00",), ("g01",)]


def test_the_slowest_link_of_a_set_is_what_it_is_worth() -> None:
    devices = fleet(4, 2)
    near, far = (DeviceId("g00"), DeviceId("g01")), (DeviceId("g00"), DeviceId("g01"), DeviceId("g02"))
    assert rank(near, devices) < rank(far, devices)
    assert described(near, devices) == "g00+g01, NVLink"
    assert described(far, devices) == "g00+g01+g02, across NUMA nodes"


def test_without_links_numa_nodes_tell_and_without_those_nothing_is_said() -> None:
    same = {DeviceId(f"g{n}"): Device(DeviceId(f"g{n}"), DeviceKind.CUDA, "card", GiB, numa_node=0) for n in range(2)}
    assert described((DeviceId("g0"), DeviceId("g1")), same) == "g0+g1, same NUMA node"
    bare = {DeviceId(f"g{n}"): Device(DeviceId(f"g{n}"), DeviceKind.CUDA, "card", GiB) for n in range(2)}
    assert described((DeviceId("g0"), DeviceId("g1")), bare) == "g0+g1"
