"""From answers to figures, from figures of both servers to ratios, and the JSON object that each benchmark writes."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from tests.bench.load import Answer


@dataclass(frozen=True, slots=True)
class Figures:
    """One server at one number of streams in one round."""

    tokens_per_s: float
    ttft_p50_s: float
    itl_p99_s: float
    """Between two pieces of text that follow one another in a stream."""


@dataclass(frozen=True, slots=True)
class Pair:
    helios: Figures
    peer: Figures


@dataclass(frozen=True, slots=True)
class Ratios:
    """heliosd ÷ peer at one number of streams; each the median over the rounds."""

    tokens_per_s: float
    ttft_p50: float
    itl_p99: float


def figures(answers: Sequence[Answer]) -> Figures:
    began, ended = min(answer.sent for answer in answers), max(answer.came[-1] for answer in answers)
    gaps = [gap for answer in answers for gap in answer.gaps_s]
    return Figures(
        tokens_per_s=sum(answer.tokens for answer in answers) / (ended - began),
        ttft_p50_s=median(answer.first_s for answer in answers),
        itl_p99_s=percentile(gaps, 0.99),
    )


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of all values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]


def ratios(rounds: Sequence[Pair]) -> Ratios:
    """A ratio is taken within each round, where both ran back to back; then the median of the rounds."""
    return Ratios(
        tokens_per_s=median(pair.helios.tokens_per_s / pair.peer.tokens_per_s for pair in rounds),
        ttft_p50=median(pair.helios.ttft_p50_s / pair.peer.ttft_p50_s for pair in rounds),
        itl_p99=median(pair.helios.itl_p99_s / pair.peer.itl_p99_s for pair in rounds),
    )


def gateway_object(levels: Mapping[int, Ratios]) -> dict[str, object]:
    """The gateway's result. Times to tokens are the median over the numbers of streams; the table has each."""
    return {
        "tokens_per_s_ratio": {str(streams): round(each.tokens_per_s, 4) for streams, each in levels.items()},
        "ttft_p50_ratio": round(median(each.ttft_p50 for each in levels.values()), 4),
        "itl_p99_ratio": round(median(each.itl_p99 for each in levels.values()), 4),
    }


def coldstart_object(
    helios_s: Sequence[float],
    serve_s: Sequence[float],
    llama_s: Sequence[float],
    swap_s: Sequence[float],
    phases: Sequence[Mapping[str, float]],
) -> dict[str, object]:
    """The cold start's result: medians over all starts, and the second start by itself. None: it is not installed."""
    names = list(dict.fromkeys(name for each in phases for name in each))
    return {
        "vs_vllm_serve": round(median(helios_s) / median(serve_s), 4),
        "vs_llama_server": round(median(helios_s) / median(llama_s), 4) if llama_s else None,
        "hot_swap_s": round(median(swap_s), 3),
        "second_start_s": round(helios_s[1], 3),
        "phases": {name: round(median(each.get(name, 0.0) for each in phases), 4) for name in names},
    }


def startup_object(ready_s: Sequence[float], limit_s: float) -> dict[str, object]:
    """The start-up's result."""
    return {"api_up_s": round(median(ready_s), 3), "limit_s": limit_s}


def write_json(result: Mapping[str, object], file: Path | None) -> None:
    """Write the object when a file was asked for."""
    if file is not None:
        file.write_text(json.dumps(result, indent=1) + "\n")
