"""Commands about the daemon's configuration: config, reload, log-level."""

from argparse import Namespace
from typing import TYPE_CHECKING

from heliosctl.client import connect
from heliosctl.exits import Exit
from heliosctl.output import say, show

if TYPE_CHECKING:
    from heliosctl.parser import Commands

_LEVELS = ("debug", "info", "warning", "error")


def add(commands: "Commands") -> None:
    commands.add(
        "config", config, "print the daemon's configuration, explained, without secrets", ["heliosctl config | less"]
    )
    commands.add(
        "reload",
        reload,
        "have the daemon read its configuration again, as SIGHUP does",
        ["heliosctl reload --dry-run", "heliosctl reload"],
        about="A configuration that is wrong changes nothing, and is told.",
        listing=True,
    )
    command = commands.add(
        "log-level",
        level,
        "show what the daemon logs, or have it log more or less until its configuration is read again",
        ["heliosctl log-level", "heliosctl log-level debug"],
        listing=True,
    )
    command.add_argument("level", metavar="LEVEL", nargs="?", choices=_LEVELS, help=", ".join(_LEVELS))


def config(args: Namespace) -> Exit:
    for line in connect(args).lines("/helios/v1/config"):
        print(line)
    return Exit.OK


def reload(args: Namespace) -> Exit:
    body = connect(args).call("POST", "/helios/v1/config/reload")
    say(f"changed: {', '.join(body['changed']) or 'nothing'}")
    if body["needs_restart"]:
        say(f"needs a restart: {', '.join(body['needs_restart'])}")
    show(args.output, body, lambda wide: "\n".join(body["changed"])) if args.output != "table" else None
    return Exit.OK


def level(args: Namespace) -> Exit:
    client = connect(args)
    if args.level is None:
        body = client.get("/helios/v1/log")
    else:
        body = client.call("PUT", "/helios/v1/log", {"level": args.level})
        say(f"{body['level']} and above are logged, it was {body['before']}")
    show(args.output, body, lambda wide: str(body["level"]))
    return Exit.OK
