"""audit: who changed what, why, and what came of it."""

import re
import time
from argparse import ArgumentTypeError, Namespace
from typing import TYPE_CHECKING

from heliosctl.client import connect
from heliosctl.exits import Exit
from heliosctl.output import Column, show, table

if TYPE_CHECKING:
    from heliosctl.parser import Commands
    from heliosd.wire import AuditEntry

_COLUMNS = (
    Column("TIME"),
    Column("WHO"),
    Column("WHAT"),
    Column("RESULT"),
    Column("TOOK", right=True),
    Column("WHY"),
    Column("BODY", wide=True),
    Column("TICKET", wide=True),
)
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def add(commands: "Commands") -> None:
    command = commands.add(
        "audit",
        audit,
        "show who changed what, why, and what came of it, newest last",
        ["heliosctl audit", "heliosctl audit --since 2h", "heliosctl audit --since 7d -o json"],
        about="Every change that was asked for is in it, refused ones and dry runs too.",
        listing=True,
    )
    command.add_argument(
        "--since", metavar="AGE", type=_age, help="only of the last 30s, 10m, 2h or 7d, or since 2026-11-26[T10:00]"
    )
    command.add_argument("-n", "--lines", type=int, default=100, metavar="N", help="at most so many (default 100)")


def _age(text: str) -> float:
    """The moment, in seconds since the epoch."""
    if found := re.fullmatch(r"(\d{1,6})([smhd])", text):
        return time.time() - int(found[1]) * _UNITS[found[2]]
    from datetime import datetime

    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError as error:
        raise ArgumentTypeError(f"cannot read {text!r}: say 30s, 10m, 2h, 7d or a date such as 2026-11-26") from error


def audit(args: Namespace) -> Exit:
    from heliosd.wire import AuditList

    query = {"limit": args.lines, "since": None if args.since is None else f"{args.since:.3f}"}
    body = connect(args).get("/helios/v1/audit", query)
    entries = AuditList.model_validate(body).entries
    show(args.output, body, lambda wide: table(_COLUMNS, [_row(each) for each in entries], wide=wide))
    return Exit.OK


def _row(entry: "AuditEntry") -> tuple[str, ...]:
    import json

    from heliosctl.times import clock
    from heliosd.core.units import format_seconds

    result = entry.result if entry.message is None else f"{entry.result}: {entry.message}"
    return (
        clock(entry.at),
        entry.who,
        entry.what,
        result.replace("\n", " "),
        format_seconds(entry.took_s),
        entry.why or "-",
        "-" if entry.body is None else json.dumps(entry.body),
        entry.ticket or "-",
    )
