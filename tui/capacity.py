"""The screen of capacity: what is given out now, and what the daemon expects."""

from collections.abc import Mapping
from typing import Any, ClassVar

from rich.text import Text

from heliosctl.exits import Failure
from heliosd.core.units import format_bytes, format_seconds
from tui.ask import Ask
from tui.bars import bar
from tui.columns import Column
from tui.devices import Row, device_rows
from tui.history import History, sparkline
from tui.now import Now
from tui.palette import GREEN, GREY, ORANGE, SKY, VERMILION
from tui.table import Table
from tui.view import View

NOT_KNOWN = "not known yet: this daemon does not tell when devices will be full (GET /helios/v1/capacity answers 404)"
_MISSING = 404


def _committed(row: Row) -> float:
    device = row[0]
    return (device.capacity_bytes - device.free_bytes) / max(1, device.capacity_bytes)


COLUMNS: tuple[Column[Row], ...] = (
    Column("DEVICE", 9, lambda it, _: it[0].id, lambda row: row[0].id, grows=True, most=16),
    Column("GIVEN OUT", 9, lambda it, _: f"{_committed(it):.1%}", _committed, right=True),
    Column("MEMORY", 12, lambda it, shown: bar(it[0], it[1], shown.width), grows=True),
    Column("CAPACITY", 9, lambda it, _: format_bytes(it[0].capacity_bytes), lambda row: row[0].capacity_bytes,
           right=True),
    Column("PROMISED", 9, lambda it, _: format_bytes(it[0].promised_bytes), lambda row: row[0].promised_bytes,
           right=True),
    Column("FOREIGN", 9, lambda it, _: format_bytes(it[0].foreign_bytes), lambda row: row[0].foreign_bytes,
           right=True, rank=1),
    Column("FREE", 9, lambda it, _: format_bytes(it[0].free_bytes), lambda row: row[0].free_bytes, right=True),
)  # fmt: skip


class CapacityView(View):
    HELP: ClassVar[str] = """\
GIVEN OUT  of the capacity, what nobody else may be promised: promised, foreign and safety
Below      what the daemon expects, once it has history enough
"""

    def __init__(self) -> None:
        table: Table[Row] = Table(
            COLUMNS,
            parse=lambda row: row,
            key=lambda row: row[0].id,
            words=lambda row: f"{row[0].id} {row[0].name}",
            empty="no devices",
        )
        super().__init__("capacity", table, head=True, foot=True)

    def show(self, now: Now, history: History, age_s: float) -> None:
        self.table.show(device_rows(now, history), age_s)
        if self.head is not None:
            total = sum(device.capacity_bytes for device in now.devices)
            free = sum(device.free_bytes for device in now.devices)
            share = (total - free) / max(1, total)
            said = f"{format_bytes(total - free)} of {format_bytes(total)} given out on {len(now.devices)} devices"
            self.head.draw(Text(f"{said} ({share:.1%}), {format_bytes(free)} free"))

    async def fetch(self, ask: Ask) -> None:
        try:
            text = expected(await ask.get("/helios/v1/capacity"))
        except Failure as failure:
            if failure.status != _MISSING:
                raise
            text = Text(NOT_KNOWN, "italic")
        if self.foot is not None:
            self.foot.draw(text)


def expected(body: Mapping[str, Any]) -> Text:
    """A line for each device and for all that is wanted at once, with the need by hour of the day; then why."""
    horizon = format_seconds(body.get("horizon_s") or 0.0)
    text = Text(f"expected within {horizon}; by hour of the day (UTC) what was needed, then what is expected", "bold")
    for row in body.get("rows", ()):
        room = max(1, row["room_bytes"])
        hours = row.get("by_hour", ())
        glyph, style, said = _verdict(row)
        text.append(f"\n{glyph} {row['place'][:12]:<12} ", style)
        text.append(f"{said:<34}", style)
        text.append(f"{row['peak_bytes'] / room:>5.0%} ", "not bold")
        text.append(sparkline((hour["seen_bytes"] for hour in hours), 24, room), SKY)
        text.append(f" {row['expected_bytes'] / room:>5.0%} ", "not bold")
        text.append(sparkline((hour["expected_bytes"] for hour in hours), 24, room), ORANGE)
        if row.get("note"):
            text.append(f"\n  {row['note']}", "not bold")
    return text


def _verdict(row: Mapping[str, Any]) -> tuple[str, str, str]:
    """Glyph, style and words of a row's state."""
    soon = None if row.get("full_in_s") is None else span(row["full_in_s"])
    if row["state"] == "full":
        return "!", f"bold {VERMILION}", "full already"
    if row["state"] == "in_sight":
        first, last = row.get("earliest_s"), row.get("latest_s")
        between = f" ({span(first)} to {span(last)})" if first is not None and last is not None else ""
        return "v", ORANGE, f"full in {soon or 'sight'}{between}"
    if row["state"] == "not_in_sight":
        return "●", GREEN, "not full within that time"
    return "?", GREY, f"not known: {row.get('hours', 0)} hours of history"


def span(seconds: float) -> str:
    """Days, where it is days."""
    return f"{seconds / 86400:.1f} d" if seconds >= 172_800 else format_seconds(seconds)
