"""How near the best possible a node's devices are filled, and how long a decision takes.

    python -m tests.bench.packing [--json FILE] [--instances N] [--decisions N]

Instances are drawn at random: 1 to 8 devices of 24, 48 or 80 GB, 4 to 40 models of which some need two devices, worth
their bytes or something drawn from a heavy tail. The optimum comes from an exact solver (`packing_exact`); where it is
not proven in time, its upper bound stands for it, which can only make ours look worse. A decision is what the scheduler
does about one request for one of 1,000 models on eight full devices: it answers, starts, or chooses who makes room.
"""

import argparse
import random
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import mean, median

from heliosd.core.hardware import Device, DeviceKind
from heliosd.core.messages import (
    Command,
    Demand,
    DevicesFound,
    Event,
    Footprint,
    Grant,
    ReplicaBecameReady,
    ReplicaExited,
    RequestArrived,
    RequestReleased,
    StartReplica,
    StopReplica,
)
from heliosd.core.names import DeviceId, Ticket
from heliosd.core.packing import Item, Room, pack
from heliosd.core.scheduler import Scheduler
from heliosd.core.units import GiB
from tests.bench.others import Others
from tests.bench.packing_exact import optimum
from tests.bench.report import percentile, write_json
from tests.bench.table import print_table

SIZES_GIB = (24, 48, 80, 80)
LIMIT_S = 2.0
MODELS, DEVICES = 1000, 8


def instance(chance: random.Random) -> tuple[list[Item], list[Room]]:
    count = chance.choice((1, 2, 4, 8))
    rooms = [Room(DeviceId(f"g{at}"), int(chance.choice(SIZES_GIB) * GiB * 0.98), "x") for at in range(count)]
    by_bytes = chance.random() < 0.5
    items = []
    for at in range(chance.randint(4, 40)):
        devices = 2 if count > 1 and chance.random() < 0.1 else 1
        size = int(min(75.0, chance.lognormvariate(2.5, 0.8)) * GiB)
        worth = size * devices / GiB if by_bytes else chance.paretovariate(1.2)
        items.append(Item(f"m{at}", {"x": size}, worth, devices))
    return items, rooms


def scored(count: int) -> tuple[list[float], list[float], int]:
    """(ours ÷ optimum, seconds of ours, how many optima were proven)."""
    chance = random.Random(7)
    ratios, spans_s, proven = [], [], 0
    for _ in range(count):
        items, rooms = instance(chance)
        began = time.perf_counter()
        found = pack(items, rooms)
        spans_s.append(time.perf_counter() - began)
        best, sure = optimum(items, rooms, LIMIT_S)
        proven += sure
        ratios.append(found.worth / best if best > 0 else 1.0)
    return ratios, spans_s, proven


def demands(chance: random.Random) -> list[Demand]:
    return [
        Demand(
            f"org/m{at}",
            f"{at:064x}",
            Footprint(int(min(60.0, chance.lognormvariate(1.8, 0.8)) * GiB), 2 * GiB, GiB),
            max_num_seqs=256,
            keep_alive_s=1e9,
        )
        for at in range(MODELS)
    ]


def decisions(count: int) -> list[float]:
    """Seconds of each of `count` decisions, after as many that filled the devices."""
    chance = random.Random(3)
    asked = demands(chance)
    scheduler = Scheduler()
    devices = tuple(Device(DeviceId(f"g{at}"), DeviceKind.CUDA, "H100", 80 * GiB) for at in range(DEVICES))
    scheduler.handle(DevicesFound(0.0, devices))
    spans_s: list[float] = []
    for turn in range(2 * count):
        now = float(turn)
        demand = asked[min(int(chance.paretovariate(0.5)) - 1, MODELS - 1)]
        event = RequestArrived(now, Ticket(f"t{turn}"), demand.model, demand)
        began = time.perf_counter()
        commands = scheduler.handle(event)
        if turn >= count:
            spans_s.append(time.perf_counter() - began)
        waiting = list(commands)
        while waiting:
            for answer in _answers(waiting.pop(0), now):
                waiting += scheduler.handle(answer)
    return spans_s


def _answers(command: Command, now: float) -> Iterator[Event]:
    """What the world does about a command, at once."""
    match command:
        case StartReplica(replica=replica, demand=demand):
            yield ReplicaBecameReady(now, replica, demand.per_device)
        case StopReplica(replica=replica):
            yield ReplicaExited(now, replica, None)
        case Grant(ticket=ticket):
            yield RequestReleased(now, ticket)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.packing", description=__doc__)
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the figures as one JSON object")
    parser.add_argument("--instances", metavar="N", type=int, default=500)
    parser.add_argument("--decisions", metavar="N", type=int, default=3000)
    given = parser.parse_args()
    others = Others()
    spans_s = decisions(given.decisions)
    ratios, packed_s, proven = scored(given.instances)
    print_table(
        f"Packing {given.instances} random instances, and deciding about {MODELS} models on {DEVICES} devices",
        ("", "measured", "goal"),
        (
            ("of the optimum, mean", f"{mean(ratios):.2%}", "98%"),
            ("of the optimum, least", f"{min(ratios):.2%}", ""),
            ("a packing, median", f"{median(packed_s) * 1000:.1f} ms", ""),
            ("a decision, median", f"{median(spans_s) * 1000:.3f} ms", "2 ms"),
            ("a decision, p99", f"{percentile(spans_s, 0.99) * 1000:.3f} ms", ""),
        ),
        [
            f"{proven} of {given.instances} optima proven within {LIMIT_S:.0f} s, else an upper bound of theirs",
            f"others kept {others.cores():.1f} cores busy meanwhile",
        ],
    )
    figures = {
        "vs_optimum_mean": round(mean(ratios), 5),
        "vs_optimum_min": round(min(ratios), 5),
        "decision_ms": round(median(spans_s) * 1000, 4),
    }
    write_json(figures, given.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
