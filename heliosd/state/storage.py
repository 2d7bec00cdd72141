"""What `heliosctl doctor --storage` measured last."""

import sqlite_utils

from heliosd.core.storage_speed import Speed
from heliosd.state.database import Database


class StorageSpeeds:
    """The speeds of this node's storage; the table's only writer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def all(self) -> tuple[Speed, ...]:
        rows = await self._database.run(
            lambda db: db.execute(
                "select method, cold_bytes_per_s, warm_bytes_per_s, note from storage_speeds order by rowid"
            ).fetchall()
        )
        return tuple(Speed(*row) for row in rows)

    async def replace(self, speeds: tuple[Speed, ...], at: float) -> None:
        """Forget what was measured before. `at` is in seconds since the epoch."""

        def write(db: sqlite_utils.Database) -> None:
            db.execute("delete from storage_speeds")
            for speed in speeds:
                db.execute(
                    "insert into storage_speeds (method, cold_bytes_per_s, warm_bytes_per_s, note, at) "
                    "values (?, ?, ?, ?, ?)",
                    [speed.method, speed.cold_bytes_per_s, speed.warm_bytes_per_s, speed.note, at],
                )

        await self._database.run(write)
