"""A store in a process of its own whose blobs go to and fro, made to be killed:
`python -m tests.store.tiers.crash_child ROOT FOLDER …`. Prints a line after each step."""

import asyncio
import itertools
import random
import sys
from pathlib import Path

from heliosd.core.retention import Tier
from heliosd.errors import Conflict
from heliosd.state.database import Database
from heliosd.store.store import Store
from heliosd.store.stored import Addition
from heliosd.store.tiers.tiers import TierLimits


async def main(root: Path, *folders: str) -> None:
    database = Database(root / "state.sqlite")
    await database.open()
    store = Store(root / "store", database, tiers=TierLimits(disk_dir=root / "disk"))
    await store.open()
    models = [await store.add(Addition("directory", folder), lambda _: None) for folder in folders]
    print("open", flush=True)
    chance = random.Random()
    digests = sorted({file.digest for model in models for file in model.manifest.files})

    async def move() -> None:
        for _ in itertools.count():
            digest = chance.choice(digests)
            for tier in (Tier.DISK, Tier.NVME):
                try:
                    if await store.tiers.move(digest, tier):
                        print(tier, digest, flush=True)
                except Conflict:  # the other task has just removed it, or adds it
                    pass

    async def churn() -> None:
        for _ in itertools.count():
            model = chance.choice(models)
            await store.remove(model.ref)
            await store.add(Addition("directory", folders[models.index(model)]), lambda _: None)
            print("again", model.ref, flush=True)

    async with asyncio.TaskGroup() as group:
        group.create_task(move())
        group.create_task(churn())


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), *sys.argv[2:]))
