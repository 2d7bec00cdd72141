"""What each hour wanted, kept for three months, for advice and capacity planning. Hours are since the epoch."""

from dataclasses import dataclass

import sqlite_utils

from heliosd.core.hours import WANTED, ModelHour, PlaceHour, Rows
from heliosd.state.database import Database

KEPT_HOURS = 90 * 24
MOST_ROWS = 500_000
"""Of models: some two hundred that are asked for in every hour of three months. The oldest go first."""

_ADD_MODEL = (
    "insert into model_hours (hour, model, requests, most_at_once, longest_tokens, most_replicas, need_bytes)"
    " values (?, ?, ?, ?, ?, ?, ?) on conflict (hour, model) do update set"
    " requests = requests + excluded.requests, most_at_once = max(most_at_once, excluded.most_at_once),"
    " longest_tokens = max(longest_tokens, excluded.longest_tokens),"
    " most_replicas = max(most_replicas, excluded.most_replicas), need_bytes = max(need_bytes, excluded.need_bytes)"
)
_ADD_PLACE = (
    "insert into place_hours (hour, place, peak_bytes, room_bytes) values (?, ?, ?, ?)"
    " on conflict (hour, place) do update set peak_bytes = max(peak_bytes, excluded.peak_bytes),"
    " room_bytes = excluded.room_bytes"
)


@dataclass(frozen=True, slots=True)
class Asked:
    """One model over a window."""

    model: str
    requests: int
    hours: int
    """In which it was wanted."""
    first_hour: int
    last_hour: int
    """In which it was last asked for; the first row's where it never was."""
    most_at_once: int
    longest_tokens: int
    most_replicas: int
    need_bytes: int
    """The most that a replica needed."""


class Hours:
    """Owner of the two tables."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, rows: Rows) -> None:
        """Add up with what is there of the same hours."""
        await self._database.run(lambda db: _add(db, rows))

    async def places(self, since: int = 0) -> tuple[PlaceHour, ...]:
        """Of each hour from `since` on, the oldest first."""
        query = "select hour, place, peak_bytes, room_bytes from place_hours where hour >= ? order by hour"
        rows = await self._database.run(lambda db: db.execute(query, [since]).fetchall())
        return tuple(PlaceHour(*row) for row in rows)

    async def models(self, since: int = 0) -> tuple[ModelHour, ...]:
        """Of each hour from `since` on, the oldest first."""
        query = (
            "select hour, model, requests, most_at_once, longest_tokens, most_replicas, need_bytes from model_hours"
            " where hour >= ? order by hour, model"
        )
        rows = await self._database.run(lambda db: db.execute(query, [since]).fetchall())
        return tuple(ModelHour(*row) for row in rows)

    async def observed(self, since: int = 0) -> int:
        """In how many hours the node ran and counted."""
        query = "select count(*) from place_hours where place = ? and hour >= ?"
        (found,) = await self._database.run(lambda db: db.execute(query, [WANTED, since]).fetchone())
        return int(found)

    async def asked(self, since: int = 0) -> dict[str, Asked]:
        """By model."""
        query = (
            "select model, sum(requests), count(*), min(hour), coalesce(max(case when requests > 0 then hour end),"
            " min(hour)), max(most_at_once), max(longest_tokens), max(most_replicas), max(need_bytes)"
            " from model_hours where hour >= ? group by model"
        )
        rows = await self._database.run(lambda db: db.execute(query, [since]).fetchall())
        return {row[0]: Asked(*row) for row in rows}


def _add(db: sqlite_utils.Database, rows: Rows) -> None:
    db.conn.executemany(_ADD_MODEL, map(_model, rows.models))
    db.conn.executemany(_ADD_PLACE, ((row.hour, row.place, row.peak_bytes, row.room_bytes) for row in rows.places))
    newest = max((row.hour for row in rows.places), default=0)
    for table in ("model_hours", "place_hours"):
        db.execute(f"delete from {table} where hour <= ?", [newest - KEPT_HOURS])
    surplus = "select hour from model_hours order by hour desc limit 1 offset ?"
    db.execute(f"delete from model_hours where hour < ({surplus})", [MOST_ROWS])


def _model(row: ModelHour) -> tuple[int | str, ...]:
    return (
        row.hour,
        row.model,
        row.requests,
        row.most_at_once,
        row.longest_tokens,
        row.most_replicas,
        row.need_bytes,
    )
