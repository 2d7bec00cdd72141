"""Which recommendations an operator does not want to see, and until when."""

import time

import sqlite_utils

from heliosd.state.database import Database


class PutOff:
    """Owner of the table. Times are seconds since the epoch; what is over is forgotten."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def all(self) -> dict[str, float]:
        """Until when, by the recommendation's id."""

        def read(db: sqlite_utils.Database) -> list[tuple[str, float]]:
            db.execute("delete from advice_put_off where until <= ?", [time.time()])
            return db.execute("select id, until from advice_put_off order by id").fetchall()

        return dict(await self._database.run(read))

    async def set(self, advice: str, until: float) -> None:
        """Show it no sooner than then."""

        def write(db: sqlite_utils.Database) -> None:
            db.execute(
                "insert into advice_put_off (id, until, at) values (?, ?, ?)"
                " on conflict (id) do update set until = excluded.until, at = excluded.at",
                [advice, until, time.time()],
            )

        await self._database.run(write)

    async def remove(self, advice: str) -> bool:
        """Show it again; False: it was not put off."""
        return await self._database.run(
            lambda db: db.execute("delete from advice_put_off where id = ?", [advice]).rowcount > 0
        )
