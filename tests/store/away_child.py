"""A store in a process of its own that lets go of models and brings them back, made to be killed:
`python -m tests.store.away_child ROOT`. Prints a line after each step."""

import asyncio
import itertools
import random
import sys
from pathlib import Path

from heliosd.core.names import ModelRef
from heliosd.core.retention import Tier
from heliosd.errors import Conflict
from heliosd.state.database import Database
from heliosd.store.store import Store
from tests.store.models import model_files
from tests.store.peer_server import Neighbours, PeerServer, running_peer

CHUNK_BYTES = 1 << 18
MODELS = {f"org/m{number}": model_files(3 << 20, seed=number) for number in range(2)}


async def main(root: Path) -> None:
    database = Database(root / "state.sqlite")
    await database.open()
    store = Store(root / "store", database, chunk_bytes=CHUNK_BYTES)
    await store.open()
    async with running_peer(PeerServer("east", MODELS)) as east:
        store.ask_nearby(Neighbours([east]))
        models = await store.models()
        print("open", flush=True)
        for _ in itertools.count():
            model = random.choice(models)
            try:
                await store.let_go(ModelRef(str(model.ref)), Tier.PEER)
                print("let go", model.ref, flush=True)
            except Conflict:  # it is away since an earlier life
                pass
            async with store.hold(model.revision):
                print("back", model.ref, flush=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
