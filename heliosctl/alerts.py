"""The command alerts: what is worth telling somebody at once."""

import time
from argparse import Namespace
from typing import TYPE_CHECKING

from heliosctl.client import connect
from heliosctl.exits import Exit
from heliosctl.output import Column, show, table, watch
from heliosd.core.units import format_seconds

if TYPE_CHECKING:
    from heliosctl.parser import Commands
    from heliosd.wire import AlertRuleView, AlertView

_ALERTS = (
    Column("STATE"),
    Column("SEVERITY"),
    Column("ALERT"),
    Column("SINCE", right=True),
    Column("WHAT"),
    Column("DO", wide=True),
    Column("RUNBOOK", wide=True),
)
_RULES = (
    Column("ALERT"),
    Column("SEVERITY"),
    Column("FIRING", right=True),
    Column("FOR", right=True),
    Column("CONDITION"),
    Column("RUNBOOK", wide=True),
)


def add(commands: "Commands") -> None:
    command = commands.add(
        "alerts",
        alerts,
        "list what is worth telling somebody at once, and what to do about it",
        ["heliosctl alerts", "heliosctl alerts -o wide", "heliosctl alerts --rules"],
        about="A pending alert's condition is true, but not for long enough yet.",
        listing=True,
        watchable=True,
    )
    command.add_argument("--rules", action="store_true", help="instead list all alerts there are")


def alerts(args: Namespace) -> Exit:
    from heliosd.wire import AlertList

    client = connect(args)

    def draw() -> None:
        body = client.get("/helios/v1/alerts")
        found = AlertList.model_validate(body)
        show(args.output, body, lambda wide: _rules(found.rules, wide) if args.rules else _active(found.alerts, wide))

    watch(args, client, draw)
    return Exit.OK


def _active(found: "list[AlertView]", wide: bool) -> str:
    if not found:
        return "no alert fires or is about to"
    now = time.time()
    rows = [
        (
            each.state,
            each.severity,
            each.name,
            format_seconds(max(0.0, now - each.since)),
            each.summary,
            each.advice,
            each.runbook,
        )
        for each in found
    ]
    return table(_ALERTS, rows, wide=wide)


def _rules(found: "list[AlertRuleView]", wide: bool) -> str:
    rows = [
        (
            each.name,
            each.severity,
            str(each.firing),
            format_seconds(each.for_s) if each.for_s else "at once",
            each.condition,
            each.runbook,
        )
        for each in found
    ]
    return table(_RULES, rows, wide=wide)
