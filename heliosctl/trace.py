"""`heliosctl trace`: the spans of one request as a tree, each where it was in time."""

from argparse import Namespace
from typing import TYPE_CHECKING

from heliosctl.client import connect, quoted
from heliosctl.exits import Exit
from heliosctl.output import show

if TYPE_CHECKING:
    from heliosctl.parser import Commands


def add(commands: "Commands") -> None:
    command = commands.add(
        "trace",
        trace,
        "show what happened to a request, span by span",
        ["heliosctl trace t-0123456789abcdef", "heliosctl trace 4bf92f3577b34da6a3ce929d0e0e4736 -o wide"],
        about="A request's id is in the header X-Request-Id of its answer, and in `heliosctl events`; -o wide adds "
        "what each span knows. Needs tracing.enabled; the daemon keeps the last 256 traces.",
        listing=True,
    )
    command.add_argument("id", metavar="REQUEST_ID|TRACE_ID", help="whose trace")


def trace(args: Namespace) -> Exit:
    from heliosctl.bars import plain_output
    from heliosctl.trace_tree import tree
    from heliosd.wire import TraceView

    body = connect(args).get(f"/helios/v1/traces/{quoted(args.id)}")
    view = TraceView.model_validate(body)
    show(args.output, body, lambda wide: tree(view, wide=wide, plain=plain_output()))
    return Exit.OK
