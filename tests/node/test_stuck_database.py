"""A database that cannot be written, as on a full disk, costs what would have been written, and nothing else."""

import sqlite3
from contextlib import closing
from pathlib import Path

from heliosd.core.lifecycle import State
from tests.node.world import world


async def test_models_start_and_stop_while_nothing_can_be_written(tmp_path: Path) -> None:
    async with world(tmp_path, models={"a/m": {"kv_cache": "1GiB"}}) as here:
        ref = await here.add("a/m")
        await here.database.run(lambda db: db.execute("pragma busy_timeout=0"))
        with closing(sqlite3.connect(here.database.path, isolation_level=None)) as other:
            other.execute("begin immediate")
            first = await here.node.load(ref)
            await here.journal.flushed()
            assert here.journal.lost > 0
            (replica,) = here.node.snapshot().replicas
            assert (replica.id, replica.state) == (first, State.READY)
            other.execute("rollback")
        await here.node.stop(str(ref))
        second = await here.node.load(ref)
        assert second != first
        assert (await here.kinds_noted("a/m")).count("start") == 1, "of the second; the first could not be written"
