"""Commands about models that are kept ready: pin, unpin."""

from argparse import Namespace
from typing import TYPE_CHECKING

from heliosctl.arguments import model_argument
from heliosctl.client import connect, quoted
from heliosctl.exits import Exit
from heliosctl.output import Column, say, show, table

if TYPE_CHECKING:
    from heliosctl.parser import Commands

_COLUMNS = (Column("MODEL"), Column("REPLICAS", right=True))


def add(commands: "Commands") -> None:
    command = commands.add(
        "pin",
        pin,
        "keep a model ready, whatever is asked for; without a model, list what is pinned",
        ["heliosctl pin org/name", "heliosctl pin org/name --replicas 2", "heliosctl pin"],
        about="A pinned model starts as soon as there is room and is never sent away. Pins outlive restarts.",
        listing=True,
    )
    model_argument(command, nargs="?")
    command.add_argument("--replicas", type=int, default=1, metavar="N", help="how many to keep ready (default 1)")

    command = commands.add(
        "unpin", unpin, "treat a model like any other again", ["heliosctl unpin org/name"], listing=True
    )
    model_argument(command)


def pin(args: Namespace) -> Exit:
    client = connect(args)
    if args.model is None:
        body = client.get("/helios/v1/pins")
        rows = [(row["model"], str(row["replicas"])) for row in body["pins"]]
        show(args.output, body, lambda wide: table(_COLUMNS, rows, wide=wide))
        return Exit.OK
    body = client.call("PUT", f"/helios/v1/pins/{quoted(args.model)}", {"replicas": args.replicas})
    say(f"{body['replicas']} of {body['model']} will be kept ready")
    show(args.output, body, lambda wide: body["model"])
    return Exit.OK


def unpin(args: Namespace) -> Exit:
    body = connect(args).call("DELETE", f"/helios/v1/pins/{quoted(args.model)}")
    say(f"{body['model']} is no longer kept ready")
    show(args.output, body, lambda wide: body["model"])
    return Exit.OK
