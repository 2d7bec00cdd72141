"""Predicted against measured: every account that an engine printed on a real GPU, term by term.

    python -m tests.bench.truth [DIRECTORY] [--json FILE] [--rows TERM]

DIRECTORY (default: the shared data beside the checkout) holds `truth_*.csv` and `truth_configs.json`. Nothing is
predicted from the row itself: the laws come from the engine's sources, and a constant that was measured is measured
again without the rows of the source in question (`truth_fit`).
"""

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from heliosd.core.units import GiB, MiB
from tests.bench.truth_fit import fit, samples
from tests.bench.truth_predict import Outcome, outcomes
from tests.bench.truth_rows import DIRECTORY, Row, read_rows

TERMS = ("total", "weights", "kv_tokens", "activation", "graphs", "non_torch")
GOALS = {
    "total": (0.01, 0.05),
    "weights": (0.003, 0.02),
    "kv_tokens": (0.005, 0.02),
    "activation": (0.03, 0.10),
}
"""Median and p90 that we want on rows never seen."""


@dataclass(frozen=True, slots=True)
class Score:
    count: int
    median: float
    p90: float
    worst: float
    under_share: float
    """Of the rows, how many are predicted too low by more than 1 % of the device (too high by 1 %, for tokens)."""
    booked_under_share: float
    """The same of what the ledger would have booked: the likely value and its margin."""


def score(term: Sequence[Outcome]) -> Score:
    errors = sorted(each.error for each in term)
    under = sum(1 for each in term if each.under)
    booked = sum(1 for each in term if each.booked_under)
    at = min(len(errors) - 1, int(0.9 * len(errors)))
    return Score(len(errors), median(errors), errors[at], errors[-1], under / len(errors), booked / len(errors))


def report(found: Iterable[Outcome]) -> dict[str, Score]:
    of: dict[str, list[Outcome]] = {term: [] for term in TERMS}
    for each in found:
        of[each.term].append(each)
    return {term: score(rows) for term, rows in of.items() if rows}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.truth", description=__doc__)
    parser.add_argument("directory", nargs="?", type=Path, default=DIRECTORY)
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the figures as one JSON object")
    parser.add_argument("--rows", metavar="TERM", choices=TERMS, help="print every row of one term")
    parser.add_argument("--fit", action="store_true", help="print the constants that these rows give, and stop")
    given = parser.parse_args()
    rows = read_rows(given.directory)
    if given.fit:
        _print_constants(rows)
        return 0
    known = rows if given.directory == DIRECTORY or not DIRECTORY.is_dir() else read_rows(DIRECTORY)
    found = outcomes(rows, known)
    scores = report(found)
    print(f"{len(rows)} rows of {given.directory}, {len({row.source for row in rows})} sources")
    print(f"{'term':12}{'rows':>6}{'median':>9}{'p90':>9}{'worst':>9}{'under':>9}   goal: median, p90")
    for term, figures in scores.items():
        goal = GOALS.get(term)
        wanted = f"{goal[0]:.1%}, {goal[1]:.0%}" if goal else ""
        print(
            f"{term:12}{figures.count:6}{figures.median:9.2%}{figures.p90:9.2%}{figures.worst:9.1%}"
            f"{figures.under_share:9.1%}   {wanted}"
        )
    print(f"total as booked: {scores['total'].booked_under_share:.1%} of rows under by more than 1 % of the device")
    if given.rows:
        _list([each for each in found if each.term == given.rows])
    else:
        print("\nthe worst ten")
        measured = [each for each in found if each.term in GOALS]
        _list(sorted(measured, key=lambda each: -each.error)[:10])
    if given.json:
        written = {
            term: {
                "count": each.count,
                "median": each.median,
                "p90": each.p90,
                "worst": each.worst,
                "under_share": each.under_share,
                **({"booked_under_share": each.booked_under_share} if term == "total" else {}),
            }
            for term, each in scores.items()
        }
        given.json.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
    return 0


def _print_constants(rows: Sequence[Row]) -> None:
    for name, each in fit(samples(rows)).items():
        outside = (
            each.alone_bytes,
            each.alone_older_bytes,
            each.together_bytes,
            each.alone_doubt_bytes,
            each.together_doubt_bytes,
        )
        cells = (each.graph_layer_bytes, each.graph_hidden_bytes, each.graph_base_bytes, *outside)
        print(f"{name:20}" + ", ".join(f"{cell / MiB:.0f} * MiB" for cell in cells) + f", {each.rows}")


def _list(found: Sequence[Outcome]) -> None:
    for each in sorted(found, key=lambda each: -each.error):
        print(
            f"{each.row.id:6} {each.term:10} {each.error:8.1%} predicted {_amount(each, each.predicted)} measured "
            f"{_amount(each, each.measured)}  {each.row.model[-36:]} {'.'.join(map(str, each.row.launch.version))}"
            f" tp{each.row.launch.tensor_parallel}: {each.reason}"
        )


def _amount(outcome: Outcome, value: int) -> str:
    return f"{value:12,}" if outcome.term == "kv_tokens" else f"{value / GiB:8.3f} GiB"


if __name__ == "__main__":
    sys.exit(main())
