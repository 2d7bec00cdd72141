"""capacity: when devices will be full, and what another card or precision would change."""

from argparse import Namespace
from typing import TYPE_CHECKING

from heliosctl.client import connect
from heliosctl.exits import Exit, Failure
from heliosctl.output import Column, show, table
from heliosd.core.units import format_bytes, parse_seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from heliosctl.parser import Commands
    from heliosd.wire import CapacityRow, CapacityView, HourOfDayView, WhatIf

_DAY_S = 86400.0
_COLUMNS = (
    Column("DEVICE"),
    Column("ROOM", right=True),
    Column("PEAK", right=True),
    Column("EXPECTED", right=True),
    Column("A DAY", right=True),
    Column("FULL"),
    Column("BETWEEN"),
    Column("HOURS", right=True, wide=True),
)
_MODELS = (
    Column("MODEL"),
    Column("HOURS", right=True),
    Column("NEEDS", right=True),
    Column("THEN", right=True),
    Column("WHY"),
)
_WIDTH = 40


def add(commands: "Commands") -> None:
    command = commands.add(
        "capacity",
        capacity,
        "when devices will be full, and what would change that",
        [
            "heliosctl capacity",
            "heliosctl capacity --horizon 90d",
            "heliosctl capacity --device GPU-1a2b --by-hour",
            "heliosctl capacity --with 1xH100",
            "heliosctl capacity --with fp8",
        ],
        about="Told from what each hour of the last three months needed, not from what was promised. BETWEEN is where "
        "nine in ten would be.",
        listing=True,
    )
    command.add_argument("--device", metavar="ID", help="only this one")
    command.add_argument("--horizon", metavar="TIME", default="30d", help="how far to look ahead (default: 30d)")
    command.add_argument("--with", dest="change", metavar="CHANGE", help="1xH100, or a precision such as fp8")
    command.add_argument("--by-hour", action="store_true", help="peaks by the hour of the day (UTC)")


def capacity(args: Namespace) -> Exit:
    from heliosd.wire import CapacityView

    query: dict[str, str | int | None] = {
        "horizon_days": days(args.horizon),
        "device": args.device,
        "with": args.change,
    }
    body = connect(args).get("/helios/v1/capacity", query)
    view = CapacityView.model_validate(body)
    show(args.output, body, lambda wide: words(view, wide=wide, by_hour=args.by_hour))
    return Exit.OK


def days(text: str) -> int:
    """`30d` is 30. Raises Failure."""
    try:
        found = round(parse_seconds(text) / _DAY_S)
    except ValueError as error:
        raise Failure(str(error), Exit.USAGE) from error
    if not 1 <= found <= 366:
        raise Failure(f"cannot look {text} ahead: from 1d to 366d is expected", Exit.USAGE)
    return found


def words(view: "CapacityView", *, wide: bool, by_hour: bool) -> str:
    """A table, what is not known, and what a change would do."""
    blocks = [table(_COLUMNS, [_row(each, view.horizon_s) for each in view.rows], wide=wide)]
    notes = [f"{each.place}: {each.note}" for each in view.rows if each.note]
    if notes:
        blocks.append("\n".join(notes))
    if by_hour:
        blocks += [_hours(each) for each in view.rows if each.by_hour]
    if view.what_if:
        blocks.append(_change(view.what_if, view.horizon_s))
    return "\n\n".join(blocks)


def _row(each: "CapacityRow", horizon_s: float) -> tuple[str, ...]:
    known = each.state != "unknown"
    return (
        each.place,
        format_bytes(each.room_bytes),
        format_bytes(each.peak_bytes) if known else "-",
        format_bytes(each.expected_bytes) if known else "-",
        _trend(each),
        full(each, horizon_s),
        _between(each, horizon_s) if known else "-",
        str(each.hours),
    )


def full(each: "CapacityRow", horizon_s: float) -> str:
    """In words."""
    match each.state:
        case "unknown":
            return "not known yet"
        case "full":
            return "it is already"
        case "in_sight":
            return f"in {_span(each.full_in_s or 0.0)}"
        case "not_in_sight":
            return f"not in {_span(horizon_s)}"


def _between(each: "CapacityRow", horizon_s: float) -> str:
    if each.earliest_s is None:
        return f"not in {_span(horizon_s)}"
    latest = "later" if each.latest_s is None else _span(each.latest_s)
    return f"{_span(each.earliest_s)} and {latest}"


def _trend(each: "CapacityRow") -> str:
    if each.trend is None:
        return "-"
    sign = "-" if each.trend.bytes_per_day < 0 else "+"
    return f"{sign}{format_bytes(int(abs(each.trend.bytes_per_day)))}"


def _span(span_s: float) -> str:
    return f"{span_s / 3600:.0f} h" if span_s < 2 * _DAY_S else f"{span_s / _DAY_S:.0f} days"


def _hours(each: "CapacityRow") -> str:
    lines = [f"{each.place}, by the hour (UTC): seen in the last week, and expected in the horizon's"]
    lines += [
        f"  {hour.hour:02d}   {format_bytes(hour.seen_bytes):>10}   {format_bytes(hour.expected_bytes):>10}   "
        f"{_bar(hour, each.room_bytes)}"
        for hour in each.by_hour
    ]
    return "\n".join(lines)


def _bar(hour: "HourOfDayView", room_bytes: int) -> str:
    return "#" * min(_WIDTH, round(_WIDTH * hour.expected_bytes / max(1, room_bytes)))


def _change(what_if: "WhatIf", horizon_s: float) -> str:
    row = what_if.wanted
    effect = (
        f"{format_bytes(what_if.more_bytes)} more room" if what_if.more_bytes else f"{what_if.need_ratio:.0%} of it"
    )
    head = (
        f"with {what_if.change} ({effect}): {format_bytes(row.expected_bytes)} of {format_bytes(row.room_bytes)} "
        f"expected at most, full {full(row, horizon_s)}"
    )
    return f"{head}\n{_models(what_if)}" if what_if.models else head


def _models(what_if: "WhatIf") -> str:
    rows: Sequence[tuple[str, ...]] = [
        (
            each.model,
            str(each.hours),
            format_bytes(each.need_bytes),
            "-" if each.then_bytes is None else format_bytes(each.then_bytes),
            each.reason,
        )
        for each in what_if.models
    ]
    return table(_MODELS, rows)
