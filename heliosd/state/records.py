"""What engines were measured to take, so that the next estimate starts from the truth and its errors can be told."""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import sqlite_utils

from heliosd import __version__
from heliosd.core.messages import Footprint
from heliosd.core.retention import Tier
from heliosd.core.start_forecast import SeenStart
from heliosd.core.timeline import Span, Timeline, as_rows, from_rows
from heliosd.estimation.accuracy import Accuracy, Checked, accuracy
from heliosd.estimation.loads import TERMS, Asked, Load
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
    """What was set aside, margin included."""
    measured: Footprint
    phases: Mapping[str, float]
    """Seconds of each."""
    likely: Footprint | None = None
    """What was thought likeliest; None: just what was set aside."""
    architecture: str = ""
    device_name: str = ""
    tensor_parallel: int = 1
    law: Mapping[str, int] = field(default_factory=dict)
    """Bytes of each term as the law gave them, before any correction; empty: nobody asked it."""
    features: Mapping[str, float] = field(default_factory=dict)
    """As `estimation.ridge.features` gives them."""
    timeline: tuple[Span, ...] = ()
    """Of the start, from its beginning."""
    tier: Tier | None = None
    """The slowest that the weights were read from; None: nobody knew."""
    swapped: bool = False
    """It began in the engine of another."""


KEPT_EACH = 20
"""Measurements of one revision with one engine on one kind of device."""
KEPT = 5000
"""Measurements in all."""


class Records:
    """Owner of the measurements table."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, measurement: Measurement) -> None:
        likely = measurement.likely
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
            "likely": None if likely is None else json.dumps(asdict(likely)),
            "architecture": measurement.architecture,
            "device_name": measurement.device_name,
            "tensor_parallel": measurement.tensor_parallel,
            "law": json.dumps(dict(measurement.law)),
            "law_of": __version__,
            "features": json.dumps(dict(measurement.features)),
            "timeline": json.dumps(as_rows(measurement.timeline)),
            "tier": measurement.tier,
            "swapped": int(measurement.swapped),
        }
        await self._database.run(lambda db: _insert(db, row))

    async def loads(self, limit: int = 1000) -> list[Load]:
        """The last `limit` starts in the order in which they happened, for `estimation.calibration`.

        What an older Helios measured is true for its revision still, but its law was another: it comes without one.
        """
        return await self._database.run(
            lambda db: [
                _load(row)
                for row in db.table("measurements").rows_where(
                    "id in (select id from measurements where arguments is not null order by id desc limit ?)",
                    [limit],
                    order_by="id",
                )
            ]
        )

    async def starts(self, limit: int = 1000) -> tuple[tuple[str, SeenStart], ...]:
        """Each of the last `limit` starts with its model, oldest first, for `core.start_forecast`."""
        return await self._seen("coalesce(swapped, 0) = 0", limit)

    async def swaps(self, limit: int = 1000) -> tuple[tuple[str, SeenStart], ...]:
        """The same of those that began in the engine of another."""
        return await self._seen("swapped = 1", limit)

    async def _seen(self, which: str, limit: int) -> tuple[tuple[str, SeenStart], ...]:
        where = f"timeline is not null and {which}"
        rows = await self._database.run(
            lambda db: list(db.table("measurements").rows_where(where, order_by="id desc", limit=limit))
        )
        return tuple((row["model"], _seen_start(row)) for row in reversed(rows))

    async def accuracy(self, since: float = 0.0) -> dict[str, Accuracy]:
        """By term, and of the total, how near the starts since then came; `since` in seconds since the epoch.

        A term that no start tells anything of is left out.
        """
        starts = await self._database.run(
            lambda db: [_checked(row) for row in db.table("measurements").rows_where("at >= ?", [since])]
        )
        found = {term: accuracy([start[term] for start in starts]) for term in (*TERMS, "total")}
        return {term: each for term, each in found.items() if each is not None}


def _insert(db: sqlite_utils.Database, row: dict[str, Any]) -> None:
    db.table("measurements").insert(row)
    same = "revision = :revision and engine = :engine and device_kind = :device_kind"
    last = f"select id from measurements where {same} order by id desc limit {KEPT_EACH}"
    db.execute(f"delete from measurements where {same} and id not in ({last})", row)
    oldest = f"select id from measurements order by id desc limit 1 offset {KEPT}"
    db.execute(f"delete from measurements where id <= ({oldest})")


def _load(row: Mapping[str, Any]) -> Load:
    asked = Asked(
        engine=row["engine"],
        architecture=row["architecture"] or "",
        device_kind=row["device_kind"],
        device_name=row["device_name"] or "",
        tensor_parallel=row["tensor_parallel"] or 1,
        arguments=row["arguments"],
        revision=row["revision"],
        features=json.loads(row["features"] or "{}"),
    )
    law = json.loads(row["law"]) if row["law"] and row["law_of"] == __version__ else {}
    measured = json.loads(row["measured"])
    return Load(asked, law, {term: measured[f"{term}_bytes"] for term in TERMS})


def _seen_start(row: Mapping[str, Any]) -> SeenStart:
    phases = Timeline(from_rows(json.loads(row["timeline"]))).seconds()
    weights_bytes = json.loads(row["predicted"])["weights_bytes"] * (row["tensor_parallel"] or 1)
    tier = Tier(row["tier"]) if row["tier"] else None
    return SeenStart(tuple(phases.items()), weights_bytes, row["device_kind"], tier)


def _checked(row: Mapping[str, Any]) -> dict[str, Checked]:
    booked, measured = json.loads(row["predicted"]), json.loads(row["measured"])
    likely = json.loads(row["likely"]) if row["likely"] else booked
    terms = {
        term: Checked(likely[f"{term}_bytes"], booked[f"{term}_bytes"], measured[f"{term}_bytes"]) for term in TERMS
    }
    parts = terms.values()
    total = Checked(
        sum(part.likely_bytes for part in parts),
        sum(part.booked_bytes for part in parts),
        sum(part.measured_bytes for part in parts),
    )
    return {**terms, "total": total}
