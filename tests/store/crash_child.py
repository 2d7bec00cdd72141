"""A daemon's store in a process of its own, made to be killed: `python -m tests.store.crash_child ROOT JOB …`.

Prints a line after everything that must not get lost. `run` does the same in a process that was forked with all
modules loaded.
"""

import asyncio
import itertools
import os
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from heliosd.core.names import parse_ref
from heliosd.state.database import Database
from heliosd.store.sources.hub import HubAccess
from heliosd.store.sources.source import Progress
from heliosd.store.store import Store
from heliosd.store.stored import Addition

CHUNK_BYTES = 1 << 18


def say(*words: object) -> None:
    print(*words, flush=True)


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
            model = await store.add(Addition("directory", folder), lambda _: None)
            say("added", model.ref)
            say("removing", model.ref)
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
            say("shared", (await store.share(again=bool(count % 2))).files)
        for folder in folders[count % 2 :: 2]:
            say("removing", Path(folder).name)
            await store.remove(parse_ref(Path(folder).name))


async def mixed(store: Store, repository: str, gone: str, *folders: str) -> None:
    """Fetch one model, remove another if there is such a one, and churn, all at once."""

    async def remove() -> None:
        if await store.find(parse_ref(gone)) is not None:
            say("removing", gone)
            await store.remove(parse_ref(gone))
            say("removed", gone)

    async def add() -> None:
        begun = False

        def tell(line: Progress) -> None:
            nonlocal begun
            if line.phase == "fetch" and not begun:
                begun = True
                say("fetching", repository)

        await store.add(Addition("hub", repository), tell)
        say("added", repository)

    async with asyncio.TaskGroup() as group:
        group.create_task(churn(store, *folders))
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
    store = Store(root / "store", database, shared_file_bytes=64 << 10, shared_run_bytes=16 << 10, **more)
    await store.open()
    say("open")
    await {"fetch": fetch, "churn": churn, "relate": relate, "mixed": mixed}[job](store, *words)
    await store.close()
    await database.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), *sys.argv[2:], chunk_bytes=CHUNK_BYTES))
