"""Commands about API keys: keys add, ls, rm."""

from argparse import Namespace
from typing import TYPE_CHECKING

from heliosctl.client import connect, quoted
from heliosctl.exits import Exit
from heliosctl.output import Column, say, show, table

if TYPE_CHECKING:
    from heliosctl.parser import Commands

_COLUMNS = (Column("NAME"), Column("ADMIN"), Column("CREATED"), Column("ID", wide=True))


def add(commands: "Commands") -> None:
    from heliosctl.parser import Commands as Below

    group = commands.add("keys", None, "make, list and remove API keys", ["heliosctl keys add laptop"])
    below = Below(group)
    command = below.add(
        "add",
        create,
        "make a key; its secret is shown once, on stdout",
        ["heliosctl keys add laptop", "KEY=$(heliosctl keys add ops --admin)"],
        listing=True,
    )
    command.add_argument("name", metavar="NAME", help="what to call the key")
    command.add_argument("--admin", action="store_true", help="it may also use /helios/v1")
    below.add("ls", ls, "list the keys, without their secrets", ["heliosctl keys ls"], listing=True)
    command = below.add("rm", rm, "remove a key; it stops working at once", ["heliosctl keys rm laptop"])
    command.add_argument("name", metavar="NAME", help="the key's name")


def create(args: Namespace) -> Exit:
    from heliosd.wire import KeyView

    body = connect(args).call("POST", "/helios/v1/keys", {"name": args.name, "admin": args.admin})
    key = KeyView.model_validate(body)
    say(f"key {key.name} is made; keep its secret now, it is not shown again")
    show(args.output, body, lambda wide: key.secret or "")
    return Exit.OK


def ls(args: Namespace) -> Exit:
    from heliosctl.times import ago
    from heliosd.wire import KeyView

    body = connect(args).get("/helios/v1/keys")
    keys = [KeyView.model_validate(row) for row in body["keys"]]
    rows = [(key.name, "yes" if key.admin else "no", ago(key.created_at), key.id) for key in keys]
    show(args.output, body, lambda wide: table(_COLUMNS, rows, wide=wide))
    return Exit.OK


def rm(args: Namespace) -> Exit:
    connect(args).call("DELETE", f"/helios/v1/keys/{quoted(args.name)}")
    say(f"key {args.name} is removed")
    return Exit.OK
