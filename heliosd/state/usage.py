"""What is known of each model's use, kept across restarts. Times in it are seconds since the epoch."""

import asyncio
import json
import logging
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import sqlite_utils

from heliosd.core.remembered import Remembered
from heliosd.core.usage import MOST_MODELS, Usage
from heliosd.state.database import Database

log = logging.getLogger("heliosd.state")

KEEP_EVERY_S = 60.0
"""What a crash may lose."""
BATCH = 100
"""Models put into plain data at a time, some milliseconds on the event loop; writing is done in the database thread."""


class UsageTable:
    """Owner of the usage table: one row for each model, at most as many as the scheduler remembers."""

    def __init__(self, database: Database, keep_every_s: float = KEEP_EVERY_S) -> None:
        self._database = database
        self._keep_every_s = keep_every_s

    async def follow(self, usage: Usage) -> None:
        """Keep what changes, until cancelled."""
        while True:
            await asyncio.sleep(self._keep_every_s)
            await self.keep_changed(usage)

    async def keep_changed(self, usage: Usage) -> None:
        """Write what is not kept yet. What cannot be written stays unkept for the next time."""
        unsaved = sorted(usage.unsaved)
        for first in range(0, len(unsaved), BATCH):
            batch = unsaved[first : first + BATCH]
            models = usage.to_keep(batch)
            usage.unsaved.difference_update(batch)
            try:
                # What was begun is written to the end, also when whoever waits is cancelled.
                await asyncio.shield(self.keep(models))
            except sqlite3.Error as error:  # a full disk costs a forecast, never the service
                usage.unsaved.update(batch)
                log.error("usage not kept", extra={"models": len(unsaved) - first, "cause": str(error)})
                return

    async def keep(self, models: Sequence[Remembered]) -> None:
        """Write these, instead of what was known of them before."""
        await self._database.run(lambda db: _write(db, models))

    async def asked_at(self) -> dict[str, float]:
        """When each model was last asked for, as far as it is kept."""
        rows = await self._database.run(lambda db: db.execute("select model, asked_at from usage").fetchall())
        return {model: float(at) for model, at in rows}

    async def load(self) -> tuple[Remembered, ...]:
        """All of them, the one asked for last first. What cannot be read is left out and told."""
        try:
            rows = await self._database.run(lambda db: list(db.table("usage").rows_where(order_by="asked_at desc")))
        except sqlite3.Error as error:
            log.error("usage not read", extra={"cause": str(error)})
            return ()
        return tuple(found for row in rows if (found := _read(row)) is not None)


def _write(db: sqlite_utils.Database, models: Iterable[Remembered]) -> None:
    db.table("usage").upsert_all(map(_row, models), pk="model")
    kept = f"select model from usage order by asked_at desc limit {MOST_MODELS}"
    if db.table("usage").count > MOST_MODELS:
        db.execute(f"delete from usage where model not in ({kept})")


def _row(each: Remembered) -> dict[str, Any]:
    known = asdict(each)
    return {"model": known.pop("model"), "asked_at": known.pop("asked_at"), "known": json.dumps(known)}


def _read(row: Mapping[str, Any]) -> Remembered | None:
    try:
        known = json.loads(row["known"])
        return Remembered(
            model=row["model"],
            asked_at=float(row["asked_at"]),
            heat=tuple(map(float, known["heat"])),
            reload_s=known["reload_s"],
            wake_s=known["wake_s"],
            gaps=tuple((int(at), float(weight)) for at, weight in known["gaps"]),
            burst=float(known["burst"]),
            began=known["began"],
            hours=tuple((int(hour), int(last), float(minutes)) for hour, last, minutes in known["hours"]),
            wakes=float(known["wakes"]),
            follows=tuple((str(model), float(times)) for model, times in known["follows"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        log.warning("usage not read", extra={"model": row["model"], "cause": repr(error)})
        return None
