"""How much faster a large file comes over several connections than over one, when each of them has a limit.

    python -m tests.bench.fetch [--rounds N] [--mib N] [--connections N] [--json FILE]

The hub on this machine gives each connection so much a second and no more, as those far away do. The whole way into the
store is timed: listing, fetching, hashing, making durable and the catalog. Rounds are interleaved; medians.
"""

import argparse
import asyncio
import shutil
import tempfile
import time
from pathlib import Path
from statistics import median

from heliosd.core.units import MiB, format_bytes
from heliosd.state.database import Database
from heliosd.store.sources.hub import HubAccess
from heliosd.store.store import Store
from heliosd.store.stored import Addition
from tests.bench.report import write_json
from tests.bench.table import print_table, span
from tests.store.hub_server import HubServer, running
from tests.store.models import model_files

RATE_BYTES_PER_S = 4 * MiB
"""Of each connection."""


async def fetched_s(root: Path, hub: HubServer, connections: int) -> float:
    """Seconds that one model takes into an empty store."""
    database = Database(root / "state.sqlite")
    await database.open()
    access = HubAccess(endpoint=hub.url, offline=False)
    store = Store(root / "store", database, hub=access, connections=connections)
    await store.open()
    began = time.perf_counter()
    await store.add(Addition("hub", "org/m"), lambda _: None)
    took_s = time.perf_counter() - began
    await store.close()
    await database.close()
    return took_s


async def measured(size_bytes: int, connections: int, rounds: int) -> dict[int, list[float]]:
    """Seconds by the number of connections."""
    took: dict[int, list[float]] = {1: [], connections: []}
    async with running(HubServer(rate_bytes_per_s=RATE_BYTES_PER_S)) as hub:
        hub.files["org/m"] = model_files(size_bytes)
        for _ in range(rounds):
            for count, seconds in took.items():
                root = Path(tempfile.mkdtemp(prefix="fetch-"))
                try:
                    seconds.append(await fetched_s(root, hub, count))
                finally:
                    shutil.rmtree(root)
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mib", type=int, default=128, help="size of the file")
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the result as one JSON object")
    given = parser.parse_args()
    size_bytes = given.mib * MiB
    took = {
        count: median(each)
        for count, each in asyncio.run(measured(size_bytes, given.connections, given.rounds)).items()
    }
    ratio = took[1] / took[given.connections]
    rows = [
        (f"{count} connection{'s' * (count > 1)}", span(each), f"{format_bytes(round(size_bytes / each))}/s")
        for count, each in took.items()
    ]
    print_table(
        f"{format_bytes(size_bytes)} from a hub that gives {format_bytes(RATE_BYTES_PER_S)}/s to each connection",
        ("", "time", "rate"),
        [*rows, ("ratio", f"{ratio:.2f}", "")],
    )
    write_json({"connections": given.connections, "parallel_vs_one": round(ratio, 3)}, given.json)


if __name__ == "__main__":
    main()
