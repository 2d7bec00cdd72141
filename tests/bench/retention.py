"""What is kept in the store when it cannot hold all models: seconds of loading, beside LRU and GDSF.

    python -m tests.bench.retention [DIRECTORY] [--json FILE]

Requests of the real traces (see `tests.bench.traces`) go to GPUs that hold the models used last. A model that is not
there is loaded: from the store, or, ten times slower, from the volume behind it. LRU and GDSF (GreedyDual-Size with
Frequency: clock + frequency · seconds ÷ bytes, Cherkasova 1998) take what was loaded into the store at once; `helios`
is `core/retention.py` over a `core/forecast.py` of loads; it plans after loads from behind, at most each half minute.
Figures of the JSON: medians over traces and store sizes.
"""

import argparse
from collections import OrderedDict
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median

from heliosd.core.forecast import Forecast
from heliosd.core.names import Digest
from heliosd.core.retention import HORIZON_S, SPEEDS, Kept, Tier, pieces, plan
from heliosd.core.units import GiB
from tests.bench.report import write_json
from tests.bench.table import print_table
from tests.bench.traces import DIRECTORY, azure, fleet, mapped, mooncake

REPLAN_S = 30.0
GPU_BYTES = 480 * GiB
SHARES = (0.02, 0.05, 0.08)
"""Of all models' bytes: what the store may hold."""
Request = tuple[float, str]
Sizes = dict[str, int]


class Lru:
    """The model read last stays."""

    def __init__(self, sizes: Sizes, budget_bytes: int) -> None:
        self.sizes, self.left, self.kept = sizes, budget_bytes, OrderedDict[str, None]()

    def read(self, at: float, model: str) -> bool:
        """Whether the store has it; it has it afterwards."""
        if model in self.kept:
            self.kept.move_to_end(model)
            return True
        self.left -= self.sizes[model]
        self.kept[model] = None
        while self.left < 0:
            gone, _ = self.kept.popitem(last=False)
            self.left += self.sizes[gone]
        return False


class Gdsf:
    def __init__(self, sizes: Sizes, budget_bytes: int) -> None:
        self.sizes, self.left = sizes, budget_bytes
        self.clock, self.times, self.kept = 0.0, dict[str, int](), dict[str, float]()

    def read(self, at: float, model: str) -> bool:
        hit = model in self.kept
        self.times[model] = self.times.get(model, 0) + 1
        seconds = SPEEDS[Tier.DISK].read_s(self.sizes[model])
        self.kept[model] = self.clock + self.times[model] * seconds / self.sizes[model]
        self.left -= 0 if hit else self.sizes[model]
        while self.left < 0:
            gone = min(self.kept, key=self.kept.__getitem__)
            self.clock = self.kept.pop(gone)
            self.left += self.sizes[gone]
        return hit


class Helios:
    def __init__(self, sizes: Sizes, budget_bytes: int) -> None:
        self.sizes, self.budgets = sizes, {Tier.NVME: budget_bytes, Tier.DISK: sum(sizes.values())}
        self.forecast, self.kept, self.due = Forecast(epoch_offset_s=0.0), set[str](), float("inf")
        self.moved_bytes, self.planned_at = 0, -REPLAN_S

    def read(self, at: float, model: str) -> bool:
        """As of the others; what is planned is carried out before the next load."""
        if at >= self.due:
            self._plan(self.due)
        self.forecast.asked(model, at)
        if model in self.kept:
            return True
        self.due = min(self.due, max(at, self.planned_at + REPLAN_S))
        return False

    def _plan(self, at: float) -> None:
        self.due, self.planned_at = float("inf"), at
        models = [
            Kept(model, ((Digest(model), self.sizes[model]),), self.forecast.chance(model, at, HORIZON_S))
            for model in self.forecast.habits
        ]
        found = pieces(models, {Digest(each.model) for each in models} - set(map(Digest, self.kept)), (), ())
        for move in plan(self.budgets, found).moves:
            (model,) = move.piece.models
            self.moved_bytes += move.piece.n_bytes
            (self.kept.add if move.target is Tier.NVME else self.kept.discard)(model)


POLICIES: dict[str, Callable[[Sizes, int], Lru | Gdsf | Helios]] = {"helios": Helios, "lru": Lru, "gdsf": Gdsf}


def loading_s(trace: Iterable[Request], sizes: Sizes, gpu_bytes: int, policy: Lru | Gdsf | Helios) -> float:
    """Seconds of loading, all together."""
    gpus, seconds = Lru(sizes, gpu_bytes), 0.0
    for at, model in trace:
        if not gpus.read(at, model):
            tier = Tier.NVME if policy.read(at, model) else Tier.DISK
            seconds += SPEEDS[tier].read_s(sizes[model])
    return seconds


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.retention", description=__doc__)
    parser.add_argument("directory", nargs="?", type=Path, default=DIRECTORY)
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the figures as one JSON object")
    given = parser.parse_args()
    known = {name: model.demand.per_device.weights_bytes for name, model in fleet(1).models.items()}
    traces = {
        title: [(each.at_s, each.model) for each in mapped(rows)]
        for title, rows in {
            "Azure conversation": azure(given.directory / "AzureLLMInferenceTrace_conv.csv"),
            "Azure code": azure(given.directory / "AzureLLMInferenceTrace_code.csv"),
            "Mooncake conversation": mooncake(given.directory / "mooncake_conversation_trace.jsonl"),
        }.items()
    }
    ratios: dict[str, list[float]] = {"lru": [], "gdsf": []}
    rows: list[tuple[str, ...]] = []
    for title, trace in traces.items():
        for share in SHARES:
            budget = int(sum(known.values()) * share)
            took = {name: loading_s(trace, known, GPU_BYTES, make(known, budget)) for name, make in POLICIES.items()}
            for name, found in ratios.items():
                found.append(took["helios"] / took[name])
            rows.append((title, f"{share:.0%}", *(f"{seconds:,.0f} s" for seconds in took.values())))
    print_table("Seconds of loading", ("trace", "store", *POLICIES), rows)
    write_json({f"reload_seconds_vs_{name}": round(median(found), 4) for name, found in ratios.items()}, given.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
