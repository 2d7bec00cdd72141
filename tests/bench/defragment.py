"""How often moves that make room are found when there are any, and what they cost beside the cheapest.

    python -m tests.bench.defragment [--instances N]

Instances are drawn at random: 2 to 8 alike devices of 80 GB with idle and busy replicas from small to half a device,
and a demand for one or two devices that fits on none although all free room together would take it. The cheapest moves
come from an exact solver (HiGHS), without a limit to their number and within ours.
"""

import argparse
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass

import highspy

from heliosd.core.defragment import MOST_MOVES, Plan, defragment
from heliosd.core.eviction import Resident
from heliosd.core.hardware import Device, DeviceKind
from heliosd.core.ledger import Ledger
from heliosd.core.messages import Demand, Footprint
from heliosd.core.names import DeviceId, ReplicaId
from heliosd.core.units import GiB
from tests.bench.report import percentile
from tests.bench.table import print_table


@dataclass(frozen=True, slots=True)
class Instance:
    demand: Demand
    ledger: Ledger
    residents: tuple[Resident, ...]
    reload_s: dict[ReplicaId, float]

    def ours(self) -> Plan | None:
        return defragment(self.demand, self.ledger, self.residents, self.reload_s)


def instance(chance: random.Random) -> Instance:
    names = [DeviceId(f"g{at}") for at in range(chance.randint(2, 8))]
    ledger = Ledger(
        safety_ratio=0.02, devices={name: Device(name, DeviceKind.CUDA, "card", 80 * GiB) for name in names}
    )
    residents, reload_s = [], {}
    for at in range(chance.randint(2, 5 * len(names))):
        device, size = chance.choice(names), int(min(45.0, 2 + chance.lognormvariate(2.0, 0.8)) * GiB)
        if ledger.free_bytes(device) < size:
            continue
        replica, footprint = ReplicaId(f"r{at}"), Footprint(size, 0, 0)
        ledger.book(replica, (device,), footprint)
        busy = chance.random() < 0.4
        residents.append(Resident(replica, f"m{at}", (device,), footprint, True, False, busy, 0.0))
        reload_s[replica] = 3 + size / GiB / 2 * chance.uniform(0.7, 1.3)
    count = chance.choice((1, 1, 2)) if len(names) > 2 else 1
    return Instance(
        Demand("new", "r", Footprint(chance.randint(15, 75) * GiB, 0, 0), count), ledger, tuple(residents), reload_s
    )


def fragmented(chance: random.Random) -> Iterator[Instance]:
    """Those that fit nowhere although there is enough in all."""
    while True:
        drawn = instance(chance)
        need, free = (
            drawn.demand.per_device.total_bytes,
            [drawn.ledger.free_bytes(each) for each in drawn.ledger.devices],
        )
        roomy = sum(each >= need for each in free)
        if roomy < drawn.demand.device_count and sum(max(0, each) for each in free) >= need * drawn.demand.device_count:
            yield drawn


def cheapest_s(drawn: Instance, most_moves: int | None, limit_s: float = 5.0) -> float | None:
    """Seconds of the cheapest moves; None where there are none."""
    ledger, movable = drawn.ledger, [each for each in drawn.residents if not each.busy]
    solver = highspy.Highs()
    solver.silent()
    solver.setOptionValue("time_limit", limit_s)
    here = {device: solver.addBinary() for device in ledger.devices}
    goes = [{device: solver.addBinary() for device in ledger.devices} for _ in movable]
    solver.addConstr(sum(here.values()) == drawn.demand.device_count)
    for row in goes:
        solver.addConstr(sum(row.values()) == 1)
    for device in ledger.devices:
        free = ledger.free_bytes(device) + sum(
            each.per_device.total_bytes for each in movable if device in each.devices
        )
        taken = sum(each.per_device.total_bytes / GiB * row[device] for each, row in zip(movable, goes, strict=True))
        solver.addConstr(taken + drawn.demand.per_device.total_bytes / GiB * here[device] <= free / GiB)
    moved = [1 - row[each.devices[0]] for each, row in zip(movable, goes, strict=True)]
    if most_moves is not None and movable:
        solver.addConstr(sum(moved) <= most_moves)
    solver.minimize(sum(drawn.reload_s[each.id] * gone for each, gone in zip(movable, moved, strict=True)))
    optimal = solver.getModelStatus() == highspy.HighsModelStatus.kOptimal
    return solver.getInfo().objective_function_value if optimal else None


@dataclass
class Score:
    possible: int = 0
    within: int = 0
    """Of those, with no more moves than ours may have."""
    found: int = 0
    found_within: int = 0
    cheapest: int = 0
    ours_s: float = 0.0
    best_s: float = 0.0


def scored(count: int, seed: int = 1) -> tuple[Score, list[float]]:
    """Ours beside the exact one, and how long each of ours took in seconds."""
    score, took = Score(), []
    drawn = fragmented(random.Random(seed))
    for _ in range(count):
        each = next(drawn)
        began = time.perf_counter()
        plan = each.ours()
        took.append(time.perf_counter() - began)
        if cheapest_s(each, None) is None:
            assert plan is None, "ours found moves where there are none"
            continue
        score.possible += 1
        score.found += plan is not None
        best = cheapest_s(each, MOST_MOVES)
        if best is None:
            continue
        score.within += 1
        if plan is not None:
            score.found_within += 1
            score.cheapest += plan.cost_s <= best + 0.11
            score.ours_s, score.best_s = score.ours_s + plan.cost_s, score.best_s + best
    return score, took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instances", type=int, default=300)
    score, took = scored(parser.parse_args().instances)
    milliseconds = [1000 * each for each in took]
    rows = [
        ("instances", str(len(took))),
        ("there are moves", str(score.possible)),
        ("found of those", f"{score.found / max(1, score.possible):.1%}"),
        (f"there are at most {MOST_MOVES} moves", str(score.within)),
        ("found of those", f"{score.found_within / max(1, score.within):.1%}"),
        ("as cheap as can be", f"{score.cheapest / max(1, score.found_within):.1%}"),
        ("seconds of starting again, beside the cheapest", f"{score.ours_s / max(1e-9, score.best_s):.4f}"),
        ("a search, median", f"{percentile(milliseconds, 0.5):.2f} ms"),
        ("a search, 99th percentile", f"{percentile(milliseconds, 0.99):.2f} ms"),
    ]
    print_table("Moves that make room, beside an exact solver", ("", "heliosd"), rows)


if __name__ == "__main__":
    main()
