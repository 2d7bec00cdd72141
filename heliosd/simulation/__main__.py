"""`python -m heliosd.simulation`, which `heliosctl simulate` runs: a trace against a fleet, by some policies."""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from heliosd.errors import HeliosError
from heliosd.simulation.baselines import POLICIES
from heliosd.simulation.fleet import read
from heliosd.simulation.trace import read_trace
from heliosd.simulation.world import Outcome, Speeds

USD_PER_DEVICE_HOUR = 2.6


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="heliosctl simulate", description=__doc__)
    parser.add_argument("--fleet", metavar="FLEET.TOML", type=Path, required=True, help="devices and models")
    parser.add_argument("--trace", metavar="TRACE.CSV", type=Path, required=True, help="who asked for what, and when")
    parser.add_argument("--policy", metavar="A,B", default="helios,lru", help=f"of {', '.join(POLICIES)}, or all")
    parser.add_argument("--slo", metavar="SECONDS", type=float, default=10.0, help="a first token in time; default 10")
    parser.add_argument("--usd", metavar="USD", type=float, default=USD_PER_DEVICE_HOUR, help="a device for an hour")
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    given = parser.parse_args(argv)
    names = list(POLICIES) if given.policy == "all" else given.policy.split(",")
    unknown = [name for name in names if name not in POLICIES]
    if unknown:
        parser.error(f"cannot simulate the policy {unknown[0]!r}; there are {', '.join(POLICIES)}")
    try:
        fleet, trace = read(given.fleet), read_trace(given.trace)
    except HeliosError as error:
        sys.stderr.write(f"{error.message}\n")
        return 2
    found: dict[str, dict[str, Any]] = {}
    for name in names:
        began = time.perf_counter()
        outcome = POLICIES[name](fleet, trace, Speeds())
        found[name] = figures(outcome, given.slo, given.usd, time.perf_counter() - began)
    sys.stdout.write((json.dumps(found, indent=1) if given.output == "json" else table(found, given.slo)) + "\n")
    return 0


def figures(outcome: Outcome, slo_s: float, usd: float, took_s: float) -> dict[str, Any]:
    """What an operator asks of a policy. `faster`: seconds of the trace for each second of simulation."""
    waits = sorted(outcome.first_token_s)
    return {
        "requests": outcome.requests,
        "answered": outcome.answered,
        "refused": dict(outcome.refused),
        "lost": outcome.lost,
        "slo_ratio": round(outcome.within(slo_s), 4),
        "first_token_p50_s": round(_at(waits, 0.5), 3),
        "first_token_p99_s": round(_at(waits, 0.99), 3),
        "starts": outcome.starts,
        "swap_s": round(outcome.swap_s, 1),
        "device_hours": round(outcome.device_s / 3600, 2),
        "usd": round(outcome.device_s / 3600 * usd, 2),
        "committed_ratio": round(outcome.committed, 4),
        "overcommits": outcome.overcommits,
        "faster": round(outcome.span_s / max(1e-9, took_s)),
    }


def _at(values: list[float], share: float) -> float:
    return values[min(len(values) - 1, int(share * len(values)))] if values else 0.0


def table(found: dict[str, dict[str, Any]], slo_s: float) -> str:
    rows = [
        ("", "answered", f"in {slo_s:g} s", "p50", "p99", "starts", "swapping", "device h", "USD", "committed"),
        *(
            (
                name,
                f"{each['answered']:,}/{each['requests']:,}",
                f"{each['slo_ratio']:.1%}",
                f"{each['first_token_p50_s']:.2f} s",
                f"{each['first_token_p99_s']:.1f} s",
                f"{each['starts']:,}",
                f"{each['swap_s']:,.0f} s",
                f"{each['device_hours']:,.1f}",
                f"{each['usd']:,.0f}",
                f"{each['committed_ratio']:.1%}",
            )
            for name, each in found.items()
        ),
    ]
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    padded = (
        [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        for row in rows
    )
    return "\n".join("  ".join(cells).rstrip() for cells in padded)


if __name__ == "__main__":
    sys.exit(main())
