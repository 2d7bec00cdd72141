"""Commands about the other nodes: cluster ls."""

from argparse import Namespace
from typing import TYPE_CHECKING

from heliosctl.client import connect
from heliosctl.exits import Exit
from heliosctl.output import Column, show, table
from heliosd.core.units import format_bytes

if TYPE_CHECKING:
    from heliosctl.parser import Commands
    from heliosd.wire import MemberView

_COLUMNS = (
    Column("NODE"),
    Column("STATE"),
    Column("ADDRESS"),
    Column("MODELS", right=True),
    Column("READY", right=True),
    Column("FREE", right=True),
    Column("WAIT", right=True),
    Column("API", wide=True),
    Column("VERSION", wide=True),
    Column("HOLDS", wide=True),
)


def add(commands: "Commands") -> None:
    from heliosctl.parser import Commands as Below

    group = commands.add("cluster", None, "look at the nodes that answer as one", ["heliosctl cluster ls"])
    Below(group).add("ls", ls, "list the nodes of the cluster", ["heliosctl cluster ls -o wide"], listing=True)


def ls(args: Namespace) -> Exit:
    from heliosd.wire import MemberView

    body = connect(args).get("/helios/v1/cluster")
    members = [MemberView.model_validate(row) for row in body["members"]]
    show(args.output, body, lambda wide: table(_COLUMNS, [_row(member) for member in members], wide=wide))
    return Exit.OK


def _row(member: "MemberView") -> tuple[str, ...]:
    return (
        member.name,
        member.state,
        member.address or "-",
        str(len(member.models)),
        str(len(member.ready)),
        "-" if member.free_bytes is None else format_bytes(member.free_bytes),
        str(member.queue_length),
        member.api_url or "-",
        member.version or "-",
        ", ".join(member.models) or "-",
    )
