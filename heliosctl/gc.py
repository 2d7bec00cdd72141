"""gc: tells what the store could do without, and removes it."""

import argparse
import re
from argparse import Namespace
from collections.abc import Iterable
from typing import TYPE_CHECKING

from heliosctl.client import connect
from heliosctl.exits import Exit
from heliosctl.output import Column, say, show, table
from heliosd.core.units import format_bytes

if TYPE_CHECKING:
    from heliosctl.parser import Commands
    from heliosd.wire import GarbageItem, GarbageView

_COLUMNS = (Column(""), Column("WHAT"), Column("NAME"), Column("SIZE", right=True), Column("WHY"))


def add(commands: "Commands") -> None:
    command = commands.add(
        "gc",
        gc,
        "remove what the store can do without: old revisions, interrupted downloads, files of nothing",
        ["heliosctl gc --dry-run", "heliosctl gc", "heliosctl gc --interrupted 0"],
        about="Of each model so many revisions stay as `keep_revisions` says. What an engine uses is never removed.",
        listing=True,
    )
    command.add_argument("--dry-run", action="store_true", help="only tell what would go")
    command.add_argument(
        "--interrupted",
        metavar="DAYS",
        type=_days,
        default=7.0,
        help="downloads interrupted for so many days go (default: 7)",
    )


def _days(text: str) -> float:
    if not re.fullmatch(r"\d{1,5}(\.\d+)?", text):
        raise argparse.ArgumentTypeError(f"cannot read {text!r}: a number of days is expected, such as 7 or 0.5")
    return float(text)


def gc(args: Namespace) -> Exit:
    from heliosd.wire import CollectGarbage, GarbageView

    dry_run, args.dry_run = args.dry_run, False  # its plan has more to tell than others: also what stays
    asked = CollectGarbage(dry_run=dry_run, interrupted_s=args.interrupted * 86_400)
    body = connect(args).call("POST", "/helios/v1/store/gc", asked.model_dump())
    found = GarbageView.model_validate(body)
    show(args.output, body, lambda wide: _table(found))
    say(f"{format_bytes(found.freed_bytes)} {'would be' if found.dry_run else 'are'} free again")
    return Exit.OK


def _table(found: "GarbageView") -> str:
    if not found.goes and not found.stays:
        return "there is nothing to remove"
    goes = "would go" if found.dry_run else "gone"
    return table(_COLUMNS, [*_rows(goes, found.goes), *_rows("stays", found.stays)])


def _rows(word: str, items: "Iterable[GarbageItem]") -> list[tuple[str, ...]]:
    return [(word, each.kind, each.name, format_bytes(each.size_bytes), each.why) for each in items]
