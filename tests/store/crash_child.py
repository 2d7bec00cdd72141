"""A daemon's store in a process of its own, made to be killed: `python -m tests.store.crash_child ROOT JOB …`.

Prints a line after everything that must not get lost. `run` does the same in a process that was forked with all
modules loaded.
"""

import asyncio
import itertools
import os
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from heliosd.core.names import parse_ref
from heliosd.core.retention import Tier
from heliosd.errors import Conflict
from heliosd.state.database import Database
from heliosd.store.sources.hub import HubAccess
from heliosd.store.sources.source import Progress
from heliosd.store.store import Store
from heliosd.store.stored import Addition
from heliosd.store.tiers.tiers import TierLimits

CHUNK_BYTES = 1 << 18


def say(*words: object) -> None:
    print(*words, flush=True)


@contextmanager
def under_way(what: str) -> Iterator[None]:
    """Whoever listens knows what a kill interrupted."""
    say("begin", what)
    yield
    say("end", what)


async def fetch(store: Store, repository: str) -> None:
    """Add one model of the hub that HF_ENDPOINT names."""

    def tell(line: Progress) -> None:
        if line.phase == "fetch":
            say("done", line.done_bytes)

    await store.add(Addition("hub", repository), tell)
    say("added", repository)


async def churn(store: Store, *folders: str) -> None:
    """Add and remove models for ever, two at a time."""

    async def one(folder: str) -> None:
        for _ in itertools.count():
            with under_way("import"):
                model = await store.add(Addition("directory", folder), lambda _: None)
            say("added", model.ref)
            say("removing", model.ref)
            with under_way("removal"):
                await store.remove(parse_ref(str(model.ref)))
            model = await store.add(Addition("directory", folder), lambda _: None)
            say("added", model.ref)

    async with asyncio.TaskGroup() as group:
        for folder in folders:
            group.create_task(one(folder))


async def relate(store: Store, *folders: str) -> None:
    """Add models that have much in common, share it, remove some and add them again, for ever."""
    for count in itertools.count():
        for folder in folders:
            model = await store.add(Addition("directory", folder), lambda _: None)
            say("added", model.ref)
            with under_way("sharing"):
                found = await store.share(again=bool(count % 2))
            say("shared", found.files)
        for folder in folders[count % 2 :: 2]:
            say("removing", Path(folder).name)
            await store.remove(parse_ref(Path(folder).name))


async def move(store: Store) -> None:
    """Bring blobs to the slower volume, back, and into RAM, for ever."""
    chance, tiers = random.Random(), store.tiers
    for _ in itertools.count():
        seen = await tiers.survey()
        everything = sorted(seen.nvme.keys() | seen.disk.keys())
        if not everything:
            await asyncio.sleep(0.01)
            continue
        with under_way("staging"), suppress(Conflict):  # another task has just removed it, or uses it
            await tiers.stage(chance.choice(everything))
        digest = chance.choice(everything)
        step, target = ("demotion", Tier.DISK) if digest in seen.nvme else ("promotion", Tier.NVME)
        with under_way(step), suppress(Conflict):
            await tiers.move(digest, target)


async def mixed(store: Store, repository: str, gone: str, *folders: str) -> None:
    """Fetch one model, remove another if there is such a one, churn those of the folders before `--`, relate those
    after it, and move blobs, all at once."""

    async def remove() -> None:
        if await store.find(parse_ref(gone)) is not None:
            say("removing", gone)
            with under_way("removal"):
                await store.remove(parse_ref(gone))
            say("removed", gone)

    async def add() -> None:
        begun = False

        def tell(line: Progress) -> None:
            nonlocal begun
            if line.phase == "fetch" and not begun:
                begun = True
                say("fetching", repository)

        with under_way("fetch"):
            await store.add(Addition("hub", repository), tell)
        say("added", repository)

    middle = folders.index("--")
    async with asyncio.TaskGroup() as group:
        group.create_task(churn(store, *folders[:middle]))
        group.create_task(relate(store, *folders[middle + 1 :]))
        group.create_task(move(store))
        group.create_task(add())
        group.create_task(remove())


def run(said: Connection, endpoint: str, chunk_bytes: int, connections: int, root: str, *words: str) -> None:
    """What `main` does, with its lines written to `said`."""
    sys.stdout = os.fdopen(os.dup(said.fileno()), "w")
    hub = HubAccess(endpoint=endpoint, offline=False)
    asyncio.run(main(Path(root), *words, hub=hub, chunk_bytes=chunk_bytes, connections=connections))


async def main(root: Path, job: str, *words: str, **more: Any) -> None:
    database = Database(root / "state.sqlite")
    await database.open()
    limits = TierLimits(disk_dir=root / "disk", host_memory_bytes=16 << 20) if job == "mixed" else None
    store = Store(root / "store", database, shared_file_bytes=64 << 10, shared_run_bytes=16 << 10, tiers=limits, **more)
    await store.open()
    say("open")
    await {"fetch": fetch, "churn": churn, "relate": relate, "mixed": mixed}[job](store, *words)
    await store.close()
    await database.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), *sys.argv[2:], chunk_bytes=CHUNK_BYTES))
