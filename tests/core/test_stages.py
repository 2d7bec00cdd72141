"""The better links belong inside the stages of a pipeline."""

from dataclasses import replace
from itertools import combinations, pairwise, permutations

import pytest

from heliosd.core.defragment import defragment
from heliosd.core.eviction import Resident
from heliosd.core.hardware import Device, DeviceKind, LinkKind
from heliosd.core.messages import Demand, Footprint
from heliosd.core.names import DeviceId, ReplicaId
from heliosd.core.placement import Fits, NeverFits, place
from heliosd.core.stages import arranged, cut, described_stages, links
from heliosd.core.topology import MOST_COMBINATIONS, groups, slow
from heliosd.core.units import GiB
from tests.core.test_placement import ledger_of, resident
from tests.core.test_topology import fleet, free

FOUR = Demand("giant", "rev", Footprint(50 * GiB, 10 * GiB, 0), device_count=4, pipeline_parallel=2)


def pairs(count: int) -> dict[DeviceId, Device]:
    """NVLink joins g00 with the last, g01 with the last but one, and so on; nothing else is near."""
    names = list(fleet(count, 1))
    made = {}
    for at, (name, device) in enumerate(fleet(count, count).items()):
        mate = names[-1 - at]
        ends = tuple((other, LinkKind.NVLINK if other == mate else LinkKind.SYSTEM) for other in names if other != name)
        made[name] = replace(device, links=ends)
    return made


def best_inside(group: tuple[DeviceId, ...], devices: dict[DeviceId, Device], stages: int) -> int:
    return min(links(each, devices, stages)[0] for each in permutations(group))


@pytest.mark.parametrize("devices", [pairs(6), fleet(6, 2), fleet(6, 3), fleet(6, 4)], ids=["pairs", "2", "3", "4"])
@pytest.mark.parametrize(("count", "stages"), [(4, 2), (6, 3), (6, 2), (4, 4)])
def test_devices_are_dealt_out_as_well_as_trying_all_orders_finds(
    devices: dict[DeviceId, Device], count: int, stages: int
) -> None:
    for group in combinations(devices, count):
        found = arranged(group, devices, stages)
        assert sorted(found) == sorted(group)
        assert links(found, devices, stages)[0] == best_inside(group, devices, stages)


def test_a_chain_is_dealt_out_from_its_ends() -> None:
    """g00 - g02 - g01 - g03: who starts in the middle leaves the ends alone."""
    chain = [DeviceId(name) for name in ("g00", "g02", "g01", "g03")]
    near = {frozenset(pair) for pair in pairwise(chain)}
    devices = {
        name: Device(
            name, DeviceKind.CUDA, "card", 80 * GiB,
            links=tuple(
                (other, LinkKind.NVLINK if frozenset((name, other)) in near else LinkKind.SYSTEM)
                for other in chain if other != name
            ),
        )
        for name in sorted(chain)
    }  # fmt: skip
    assert cut(arranged(tuple(devices), devices, 2), 2) == [("g00", "g02"), ("g01", "g03")]


def test_a_pipeline_goes_where_its_stages_have_nvlink_and_says_so() -> None:
    devices = pairs(8)
    ledger = ledger_of(devices)
    found = place(FOUR, ledger, [resident(ledger, "r1", "g00", 30)])
    assert isinstance(found, Fits)
    assert found.victims == ()
    assert all(links(each, devices, 1)[0] == 0 for each in cut(found.devices, 2)), "NVLink inside each stage"
    assert f"free on {described_stages(found.devices, devices, 2)}" in found.reason
    assert found.reason.count("NVLink") == 2


def test_of_many_devices_the_sets_of_near_stages_are_among_those_looked_at() -> None:
    devices = fleet(32, 2)
    found = groups(devices, 8, free(devices), GiB, stages=4)
    assert len(found) <= MOST_COMBINATIONS
    assert min(links(arranged(each, devices, 4), devices, 4) for each in found) == (0, 4)
    assert links(arranged(groups(devices, 8, free(devices), GiB)[1], devices, 1), devices, 1)[0] == 4


def test_what_no_place_can_hold_tells_its_stages() -> None:
    found = place(replace(FOUR, per_device=Footprint(90 * GiB, 0, 0)), ledger_of(pairs(4)), [])
    assert isinstance(found, NeverFits)
    assert "90.0 GiB on each of 4 equal devices in 2 pipeline stages" in found.reason
    slices = ledger_of(fleet(4, 4, DeviceKind.MIG))
    found = place(replace(FOUR, per_device=Footprint(10 * GiB, 0, 0)), slices, [])
    assert isinstance(found, NeverFits)
    assert found.reason.endswith("set tensor_parallel and pipeline_parallel to 1")


def test_why_it_is_cut_into_stages_is_part_of_the_reason() -> None:
    found = place(replace(FOUR, division_reason="cannot divide 9 heads"), ledger_of(pairs(4)), [])
    assert found.reason.endswith("g00+g03, NVLink -> g01+g02, NVLink (cannot divide 9 heads)")


def test_moves_make_room_for_stages_too() -> None:
    devices = pairs(6)
    ledger = ledger_of(devices)
    held = [resident(ledger, f"r{n}", f"g0{n}", 30) for n in (0, 4)]
    held.append(resident(ledger, "r5", "g05", 30))
    plan = defragment(FOUR, ledger, held, {ReplicaId(f"r{n}"): 10.0 for n in (0, 4, 5)})
    assert plan is not None
    assert links(plan.devices, devices, 2) == (0, 4)
    assert isinstance(held[0], Resident)


def test_only_known_links_beyond_a_host_bridge_are_slow() -> None:
    assert [slow(far) for far in range(6)] == [False, False, False, True, True, False]
