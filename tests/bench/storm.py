"""Random events against the scheduler: nobody is lost, answered twice or starved, and no byte is promised twice.

    python -m tests.bench.storm [--events 10000] [--seed N] [--runs 5] [--json FILE]

Arrivals of several keys and classes, cancels, kills, sleeps, failed wakes, sleepers that keep their memory, foreign
allocations, devices that fail, a driver that lies, host memory that vanishes, pins, changed limits: all drawn from a
seed, with a world (`storm_world.py`) that knows the truth. Figures of the JSON: sums over the runs, and the largest
wait as a share of the bound that `heliosd/core/scheduler.py` states. A million events: `--events 1000000 --runs 1`.
"""

import argparse
import time
from pathlib import Path

from tests.bench.report import write_json
from tests.bench.storm_world import Storm, Tally
from tests.bench.table import print_table


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.storm", description=__doc__)
    parser.add_argument("--events", metavar="N", type=int, default=10_000)
    parser.add_argument("--seed", metavar="N", type=int, default=1)
    parser.add_argument("--runs", metavar="N", type=int, default=5, help="with as many seeds")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the figures as one JSON object")
    given = parser.parse_args()
    began = time.monotonic()
    seeds = range(given.seed, given.seed + given.runs)
    tallies = [Storm(seed, devices=1 + seed % 4).run(given.events) for seed in seeds]
    took_s = time.monotonic() - began
    each_us = took_s / sum(each.events for each in tallies) * 1e6
    print_table(
        f"{given.runs} storms of {given.events:,} events, {each_us:.0f} µs an event with the world around it",
        ("seed", "events", "over-committed", "lost", "doubled", "broken", "longest wait / bound", "granted", "refused"),
        [_row(given.seed + at, tally) for at, tally in enumerate(tallies)],
    )
    total = sum((each.happened for each in tallies), start=type(tallies[0].happened)())
    print("what happened: " + ", ".join(f"{name} {n:,}" for name, n in sorted(total.items())))
    figures = {
        "events": sum(each.events for each in tallies),
        "overcommits": sum(each.overcommits for each in tallies),
        "lost": sum(each.lost for each in tallies),
        "doubled": sum(each.doubled for each in tallies),
        "broken": sum(each.broken for each in tallies),
        "max_wait_ratio": round(max(each.max_wait_ratio for each in tallies), 4),
    }
    write_json(figures, given.json)
    good = not any(figures[name] for name in ("overcommits", "lost", "doubled", "broken"))
    return 0 if good and figures["max_wait_ratio"] <= 1 else 1


def _row(seed: int, tally: Tally) -> tuple[str, ...]:
    granted = tally.answered["granted"]
    return (
        str(seed),
        f"{tally.events:,}",
        str(tally.overcommits),
        str(tally.lost),
        str(tally.doubled),
        str(tally.broken),
        f"{tally.max_wait_ratio:.2f}",
        f"{granted:,}",
        f"{sum(tally.answered.values()) - granted:,}",
    )


if __name__ == "__main__":
    raise SystemExit(main())
