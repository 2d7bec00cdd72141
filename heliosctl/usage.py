"""usage: what keys used and what it cost, as a table or a file."""

from argparse import Namespace
from typing import TYPE_CHECKING, Any

from heliosctl.client import connect
from heliosctl.exits import Exit
from heliosctl.output import Column, say, show, table

if TYPE_CHECKING:
    from heliosctl.parser import Commands
    from heliosd.wire import UsageList

_PARTS = ("key", "model", "day", "device")
_FILES = ("csv", "focus")
_FORMATS = ("table", "wide", "json", "yaml", *_FILES)


def add(commands: "Commands") -> None:
    command = commands.add(
        "usage",
        usage,
        "what API keys used: tokens, requests, device memory and what it cost",
        [
            "heliosctl usage",
            "heliosctl usage --by model --since 7d",
            "heliosctl usage --by key,day --since 2026-11-01 -o csv",
            "heliosctl usage --since 2026-11-01 --until 2026-11-30 -o focus > november.csv",
        ],
        about=(
            "Tokens are those that engines count. Device memory is shared equally by the requests that a replica "
            "serves at a time; (idle) is what nobody used. focus is FOCUS 1.2, a row for each charge of a day."
        ),
    )
    command.add_argument(
        "--by", metavar="PART", help="tell apart by key (the default), model, day, device, or several with commas"
    )
    command.add_argument(
        "--since", metavar="DAY", help="from this day (UTC) on, or from so many days ago (7d); else this month"
    )
    command.add_argument("--until", metavar="DAY", help="up to and with this day; else today")
    command.add_argument(
        "-o",
        "--output",
        choices=_FORMATS,
        default="table",
        metavar="FORMAT",
        help="table, wide, json, yaml, csv or focus",
    )


def usage(args: Namespace) -> Exit:
    from heliosd.wire import UsageList

    file = args.output if args.output in _FILES else None
    by = args.by or (None if file else "key")
    query = {"by": by, "since": args.since, "until": args.until, "format": file}
    client = connect(args)
    if file:
        for line in client.lines("/helios/v1/usage", query):
            print(line)
        return Exit.OK
    body: Any = client.get("/helios/v1/usage", query)
    found = UsageList.model_validate(body)
    show(args.output, body, lambda wide: _table(found, str(by).split(","), wide))
    if args.output in ("table", "wide"):
        _compare(found)
    return Exit.OK


def _table(found: "UsageList", by: list[str], wide: bool) -> str:
    if not found.usage:
        return f"nothing was used from {found.since} to {found.until} (UTC)"
    columns = [Column(part.upper()) for part in _PARTS if part in by]
    columns += [
        Column("REQUESTS", right=True),
        Column("PROMPT", right=True),
        Column("CACHED", right=True),
        Column("ANSWERS", right=True),
        Column("GIB-HOURS", right=True),
        Column("MEMORY COST", wide=True, right=True),
        Column("TOKEN COST", wide=True, right=True),
        Column("COST", right=True),
    ]
    rows = [
        (
            *(str(getattr(row, part)) or "-" for part in _PARTS if part in by),
            f"{row.requests:,}",
            f"{row.prompt_tokens:,}",
            f"{row.cached_tokens:,}",
            f"{row.completion_tokens:,}",
            f"{row.gib_s / 3600:,.3f}",
            f"{row.memory_cost:,.2f}",
            f"{row.prompt_cost + row.completion_cost:,.2f}",
            f"{row.cost:,.2f} {row.currency}",
        )
        for row in found.usage
    ]
    return table(columns, rows, wide=wide)


def _compare(found: "UsageList") -> None:
    """Say so when engines counted something else: after a crash, at most what a second may hold."""
    metered = sum(row.prompt_tokens + row.completion_tokens for row in found.usage)
    counted = found.engine_prompt_tokens + found.engine_completion_tokens
    if metered != counted:
        say(f"metered {metered:,} tokens; the engines' own counters say {counted:,}")
