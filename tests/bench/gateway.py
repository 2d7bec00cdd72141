"""heliosd against `vllm serve`: the same engine arguments, both up at once, asked in turn in several rounds.

    python -m tests.bench.gateway [--json FILE] [--rounds N] [--model DIR]

Each round asks both at 1, 8 and 32 streams, one right after the other and in turn the one or the other first. A
ratio is heliosd ÷ vllm serve within a round; what is reported is the median of the rounds.
"""

import argparse
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import aiohttp
import uvloop

from tests.bench.arguments import Arguments, add_flags, arguments_of
from tests.bench.daemon import heliosd
from tests.bench.load import measure
from tests.bench.others import Others
from tests.bench.peer import vllm_serve
from tests.bench.process import answering
from tests.bench.report import Pair, figures, gateway_object, ratios, write_json
from tests.bench.smollm2 import smollm2
from tests.bench.table import print_table, span

LEVELS = {1: 3, 8: 2, 32: 1}
"""Streams, and how many requests each makes: enough tokens at each level for a 99th percentile."""


@dataclass(slots=True)
class Comparison:
    pairs: dict[int, list[Pair]] = field(default_factory=lambda: {streams: [] for streams in LEVELS})
    """By number of streams, one for each round."""
    asked: int = 0
    """Answers of lone streams by each server…"""
    same: int = 0
    """…and how many of them were the same text."""
    others_cores: list[float] = field(default_factory=list)
    """Cores that other processes took, by round."""


async def compare(arguments: Arguments, rounds: int) -> Comparison:
    found = Comparison()
    with tempfile.TemporaryDirectory(prefix="helios-bench-") as temporary:
        folder = Path(temporary)
        async with (
            vllm_serve(arguments, folder) as (process, peer),
            heliosd(arguments, folder) as daemon,
            aiohttp.ClientSession() as session,
        ):
            await answering(session, f"{peer}/health", process, every_s=0.2)
            await daemon.until_warm()
            for url in (daemon.url, peer):
                await measure(url, 8, 1, "warm")
            for number in range(rounds):
                others = Others()
                for streams, requests in LEVELS.items():
                    urls = [daemon.url, peer] if number % 2 == 0 else [peer, daemon.url]
                    answers = {url: await measure(url, streams, requests, f"{number}.{streams}") for url in urls}
                    helios, theirs = answers[daemon.url], answers[peer]
                    found.pairs[streams].append(Pair(figures(helios), figures(theirs)))
                    if streams == 1:
                        found.asked += requests
                        found.same += sum(a.text == b.text for a, b in zip(helios, theirs, strict=True))
                    print(f"round {number + 1}, {streams} streams: {_line(found.pairs[streams][-1])}", file=sys.stderr)
                found.others_cores.append(others.cores())
    return found


def _line(pair: Pair) -> str:
    return f"heliosd {pair.helios.tokens_per_s:.1f}, vllm serve {pair.peer.tokens_per_s:.1f} tokens/s"


def show(found: Comparison, arguments: Arguments) -> None:
    rows = []
    for streams, rounds in found.pairs.items():
        level = ratios(rounds)
        helios, peer = [pair.helios for pair in rounds], [pair.peer for pair in rounds]
        for name, mine, theirs, ratio in (
            ("tokens/s", [f.tokens_per_s for f in helios], [f.tokens_per_s for f in peer], level.tokens_per_s),
            ("first token p50", [f.ttft_p50_s for f in helios], [f.ttft_p50_s for f in peer], level.ttft_p50),
            ("between tokens p99", [f.itl_p99_s for f in helios], [f.itl_p99_s for f in peer], level.itl_p99),
        ):
            write = "{:.1f}".format if name == "tokens/s" else span
            each = sorted(m / t for m, t in zip(mine, theirs, strict=True))
            spread = f"{each[0]:.2f} to {each[-1]:.2f}"
            label = f"{streams} stream{'s' if streams > 1 else ''}: {name}"
            rows.append((label, write(median(mine)), write(median(theirs)), f"{ratio:.3f}", spread))
    print_table(
        f"gateway: heliosd and vllm serve, {len(found.others_cores)} rounds",
        ("", "heliosd", "vllm serve", "ratio", "of rounds"),
        rows,
        (
            arguments.told(),
            "ratio: heliosd ÷ vllm serve, median of the rounds; for tokens/s more is better, for times less",
            f"lone streams answered alike: {found.same} of {found.asked}",
            f"cores that other processes took, by round: {', '.join(f'{cores:.2f}' for cores in found.others_cores)}",
        ),
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.gateway", description=(__doc__ or "").split("\n")[0])
    add_flags(parser)
    parser.add_argument("--rounds", metavar="N", type=int, default=7)
    given = parser.parse_args()
    arguments = arguments_of(given, given.model or smollm2())
    found = uvloop.run(compare(arguments, given.rounds))
    show(found, arguments)
    write_json(gateway_object({streams: ratios(rounds) for streams, rounds in found.pairs.items()}), given.json)


if __name__ == "__main__":
    main()
