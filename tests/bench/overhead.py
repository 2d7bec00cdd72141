"""What it costs to see everything: a figure for each part, each measured by a function of its own.

    python -m tests.bench.overhead [--json FILE] [--only FIGURE] [--folder DIR]

throughput_ratio: tokens a second of 32 streams, watched ÷ unwatched (tests/bench/request_overhead.py).
scrape_1000_ms: a scrape of /metrics with a thousand models (tests/bench/scrape.py).
tui_core_share: of one core, by the screen that takes most (tests/bench/tui_share.py).
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from statistics import median

import uvloop

from tests.bench import request_overhead, scrape
from tests.bench.report import write_json
from tests.bench.table import print_table, span
from tests.bench.tui_share import tui_core_share

RATIO_LIMIT = 0.98
SCRAPE_LIMIT_MS = 100.0
Row = tuple[str, ...]


def scrape_1000_ms(folder: Path | None) -> tuple[float, list[Row]]:
    """Milliseconds of a daemon's scrape, with a thousand models stored, a hundred of them running or none.

    What all of them running would take is told beside it: no machine holds so many.
    """
    found = uvloop.run(scrape.measure(state=folder))
    limit = span(SCRAPE_LIMIT_MS / 1000)

    def row(name: str, seconds: tuple[float, ...], size_bytes: int, limit: str = limit) -> Row:
        return name, span(median(seconds)), span(min(seconds)), span(max(seconds)), f"{size_bytes / 1000:.0f} kB", limit

    rows = [
        row(f"scrape, {scrape.MODELS} models stored", found.stored_s, found.stored_bytes),
        row(f"scrape, {scrape.RUNNING} of them running", found.running_s, found.running_bytes),
        row("rendering, all of them running", found.all_s, found.all_bytes, ""),
    ]
    return round(found.worst_ms, 1), rows


def throughput_ratio(folder: Path | None) -> tuple[float, list[Row]]:
    """Of a real engine's tokens a second. Needs none of the thousand models."""
    rounds = uvloop.run(request_overhead.measured())
    ratios = [watched / unwatched for watched, unwatched in rounds]
    shown = (median(ratios), min(ratios), max(ratios))
    row = (f"tokens/s at {request_overhead.STREAMS} streams, watched ÷ not", *(f"{each:.3f}" for each in shown))
    return round(request_overhead.ratio(rounds), 4), [(*row, "", f"{RATIO_LIMIT}")]


FIGURES: dict[str, Callable[[Path | None], tuple[float, list[Row]]]] = {
    "throughput_ratio": throughput_ratio,
    "scrape_1000_ms": scrape_1000_ms,
    "tui_core_share": tui_core_share,
}
"""By name, what measures it: the figure, and rows of the table."""


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.overhead", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the result as one JSON object")
    parser.add_argument("--only", choices=FIGURES, action="append", help="measure this only; may be repeated")
    parser.add_argument("--folder", metavar="DIR", type=Path, help="keep the thousand models there for the next time")
    given = parser.parse_args()
    figures: dict[str, float] = {}
    rows: list[Row] = []
    for name in given.only or FIGURES:
        figures[name], more = FIGURES[name](given.folder and given.folder.resolve())
        rows += more
    print_table("overhead", ("", "median", "min", "max", "size", "limit"), rows)
    write_json(figures, given.json)


if __name__ == "__main__":
    main()
