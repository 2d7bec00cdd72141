"""What metrics, journal and metering cost the requests: heliosd against itself without them, 32 streams at a time.

Both daemons are up at once, each with an engine of its own with the same model, and are asked in turn. A ratio is
tokens a second with all of it ÷ without, within a round; what is reported is the median of the rounds.
"""

import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median

from tests.bench.arguments import Arguments
from tests.bench.daemon import Daemon, configured
from tests.bench.load import measure
from tests.bench.report import figures
from tests.bench.smollm2 import smollm2

STREAMS = 32
ROUNDS = 7


async def measured(rounds: int = ROUNDS, model: Path | None = None) -> list[tuple[float, float]]:
    """Tokens a second with everything and with nothing, for each round."""
    arguments = Arguments(model or smollm2(), threads=1)
    found: list[tuple[float, float]] = []
    async with AsyncExitStack() as stack:
        daemons: list[Daemon] = []
        for program in ("heliosd", "tests.bench.unwatched"):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="helios-bench-")))
            daemon = await stack.enter_async_context(configured(arguments.toml(), folder, program))
            await daemon.add(arguments.model)
            await daemon.until_warm()
            await measure(daemon.url, STREAMS, 1, "warm")
            daemons.append(daemon)
        for number in range(rounds):
            speeds = {}
            for daemon in daemons if number % 2 == 0 else daemons[::-1]:
                answers = await measure(daemon.url, STREAMS, 1, f"{number}")
                speeds[daemon.url] = figures(answers).tokens_per_s
            found.append((speeds[daemons[0].url], speeds[daemons[1].url]))
    return found


def ratio(rounds: list[tuple[float, float]]) -> float:
    return median(watched / unwatched for watched, unwatched in rounds)
