"""Which models an operator wants kept ready, whatever is asked for."""

import time

import sqlite_utils

from heliosd.errors import NotFound
from heliosd.state.database import Database


class Pins:
    """The pins of this node; the table's only writer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def all(self) -> dict[str, int]:
        """Replicas to keep ready, by model."""
        rows = await self._database.run(
            lambda db: db.execute("select model, replicas from pins order by model").fetchall()
        )
        return {model: int(replicas) for model, replicas in rows}

    async def pinned_at(self) -> dict[str, float]:
        """Since when each model is pinned, in seconds since the epoch."""
        rows = await self._database.run(lambda db: db.execute("select model, created_at from pins").fetchall())
        return {model: float(at) for model, at in rows}

    async def set(self, model: str, replicas: int) -> None:
        """Keep so many replicas of a model ready; a pin that exists changes."""

        def write(db: sqlite_utils.Database) -> None:
            db.execute(
                "insert into pins (model, replicas, created_at) values (?, ?, ?) "
                "on conflict (model) do update set replicas = excluded.replicas",
                [model, replicas, time.time()],
            )

        await self._database.run(write)

    async def remove(self, model: str) -> None:
        """Raises NotFound when it is not pinned."""
        gone = await self._database.run(lambda db: db.execute("delete from pins where model = ?", [model]).rowcount)
        if not gone:
            raise NotFound(
                f"cannot unpin {model}: it is not pinned; `heliosctl pin` lists what is", code="pin_not_found"
            )
