"""Real traces over a thousand models on twelve cards: swapping, GPU-hours and waiting, beside other policies.

    python -m tests.bench.traces [DIRECTORY] [--json FILE] [--devices N]

DIRECTORY (default: the shared data beside the checkout) holds the traces. When somebody asked and how many tokens went
both ways is real; which model was meant is drawn with the skew that Aegaeon published (94 % of the models get 1.35 % of
the requests), and so are the models' sizes. All policies run on the same arithmetic of engines (`heliosd/simulation`);
`helios` is the scheduler that heliosd runs. Figures of the JSON: medians over the traces.
"""

import argparse
import csv
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from statistics import median

from heliosd.core.hardware import Device, DeviceKind
from heliosd.core.names import DeviceId
from heliosd.core.units import GiB
from heliosd.simulation.baselines import POLICIES
from heliosd.simulation.fleet import Fleet, model_of
from heliosd.simulation.trace import Asked
from heliosd.simulation.world import Outcome, Speeds
from tests.bench.report import write_json
from tests.bench.table import print_table

DIRECTORY = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "traces"
MODELS, HOT, COLD_SHARE = 1000, 60, 0.0135
SLO_S = 10.0
SHOWN = ("helios", "lru", "ollama", "dedicated")
HOST_BYTES = 1024 * GiB
"""What sleeping models may hold in the run that is shown beside: none of the others puts models to sleep."""
Row = tuple[float, int, int]


def azure(file: Path) -> Iterator[Row]:
    with file.open(newline="", encoding="utf-8") as source:
        began: datetime | None = None
        for row in csv.DictReader(source):
            at = datetime.fromisoformat(row["TIMESTAMP"][:26])
            began = began or at
            yield (at - began).total_seconds(), int(row["ContextTokens"]), int(row["GeneratedTokens"])


def mooncake(file: Path) -> Iterator[Row]:
    with file.open(encoding="utf-8") as source:
        for line in source:
            row = json.loads(line)
            yield row["timestamp"] / 1000, row["input_length"], row["output_length"]


def fleet(devices: int) -> Fleet:
    chance = random.Random(1)
    sizes = [int(min(60.0, max(1.0, chance.lognormvariate(2.2, 0.9))) * GiB) for _ in range(MODELS)]
    cards = (Device(DeviceId(f"g{at}"), DeviceKind.SIMULATED, "H100", 80 * GiB) for at in range(devices))
    return Fleet(tuple(cards), {f"m{at}": model_of(f"m{at}", size) for at, size in enumerate(sizes)})


def mapped(rows: Iterator[Row]) -> list[Asked]:
    """Each request with a model: the hot ones by a power law, the cold ones alike."""
    hot = [1 / (rank + 1) ** 0.8 for rank in range(HOT)]
    weights = [each / sum(hot) * (1 - COLD_SHARE) for each in hot] + [COLD_SHARE / (MODELS - HOT)] * (MODELS - HOT)
    chance, names = random.Random(2), [f"m{at}" for at in range(MODELS)]
    return [
        Asked(at_s, chance.choices(names, weights)[0], prompt, max(1, output)) for at_s, prompt, output in sorted(rows)
    ]


def played(trace: Sequence[Asked], there: Fleet) -> dict[str, Outcome]:
    found = {name: POLICIES[name](there, trace, Speeds()) for name in SHOWN}
    return found | {"helios, sleeping": POLICIES["helios"](replace(there, host_bytes=HOST_BYTES), trace, Speeds())}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.traces", description=__doc__)
    parser.add_argument("directory", nargs="?", type=Path, default=DIRECTORY)
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the figures as one JSON object")
    parser.add_argument("--devices", metavar="N", type=int, default=12)
    given = parser.parse_args()
    there = fleet(given.devices)
    traces = {
        "Azure conversation": mapped(azure(given.directory / "AzureLLMInferenceTrace_conv.csv")),
        "Azure code": mapped(azure(given.directory / "AzureLLMInferenceTrace_code.csv")),
        "Mooncake conversation": mapped(mooncake(given.directory / "mooncake_conversation_trace.jsonl")),
    }
    names = ("swap_seconds_vs_lru", "swap_seconds_sleeping_vs_lru", "gpu_hours_vs_dedicated", "committed", "slo")
    figures: dict[str, list[float]] = {name: [] for name in (*names, "slo_dedicated")}
    for title, trace in traces.items():
        found = played(trace, there)
        ours = found["helios"]
        for each in (ours, found["helios, sleeping"]):
            assert not each.overcommits and not each.lost and not each.doubled, f"{title}: {each}"
        figures["swap_seconds_vs_lru"].append(ours.swap_s / found["lru"].swap_s)
        figures["swap_seconds_sleeping_vs_lru"].append(found["helios, sleeping"].swap_s / found["lru"].swap_s)
        figures["gpu_hours_vs_dedicated"].append(ours.device_s / found["dedicated"].device_s)
        figures["committed"].append(ours.committed)
        figures["slo"].append(ours.within(SLO_S))
        figures["slo_dedicated"].append(found["dedicated"].within(SLO_S))
        print_table(
            f"{title}: {len(trace):,} requests in {ours.span_s / 60:.0f} minutes, {given.devices} cards of 80 GiB",
            ("", "answered", f"first token in {SLO_S:.0f} s", "starts", "wakes", "swapping", "GPU-hours", "committed"),
            [
                (
                    name,
                    f"{each.answered / each.requests:.1%}",
                    f"{each.within(SLO_S):.1%}",
                    f"{each.starts:,}",
                    f"{each.wakes:,}",
                    f"{each.swap_s:,.0f} s",
                    f"{each.device_s / 3600:.1f}",
                    f"{each.committed:.1%}",
                )
                for name, each in found.items()
            ],
        )
    write_json({name: round(median(values), 4) for name, values in figures.items()}, given.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
