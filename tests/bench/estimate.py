"""How long an estimate takes, and how near the truth it is beside what others estimate of the same models.

    python -m tests.bench.estimate [--json FILE] [--no-peers]

An estimate is everything: the configuration read, weights, activations, graphs and what is outside torch for each
pipeline stage, and the pages of the KV cache. Cold: from a parsed configuration never seen before. Cached: asked again.
The peers are `hf-mem` and `accelerate estimate-memory`, both in a process of their own without a network
(`estimate_peers` says how); truth is what engines printed on real GPUs.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from heliosd.estimation.account import DeviceAccount, account
from heliosd.estimation.cache import cache_of
from heliosd.estimation.kv_pages import KvPages
from heliosd.estimation.launch import Launch
from heliosd.estimation.model import read_model
from heliosd.estimation.resolve import resolve
from heliosd.estimation.service import EstimateCache, content_digest
from tests.bench.estimate_configs import texts, varied
from tests.bench.others import Others
from tests.bench.report import percentile, write_json
from tests.bench.table import print_table

LAUNCH = Launch(device_name="NVIDIA H100 80GB HBM3")
GOAL_COLD_MS, GOAL_CACHED_US, GOAL_BATCH_S = 1.0, 50.0, 0.5
ROUNDS = 5
PEERS_LIMIT_S = 600

Estimate = tuple[tuple[DeviceAccount, ...], KvPages]


def estimate(config: Mapping[str, Any], launch: Launch = LAUNCH) -> Estimate:
    model = read_model(config)
    resolved = resolve(model, launch)
    return account(model, launch, resolved=resolved), cache_of(model, launch, resolved)


def cold_ms(given: Sequence[str]) -> list[float]:
    """Of each configuration, parsed anew for each of some rounds, the median."""
    estimate(json.loads(given[0]))  # the classes' defaults are loaded
    of: list[list[float]] = [[] for _ in given]
    for _ in range(ROUNDS):
        for text, times in zip(given, of, strict=True):
            config = json.loads(text)
            began = time.perf_counter()
            estimate(config)
            times.append((time.perf_counter() - began) * 1000)
    return [median(times) for times in of]


def cached_us(given: Sequence[str]) -> float:
    """A question that was answered before: the median over all configurations, twenty times each."""
    kept: EstimateCache[Estimate] = EstimateCache(capacity=1024, ttl_s=600)
    questions: list[Mapping[str, Any]] = [json.loads(text) for text in given]
    keys = [(content_digest(config), LAUNCH) for config in questions]
    times = []
    for turn in range(21):
        for config, key in zip(questions, keys, strict=True):
            began = time.perf_counter()
            kept.get(key, lambda config=config: estimate(config), now_s=float(turn))  # type: ignore[misc]
            if turn:
                times.append((time.perf_counter() - began) * 1e6)
    assert kept.counts.misses == len(set(keys))
    return median(times)


def batch_s(configs: Sequence[Mapping[str, Any]]) -> float:
    began = time.perf_counter()
    for config in configs:
        estimate(config)
    return time.perf_counter() - began


def peers() -> tuple[dict[str, Any], str]:
    """What the peers' own process found, and why there is nothing when there is nothing."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "peers.json"
        command = [sys.executable, "-m", "tests.bench.estimate_peers", str(file)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=PEERS_LIMIT_S, check=False)
        except subprocess.TimeoutExpired:
            return {}, f"the peers took longer than {PEERS_LIMIT_S} s"
        if done.returncode or not file.exists():
            return {}, f"the peers could not be run: {done.stderr.strip()[-200:]}"
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return found, ""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.estimate", description=__doc__)
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the figures as one JSON object")
    parser.add_argument("--no-peers", action="store_true", help="time Helios alone")
    given = parser.parse_args()
    configs, what = texts()
    others = Others()
    cold = cold_ms(configs)
    cached = cached_us(configs)
    batch = min(batch_s(varied(configs, 1000)) for _ in range(3))
    busy = others.cores()
    print_table(
        f"An estimate, over {what}",
        ("", "measured", "goal"),
        (
            ("cold, median", f"{median(cold):.3f} ms", f"{GOAL_COLD_MS:.0f} ms"),
            ("cold, p90", f"{percentile(cold, 0.9):.3f} ms", "3 ms"),
            ("cold, slowest", f"{max(cold):.3f} ms", ""),
            ("cached, median", f"{cached:.1f} µs", f"{GOAL_CACHED_US:.0f} µs"),
            ("1,000 different ones", f"{batch:.3f} s", f"{GOAL_BATCH_S} s"),
        ),
        [f"others kept {busy:.1f} cores busy meanwhile"],
    )
    result: dict[str, Any] = {
        "cold_ms": round(median(cold), 4),
        "cached_us": round(cached, 2),
        "batch_1000_s": round(batch, 4),
    }
    found, reason = ({}, "not asked for") if given.no_peers else peers()
    result["peers"] = found
    if found:
        _print_peers(found)
    else:
        print(f"  no peers: {reason}")
    write_json(result, given.json)
    return 0


def _print_peers(found: Mapping[str, Any]) -> None:
    rows, notes = [], []
    for name, peer in found.items():
        if "reason" in peer:
            notes.append(f"{name}: {peer['reason']}")
            continue
        for term, errors in peer["errors"].items():
            rows.append(
                (
                    f"{name}: {term}", str(errors["rows"]), f"{errors['peer_median']:.2%}", f"{errors['peer_p90']:.1%}",
                    f"{errors['helios_median']:.2%}", f"{errors['helios_p90']:.1%}",
                )
            )  # fmt: skip
        notes.append(
            f"{name} {peer['version']}: {peer['ms']:.1f} ms an estimate (median of {peer['models']} models), Helios "
            f"{peer['helios_ms']:.3f} ms; starts in {peer['import_s']:.1f} s; no answer for {peer['failed']} models"
        )
        notes += [f"  {reason}" for reason in peer["reasons"]]
    print_table(
        "Errors against what engines printed on real GPUs",
        ("", "rows", "median", "p90", "Helios' median", "p90"),
        rows,
        notes,
    )


if __name__ == "__main__":
    sys.exit(main())
