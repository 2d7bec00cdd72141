"""What every command that changes something can do: show the plan instead, say why, be repeated without harm."""

from argparse import ArgumentParser, Namespace
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from heliosctl.client import Client
    from heliosctl.exits import Exit


@dataclass(slots=True)
class Change:
    """How a command's changes are asked for."""

    dry_run: bool = False
    reason: str | None = None
    key: str | None = None
    asked: int = 0

    def headers(self) -> dict[str, str]:
        """Of the next change. A command that asks for several gives each its own idempotency key."""
        found = {"x-helios-reason": self.reason} if self.reason else {}
        if self.key is not None:
            found["idempotency-key"] = self.key if not self.asked else f"{self.key}.{self.asked}"
        self.asked += 1
        return found


class Planned(Exception):
    """A dry run was answered: the command has nothing more to do than to show it."""

    def __init__(self, body: Any) -> None:
        super().__init__("planned")
        self.body = body


def change_options(command: ArgumentParser, *, dry_run: bool = True) -> None:
    """Add the options; `dry_run` False: the command has its own."""
    group = command.add_argument_group("changes")
    if dry_run:
        group.add_argument("--dry-run", action="store_true", help="only tell what would be done, and what it costs")
    group.add_argument("--reason", metavar="TEXT", help="why, for `heliosctl audit`")
    group.add_argument(
        "--idempotency-key", metavar="WORD", help="do it once in a day, however often it is asked for under this word"
    )


def change_of(args: Namespace) -> Change:
    """What the command line says of its changes; nothing, for a command without them."""
    return Change(
        getattr(args, "dry_run", False), getattr(args, "reason", None), getattr(args, "idempotency_key", None)
    )


def show_plans(args: Namespace, bodies: Iterable[Any]) -> "Exit":
    """What would be done, of one change or of several."""
    from heliosctl.exits import Exit
    from heliosctl.output import show
    from heliosd.wire import ChangePlan

    bodies = list(bodies)
    plans = [ChangePlan.model_validate(body) for body in bodies]
    body = bodies[0] if len(bodies) == 1 else {"plans": bodies}
    show(getattr(args, "output", "table"), body, lambda wide: "\n\n".join(plan_words(plan) for plan in plans))
    return Exit.OK


def plan_each(args: Namespace, client: "Client", calls: Iterable[tuple[str, str]]) -> "Exit":
    """Ask for the plans of several changes, each a method and a path."""
    bodies = []
    for method, path in calls:
        try:
            client.call(method, path)
        except Planned as planned:
            bodies.append(planned.body)
    return show_plans(args, bodies)


def plan_words(plan: Any) -> str:
    """A plan for people: what, the steps, the sums. Nothing was done."""
    from heliosctl.output import Column, table
    from heliosd.core.units import format_bytes, format_seconds

    columns = (
        Column("WOULD"),
        Column("WHAT"),
        Column("ON"),
        Column("FREES", right=True),
        Column("TAKES", right=True),
        Column("IN", right=True),
        Column("COSTS", right=True),
        Column("BECAUSE"),
    )
    rows = [
        (
            step.what,
            step.subject,
            ",".join(step.devices) or "-",
            format_bytes(step.frees_bytes) if step.frees_bytes else "-",
            format_bytes(step.takes_bytes) if step.takes_bytes else "-",
            "-" if not step.seconds else format_seconds(step.seconds),
            "-" if step.costs_s is None else format_seconds(step.costs_s),
            step.reason,
        )
        for step in plan.steps
    ]
    words = [plan.summary if not plan.dry_run else f"{plan.summary}; nothing was done"]
    words += [table(columns, rows)] if rows else ["there is nothing to do"]
    if plan.frees_bytes or plan.takes_bytes:
        words.append(f"frees {format_bytes(plan.frees_bytes)}, takes {format_bytes(plan.takes_bytes)}")
    return "\n".join(words)


def confirmed(question: str, *, yes: bool) -> bool:
    """Whether the person agrees. Raises Failure where there is nobody to ask."""
    import sys

    from heliosctl.exits import Exit, Failure

    if yes:
        return True
    if not sys.stdin.isatty():
        raise Failure("cannot ask whether to go on: there is no terminal. Say -y to go on anyway", Exit.USAGE)
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
