"""How well the forecast tells who is asked for next, part by part, and what starting models ahead is worth.

    python -m tests.bench.forecast [DIRECTORY] [--json FILE]

Two traces of DIRECTORY (default: the shared data beside the checkout) with the models of `tests.bench.traces`, which
come at random by construction, and three with habits (`tests.bench.forecast_traces`). After the first third of a trace
it is asked at random times, of random models: "asked for within 60 s?" The Brier score is the mean squared error of the
probability; precision and recall are those of a probability of at least a half. `+ week` also takes silence into
account. `foreseen` is the share of the requests after five idle minutes whose probability, 15 s before, would have
started the model ahead. Then the scheduler plays the first three hours with and without starts ahead, where habits show
in hours, from four beginnings. Figures of the JSON: by trace.
"""

import argparse
import math
import random
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import fmean

from heliosd.core.forecast import Forecast
from heliosd.core.messages import Limits, UsageSeeded
from heliosd.core.prefetch import LEAST_CHANCE
from heliosd.core.scheduler import Scheduler
from heliosd.core.units import GiB
from heliosd.simulation.fleet import Fleet, model_of
from heliosd.simulation.trace import Asked
from heliosd.simulation.world import World
from tests.bench.forecast_traces import Request, chains, clocks, offices
from tests.bench.report import percentile, write_json
from tests.bench.table import print_table
from tests.bench.traces import DIRECTORY, azure, fleet, mapped, mooncake

WITHIN_S = 60.0
AHEAD_S = 15.0
IDLE_S = 300.0
SAMPLES, MODELS_EACH, MOST_COLD = 500, 60, 5000
PLAYED_S = 3 * 3600.0
BEGINNINGS = 4
"""One request less changes who is evicted for the rest of a trace: the figures are means over so many beginnings."""
Guess = Callable[[str, float], float]


@dataclass
class Score:
    asked: int = 0
    squares: float = 0.0
    right: int = 0
    wrong: int = 0
    missed: int = 0
    foreseen: int = 0
    cold: int = 0

    def guessed(self, chance: float, came: bool) -> None:
        self.asked += 1
        self.squares += (chance - came) ** 2
        self.right += chance >= 0.5 and came
        self.wrong += chance >= 0.5 and not came
        self.missed += chance < 0.5 and came

    def figures(self) -> dict[str, float]:
        return {
            "brier": round(self.squares / max(1, self.asked), 4),
            "precision": round(self.right / max(1, self.right + self.wrong), 3),
            "recall": round(self.right / max(1, self.right + self.missed), 3),
            "foreseen": round(self.foreseen / max(1, self.cold), 3),
        }


def guesses(forecast: Forecast) -> dict[str, Guess]:
    """The forecast with ever more of its parts, up to what it says itself; and that without sequences."""

    def heat(model: str, at: float) -> float:
        return -math.expm1(-forecast.habits[model].heat.rate(at) * WITHIN_S)

    def week(model: str, at: float) -> float:
        return forecast.by_rate(forecast.habits[model], at, WITHIN_S)

    def sequences(model: str, at: float) -> float:
        return max(week(model, at), forecast.expected(at).get(model, (0.0, ""))[0])

    def gaps(model: str, at: float) -> float:
        return forecast.chance(model, at, WITHIN_S)

    def alone(model: str, at: float) -> float:
        habit = forecast.habits[model]
        return habit.gaps.chance(at - habit.heat.at, WITHIN_S, week(model, at))

    return {"heat": heat, "+ week": week, "+ sequences": sequences, "+ pauses": gaps, "- sequences": alone}


def scores(trace: Sequence[Request]) -> dict[str, Score]:
    chance = random.Random(9)
    times: dict[str, list[float]] = defaultdict(list)
    for at, model in trace:
        times[model].append(at)
    began, ended = trace[len(trace) // 3][0], trace[-1][0]
    looks = [(chance.uniform(began, ended - WITHIN_S), 1, "") for _ in range(SAMPLES)]
    cold = [
        (at - AHEAD_S, 2, model)
        for model, asked in times.items()
        for before, at in pairwise(asked)
        if at - before > IDLE_S and at - AHEAD_S > began
    ]
    cold = chance.sample(cold, min(MOST_COLD, len(cold)))
    forecast = Forecast(epoch_offset_s=0.0)
    parts = guesses(forecast)
    found = {name: Score() for name in parts}
    for at, kind, model in sorted([*((at, 0, model) for at, model in trace), *looks, *cold]):
        if kind == 0:
            forecast.asked(model, at)
        elif kind == 1:
            known = list(forecast.habits)
            for each in chance.sample(known, min(MODELS_EACH, len(known))):
                asked = times[each]
                after = bisect_right(asked, at)
                came = after < len(asked) and asked[after] <= at + WITHIN_S
                for name, guess in parts.items():
                    found[name].guessed(guess(each, at), came)
        else:
            for name, guess in parts.items():
                found[name].cold += 1
                found[name].foreseen += guess(model, at) >= LEAST_CHANCE
    return found


def played(trace: Sequence[Request], devices: int) -> dict[str, dict[str, float]]:
    """Without and with starts ahead; means over beginnings."""
    plays = [_played(trace[first:], devices) for first in range(BEGINNINGS)]
    return {
        title: {name: round(fmean(play[title][name] for play in plays), 3) for name in figures}
        for title, figures in plays[0].items()
    }


def _played(trace: Sequence[Request], devices: int) -> dict[str, dict[str, float]]:
    chance = random.Random(1)
    names = sorted({model for _, model in trace})
    sizes = {name: int(min(60.0, max(1.0, chance.lognormvariate(2.2, 0.9))) * GiB) for name in names}
    there = Fleet(fleet(devices).devices, {name: model_of(name, size) for name, size in sizes.items()})
    asked = [Asked(at, model, 500, 60) for at, model in trace if at < PLAYED_S]
    found: dict[str, dict[str, float]] = {}
    for title, loads in (("on request", 0), ("ahead", 1)):
        scheduler = Scheduler(Limits(queue_length=10**9, prefetch_loads=loads))
        scheduler.handle(UsageSeeded(0.0, 0.0))
        outcome = World(there, scheduler).run(asked)
        assert not outcome.overcommits and not outcome.lost and not outcome.doubled, f"{title}: {outcome}"
        count = scheduler.snapshot(outcome.span_s).preloads
        ended = count.hits + count.misses
        found[title] = {
            "starts": outcome.starts,
            "first_token_mean_s": round(sum(outcome.first_token_s) / len(asked), 3),
            "first_token_p95_s": round(percentile(outcome.first_token_s, 0.95), 2),
            "hit_rate": round(count.hits / ended, 3) if ended else 0.0,
            "hits": count.hits,
            "wasted_gib_h": round(count.wasted_byte_s / GiB / 3600, 1),
        }
    return found


def traces(directory: Path) -> Mapping[str, tuple[list[Request], int]]:
    """By name, with the number of cards to play them on; 0: hours tell nothing where habits take weeks or none are."""
    conversation = mapped(azure(directory / "AzureLLMInferenceTrace_conv.csv"))
    rush = mapped(mooncake(directory / "mooncake_conversation_trace.jsonl"))
    return {
        "azure": ([(each.at_s, each.model) for each in conversation], 0),
        "mooncake": ([(each.at_s, each.model) for each in rush], 12),
        "clocks": (clocks(), 6),
        "chains": (chains(), 6),
        "offices": (offices(), 0),
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.forecast", description=__doc__)
    parser.add_argument("directory", nargs="?", type=Path, default=DIRECTORY)
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the figures as one JSON object")
    given = parser.parse_args()
    result: dict[str, object] = {}
    for title, (trace, devices) in traces(given.directory).items():
        parts = {name: score.figures() for name, score in scores(trace).items()}
        plays = played(trace, devices) if devices else {}
        result[title] = {"forecast": parts, "played": plays}
        for rows, what in ((parts, f"{title}: {len(trace):,} requests"), (plays, f"{title} on {devices} cards")):
            columns = list(next(iter(rows.values()), {}))
            if rows:
                print_table(
                    what,
                    ("", *(name.replace("_", " ") for name in columns)),
                    [(name, *(f"{each[column]:g}" for column in columns)) for name, each in rows.items()],
                )
    write_json(result, given.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
