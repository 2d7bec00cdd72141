"""In which tier an operator wants a model to be, whatever a forecast says."""

import time

import sqlite_utils

from heliosd.core.retention import Tier
from heliosd.state.database import Database


class TierWishes:
    """The wishes of this node; the table's only writer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def all(self) -> dict[str, Tier]:
        """The tier, by model."""
        rows = await self._database.run(
            lambda db: db.execute("select model, tier from tier_wishes order by model").fetchall()
        )
        return {model: Tier(tier) for model, tier in rows}

    async def set(self, model: str, tier: Tier) -> None:
        """Want a model there; a wish that exists changes."""

        def write(db: sqlite_utils.Database) -> None:
            db.execute(
                "insert into tier_wishes (model, tier, created_at) values (?, ?, ?) "
                "on conflict (model) do update set tier = excluded.tier",
                [model, str(tier), time.time()],
            )

        await self._database.run(write)

    async def remove(self, model: str) -> None:
        """Leave it to the forecast again; harmless when there is no wish."""
        await self._database.run(lambda db: db.execute("delete from tier_wishes where model = ?", [model]).rowcount)
