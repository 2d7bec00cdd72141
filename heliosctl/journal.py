"""Commands that tell what happened and why: events, explain, logs."""

import json
from argparse import Namespace
from typing import TYPE_CHECKING

from heliosctl.client import Client, connect, quoted
from heliosctl.exits import Exit, Failure
from heliosctl.output import Column, show, table

if TYPE_CHECKING:
    from heliosctl.parser import Commands
    from heliosd.wire import EventView

_COLUMNS = (
    Column("TIME"),
    Column("KIND"),
    Column("MODEL", wide=True),
    Column("REPLICA", wide=True),
    Column("TICKET", wide=True),
    Column("MESSAGE"),
)


def add(commands: "Commands") -> None:
    command = commands.add(
        "events",
        events,
        "show what the daemon decided, newest last",
        ["heliosctl events", "heliosctl events -f --subject org/name"],
        about="With -f and -o json, one object a line.",
        listing=True,
    )
    command.add_argument("-f", "--follow", action="store_true", help="go on with what happens from now")
    command.add_argument("-n", "--lines", type=int, default=50, metavar="N", help="how many of the past (default 50)")
    command.add_argument("--subject", metavar="SUBJECT", help="only about this ticket, replica or model")

    command = commands.add(
        "explain",
        explain,
        "tell why a request, a replica or a model was treated as it was",
        ["heliosctl explain org/name", "heliosctl explain TICKET"],
        about="First its story, with the arithmetic, then what the journal has. "
        "A ticket is the x-request-id of an answer.",
        listing=True,
    )
    command.add_argument("subject", metavar="SUBJECT", help="a ticket, a replica or a model")

    command = commands.add(
        "logs",
        logs,
        "print the log of a replica's engine, or the daemon's own",
        ["heliosctl logs -f", "heliosctl logs org/name -n 20"],
    )
    command.add_argument("subject", metavar="MODEL|REPLICA", nargs="?", help="whose log (default: the daemon's)")
    command.add_argument("-f", "--follow", action="store_true", help="go on with what is written from now")
    command.add_argument("-n", "--lines", type=int, default=200, metavar="N", help="how many lines (default 200)")


def events(args: Namespace) -> Exit:
    from heliosd.wire import EventView

    client = connect(args)
    body = client.get("/helios/v1/events", {"limit": args.lines, "subject": args.subject})
    past = [EventView.model_validate(row) for row in body["events"]]
    if not args.follow:
        show(args.output, body, lambda wide: table(_COLUMNS, [_row(event) for event in past], wide=wide))
        return Exit.OK
    for event in past:
        _one(event, args.output)
    query = {"follow": 1, "subject": args.subject, "after": past[-1].id if past else 0}
    with client.stream("GET", "/helios/v1/events", query=query) as stream:
        for news in stream:
            if news.kind == "journal":
                _one(EventView.model_validate_json(news.data), args.output)
    return Exit.OK


def _one(event: "EventView", form: str) -> None:
    """One line of a list without an end: columns cannot be aligned, so their usual widths are used."""
    match form:
        case "json":
            print(event.model_dump_json(), flush=True)
        case "yaml":
            print("---")
            show("yaml", json.loads(event.model_dump_json()), lambda wide: "")
        case "wide":
            time, kind, model, replica, ticket, message = _row(event)
            print(f"{time}   {kind:<18} {model:<32} {replica:<10} {ticket:<14} {message}", flush=True)
        case _:
            time, kind, *_, message = _row(event)
            print(f"{time}   {kind:<18} {message}", flush=True)


def _row(event: "EventView") -> tuple[str, ...]:
    from heliosctl.times import clock

    return (
        clock(event.at),
        event.kind,
        event.model or "-",
        event.replica or "-",
        event.ticket or "-",
        event.message.replace("\n", " "),
    )


def explain(args: Namespace) -> Exit:
    from heliosctl.explain_words import story
    from heliosd.wire import Explanation

    body = connect(args).get(f"/helios/v1/explain/{quoted(args.subject)}")
    told = Explanation.model_validate(body)
    words = story(told)
    if not told.events and not words:
        raise Failure(
            f"cannot explain {args.subject}: nothing is noted about it. `heliosctl events` shows what is",
            Exit.NOT_FOUND,
        )
    lines = [_row(event) for event in told.events]
    show(args.output, body, lambda wide: "\n\n".join(filter(None, (words, table(_COLUMNS, lines, wide=wide)))))
    return Exit.OK


def logs(args: Namespace) -> Exit:
    client = connect(args)
    query = {"lines": args.lines, "follow": 1 if args.follow else None, **_whose(client, args.subject)}
    for line in client.lines("/helios/v1/logs", query):
        print(line, flush=args.follow)
    return Exit.OK


def _whose(client: Client, subject: str | None) -> dict[str, str]:
    """A replica that is there is meant before a model of the same name."""
    if subject is None:
        return {}
    replicas = client.get("/helios/v1/replicas")["replicas"]
    return {"replica": subject} if any(row["id"] == subject for row in replicas) else {"model": subject}
