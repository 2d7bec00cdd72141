"""The screen of devices: what holds the memory of each, part by part, and how it went of late."""

from typing import Any, ClassVar

from rich.text import Text
from textual.binding import Binding, BindingType

from heliosd.core.units import format_bytes
from heliosd.wire import DeviceView
from tui.bars import accounted, bar, legend
from tui.columns import Cell, Column, Drawn, Shown
from tui.history import History, sparkline
from tui.now import Held, Now
from tui.palette import GREEN, ORANGE, SKY, VERMILION
from tui.table import Table
from tui.view import View

Row = tuple[DeviceView, Held, History]


def _name(row: Row, _: Shown) -> Drawn:
    device = row[0]
    return Cell(f"{device.id} v", ORANGE) if device.drained else device.id


def _bar(row: Row, shown: Shown) -> Drawn:
    device, held, _ = row
    if device.fault:
        return Cell(f"! FAULT {device.fault}", f"bold reverse {VERMILION}")
    return bar(device, held, shown.width)


def _busy(row: Row, _: Shown) -> str:
    ratio = row[0].utilization_ratio
    return "-" if ratio is None else f"{ratio:.0%}"


def _warm(row: Row, _: Shown) -> str:
    return "-" if row[0].temperature_c is None else f"{row[0].temperature_c:.0f}°"


def _power(row: Row, _: Shown) -> str:
    return "-" if row[0].power_w is None else f"{row[0].power_w:.0f} W"


def _curve(row: Row, shown: Shown) -> Cell:
    device, _, history = row
    return Cell(sparkline(history.of(f"used {device.id}"), shown.width, 1.0), SKY)


COLUMNS: tuple[Column[Row], ...] = (
    Column("DEVICE", 9, _name, lambda row: row[0].id, grows=True, most=16),
    Column("MEMORY", 20, _bar, grows=True),
    Column("USED", 9, lambda it, _: format_bytes(it[0].used_bytes), lambda row: row[0].used_bytes, right=True),
    Column("OF", 9, lambda it, _: format_bytes(it[0].capacity_bytes), lambda row: row[0].capacity_bytes, right=True),
    Column("FREE", 9, lambda it, _: format_bytes(it[0].free_bytes), lambda row: row[0].free_bytes, right=True, rank=1),
    Column("BUSY", 4, _busy, lambda row: row[0].utilization_ratio, right=True, rank=2),
    Column("TEMP", 4, _warm, lambda row: row[0].temperature_c, right=True, rank=4),
    Column("POWER", 6, _power, lambda row: row[0].power_w, right=True, rank=5),
    Column("USED SO FAR", 12, _curve, rank=6),
    Column("NAME", 22, lambda it, _: it[0].name, lambda row: row[0].name, rank=7),
)


def device_table(empty: str = "no devices", id: str | None = None) -> Table[Row]:
    return Table(
        COLUMNS,
        parse=lambda row: row,
        key=lambda row: row[0].id,
        words=lambda row: (
            f"{row[0].id} {row[0].name} {row[0].kind} {row[0].fault or ''}{' drained' if row[0].drained else ''}"
        ),
        empty=empty,
        id=id,
    )


def device_rows(now: Now, history: History) -> list[Row]:
    return [(device, now.held[device.id], history) for device in now.devices]


def device_text(row: Row, now: Now | None, width: int) -> Text:
    """The bytes of each part, how it went, and who is there."""
    device, held, history = row
    text = Text(f"{device.id} · {device.name} · {device.kind}", "bold")
    if device.fault:
        text.append(f"\n! FAULT {device.fault}", VERMILION)
    elif device.drained:
        text.append(f"\nv drained: nothing is started there until `heliosctl undrain {device.id}`", ORANGE)
    text.append("\n")
    text.append_text(accounted(device, held, width))
    for name, style, label in (("used", SKY, "memory"), ("busy", GREEN, "busy")):
        values = history.of(f"{name} {device.id}")
        if values:
            text.append(f"\n{label:<7}{sparkline(values, width - 24, 1.0)}", style)
            text.append(f" last {len(values)} s, {values[-1]:.0%}", "not bold")
    here = [row for row in now.replicas if device.id in row["devices"]] if now else []
    if here:
        names = [f"{each['id']} {each['model']} ({each['state']})" for each in here[:20]]
        more = f" and {len(here) - 20} more" if len(here) > 20 else ""
        text.append(f"\nholds  {', '.join(names)}{more}", "not bold")
    return text


def device_facts(device: DeviceView) -> Text:
    facts: list[tuple[str, Any]] = [
        ("promised", format_bytes(device.promised_bytes)),
        ("measured", format_bytes(device.measured_bytes)),
        ("drift", format_bytes(device.drift_bytes)),
        ("power", f"{device.power_w:.0f} W of {device.power_limit_w:.0f} W"
         if device.power_w is not None and device.power_limit_w is not None else None),
        ("ECC errors", device.ecc_errors),
        ("parent", device.parent),
        ("compute", device.compute_capability),
        ("driver", device.driver_version),
        ("NUMA node", device.numa_node),
        ("PCIe", device.pcie),
        ("links", ", ".join(f"{other} {link}" for other, link in device.links.items()) or None),
    ]  # fmt: skip
    return Text("\n".join(f"{name:<11} {value}" for name, value in facts if value is not None))


class DevicesView(View):
    HELP: ClassVar[str] = """\
FREE      what may still be promised
d         drain: stop all replicas of the device, once their requests are done, and start none there;
          or, where it is drained (v), take it into service again
"""
    BINDINGS: ClassVar[list[BindingType]] = [Binding("d", "want('drain')", "drain")]

    def __init__(self) -> None:
        super().__init__("devices", device_table(), head=True, foot=True)
        self._now: Now | None = None

    def show(self, now: Now, history: History, age_s: float) -> None:
        self._now = now
        if self.head is not None:
            self.head.draw(legend())
        self.table.show(device_rows(now, history), age_s)
        self._tell(self.table.row)

    def on_table_moved(self, message: Table.Moved) -> None:
        message.stop()
        self._tell(message.row)

    def tick(self, history: History, age_s: float) -> None:
        super().tick(history, age_s)
        self._tell(self.table.row)

    def _tell(self, row: Row | None) -> None:
        if self.foot is not None:
            self.foot.draw(Text("") if row is None else device_text(row, self._now, max(40, self.size.width)))

    def on_table_chosen(self, message: Table.Chosen) -> None:
        message.stop()
        self.post_message(View.Opened("device", self._all_of(message.row), key=message.row[0].id))

    def detail(self, key: str) -> Text | None:
        rows = [row for row in self.table.rows if row[0].id == key]
        return self._all_of(rows[0]) if rows else None

    def _all_of(self, row: Row) -> Text:
        return device_text(row, self._now, 70).append("\n\n").append_text(device_facts(row[0]))

    def action_want(self, verb: str) -> None:
        row = self.table.row
        if row is None or self._now is None:
            return
        device = row[0]
        self.post_message(undrain_wanted(device.id) if device.drained else drain_wanted(self._now, device.id))


def drain_wanted(now: Now, device: str) -> View.Wanted:
    there = [each["id"] for each in now.replicas if device in each["devices"]]
    return View.Wanted("drain", device, f"{device}, with {len(there)} replicas", there)


def undrain_wanted(device: str) -> View.Wanted:
    return View.Wanted("undrain", device, device, [])
