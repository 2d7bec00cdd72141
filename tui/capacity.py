"""The screen of capacity: what is given out now, and what the daemon expects."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from rich.text import Text

from heliosctl.exits import Failure
from heliosd.core.units import format_bytes, format_seconds
from tui.ask import Ask
from tui.bars import bar
from tui.columns import Column
from tui.devices import Row, device_rows
from tui.history import History
from tui.now import Now
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
            text = Text("\n".join(lines_of(await ask.get("/helios/v1/capacity"))))
        except Failure as failure:
            if failure.status != _MISSING:
                raise
            text = Text(NOT_KNOWN, "italic")
        if self.foot is not None:
            self.foot.draw(text)


def lines_of(body: Any, indent: str = "") -> Iterator[str]:
    """Any answer in words: bytes and seconds as people read them, one line a figure, one a row of a list."""
    if isinstance(body, Mapping):
        for name, value in body.items():
            if _plain(value):
                yield f"{indent}{_label(name)}: {_said(name, value)}"
            elif value:
                yield f"{indent}{_label(name)}:"
                yield from lines_of(value, indent + "  ")
    elif isinstance(body, Sequence) and not isinstance(body, str):
        for each in body:
            if isinstance(each, Mapping):
                plain = [f"{_label(name)} {_said(name, value)}" for name, value in each.items() if _plain(value)]
                yield indent + ", ".join(plain)
                yield from lines_of({k: v for k, v in each.items() if not _plain(v)}, indent + "  ")
            else:
                yield f"{indent}{each}"
    else:
        yield f"{indent}{body}"


def _plain(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float)


def _label(name: str) -> str:
    return name.removesuffix("_bytes").removesuffix("_s").removesuffix("_ratio").replace("_", " ")


def _said(name: str, value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, int | float) and not isinstance(value, bool):
        if name.endswith("_bytes"):
            return format_bytes(int(value))
        if name.endswith("_s"):
            return format_seconds(float(value))
        if name.endswith("_ratio"):
            return f"{value:.1%}"
    return f"{value:g}" if isinstance(value, float) else str(value)
