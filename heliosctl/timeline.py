"""Commands about starts, phase by phase: `timeline`, and what `load --timeline` shows meanwhile."""

import json
from argparse import Namespace
from typing import TYPE_CHECKING, Any

from heliosctl.client import Client, connect, failure_from, quoted
from heliosctl.exits import Exit, Failure
from heliosctl.output import say, show

if TYPE_CHECKING:
    from heliosctl.parser import Commands


def add(commands: "Commands") -> None:
    command = commands.add(
        "timeline",
        timeline,
        "show how long each phase of a start took",
        ["heliosctl timeline org/name", "heliosctl timeline r7 -o json"],
        about="Of a model its last start; of a replica that has ended what the journal tells.",
        listing=True,
    )
    command.add_argument("subject", metavar="MODEL|REPLICA", help="whose start")


def timeline(args: Namespace) -> Exit:
    body = connect(args).get(f"/helios/v1/replicas/{quoted(args.subject)}/timeline")
    show(args.output, body, lambda wide: chart_of(body))
    return Exit.OK


def load_watched(client: Client, model: str) -> tuple[Any, Any]:
    """Load a model, saying what each phase took as it ends; returns the replica's and its timeline's bodies.

    The second is None for a replica of whose start nothing is known. Raises Failure.
    """
    from heliosctl.timeline_bars import ended_line
    from heliosd.wire import TimelineView

    last, seen, told = None, set[str](), set[tuple[str, str]]()
    with client.stream("POST", "/helios/v1/replicas", {"model": model, "stream": True}) as stream:
        for event in stream:
            match event.kind:
                case "timeline":
                    last = json.loads(event.data)
                    view = TimelineView.model_validate(last)
                    if view.state == "starting":
                        seen.add(view.replica)  # what was ready before is no news
                    for span in view.spans:
                        if (view.replica, span.phase) not in told and view.replica in seen:
                            say(ended_line(span, view))
                        told.add((view.replica, span.phase))
                case "error":
                    raise failure_from(event.data, None)
                case "done":
                    return json.loads(event.data), last
    raise Failure(f"cannot load {model}: heliosd ended the answer early; `heliosctl logs` may say why")


def chart_of(body: Any) -> str:
    """A timeline's body as text."""
    from heliosctl.bars import plain_output
    from heliosctl.timeline_bars import chart
    from heliosd.wire import TimelineView

    return chart(TimelineView.model_validate(body), plain=plain_output())
