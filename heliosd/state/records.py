"""What engines were measured to take, so that the next estimate of the same thing starts from the truth."""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import sqlite_utils

from heliosd.core.messages import Footprint
from heliosd.state.database import Database


@dataclass(frozen=True, slots=True)
class Measurement:
    model: str
    revision: str
    engine: str
    """Kind and version, such as `vllm 0.32.0`."""
    device_kind: str
    arguments: str
    """What was set for the engine that changes its overhead, always written alike."""
    predicted: Footprint
    measured: Footprint
    phases: Mapping[str, float]


KEPT_EACH = 20
"""Measurements of one revision with one engine on one kind of device."""


class Records:
    """Owner of the measurements table."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, measurement: Measurement) -> None:
        row = {
            "at": time.time(),
            "model": measurement.model,
            "revision": measurement.revision,
            "engine": measurement.engine,
            "device_kind": measurement.device_kind,
            "arguments": measurement.arguments,
            "predicted": json.dumps(asdict(measurement.predicted)),
            "measured": json.dumps(asdict(measurement.measured)),
            "phases": json.dumps(dict(measurement.phases)),
        }
        await self._database.run(lambda db: _insert(db, row))

    async def overhead_bytes(self, revision: str, engine: str, device_kind: str, arguments: str) -> int | None:
        """The largest overhead of the last few starts of just this; None before the first."""
        rows = await self._database.run(
            lambda db: list(
                db.table("measurements").rows_where(
                    "revision = ? and engine = ? and device_kind = ? and arguments = ?",
                    [revision, engine, device_kind, arguments],
                    order_by="id desc",
                    limit=5,
                )
            )
        )
        return max((int(json.loads(row["measured"])["overhead_bytes"]) for row in rows), default=None)


def _insert(db: sqlite_utils.Database, row: dict[str, Any]) -> None:
    db.table("measurements").insert(row)
    same = "revision = :revision and engine = :engine and device_kind = :device_kind"
    last = f"select id from measurements where {same} order by id desc limit {KEPT_EACH}"
    db.execute(f"delete from measurements where {same} and id not in ({last})", row)
