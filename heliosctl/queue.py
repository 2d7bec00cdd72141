"""The command queue: who waits for a model, and what a waiting request is told on its own stream."""

import json
import re
from argparse import Namespace
from typing import TYPE_CHECKING

from heliosctl.client import connect
from heliosctl.exits import Exit
from heliosctl.output import Column, show, table, watch
from heliosd.core.units import format_seconds

if TYPE_CHECKING:
    from heliosctl.parser import Commands
    from heliosd.wire import QueueView

_COLUMNS = (
    Column("BEFORE", right=True),
    Column("MODEL"),
    Column("PRIORITY"),
    Column("KEY"),
    Column("SINCE", right=True),
    Column("ETA", right=True),
    Column("TICKET", wide=True),
    Column("BECAUSE"),
)
_WORD = re.compile(r'(\w+)=("(?:[^"\\]|\\.)*"|\S+)')


def add(commands: "Commands") -> None:
    commands.add(
        "queue",
        queue,
        "list the requests that wait for a model, the next one first",
        ["heliosctl queue", "heliosctl queue -w", "heliosctl queue -o json"],
        about="BEFORE counts the requests that go before it, ETA is how long it will probably still wait.",
        listing=True,
        watchable=True,
    )


def queue(args: Namespace) -> Exit:
    from heliosd.wire import QueueView

    client = connect(args)

    def draw() -> None:
        body = client.get("/helios/v1/queue")
        waiting = [QueueView.model_validate(row) for row in body["queue"]]
        show(args.output, body, lambda wide: table(_COLUMNS, map(_row, waiting), wide=wide))

    watch(args, client, draw)
    return Exit.OK


def _row(entry: "QueueView") -> tuple[str, ...]:
    return (
        str(entry.position),
        entry.model,
        entry.priority,
        entry.key or "-",
        format_seconds(entry.waiting_s),
        "-" if entry.eta_s is None else format_seconds(entry.eta_s),
        entry.ticket,
        entry.reason,
    )


def held_words(comment: str) -> str | None:
    """A stream's comment in words: `waiting: 2 before it, about 12 s: r3 is starting`. None: it tells of no wait."""
    if not comment.startswith("helios "):
        return None
    said = dict(_WORD.findall(comment))
    try:
        reason = json.loads(said.get("reason", '""'))
        place = {None: "", "0": "next in line"}.get(said.get("position"), f"{said.get('position')} before it")
        when = f"about {float(said['eta']):.0f} s" if "eta" in said else ""
    except ValueError:
        return None
    return ": ".join(filter(None, ["waiting", ", ".join(filter(None, [place, when])), str(reason)]))
