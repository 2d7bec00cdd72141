"""Commands about where models are kept: tiers, tiers plan, tiers move."""

from argparse import Namespace
from typing import TYPE_CHECKING

from heliosctl.client import connect, quoted
from heliosctl.exits import Exit, Failure
from heliosctl.output import Column, say, show, table
from heliosd.core.units import format_bytes

if TYPE_CHECKING:
    from heliosctl.parser import Commands
    from heliosd.wire import TierList, TierPlanView

_TIERS = (
    Column("TIER"),
    Column("BUDGET", right=True),
    Column("USED", right=True),
    Column("MODELS", right=True),
    Column("WANTED THERE"),
    Column("NOTE"),
)
_MOVES = (
    Column("MODEL"),
    Column("FROM"),
    Column("TO"),
    Column("SIZE", right=True),
    Column("SECONDS", right=True),
    Column("REASON"),
)


def add(commands: "Commands") -> None:
    command = commands.add(
        "tiers",
        tiers,
        "show where models are kept; plan moves, or want a model somewhere",
        ["heliosctl tiers", "heliosctl tiers plan", "heliosctl tiers move org/name disk"],
        about="plan shows what would be moved now, and moves nothing. move wants a model in a tier (host: in RAM; "
        "nvme: in the store; disk: on the slower volume; auto: as the forecast says); it is moved as soon as nobody "
        "uses it, and the wish outlives restarts.",
        listing=True,
    )
    command.add_argument("what", metavar="plan|move", nargs="?", choices=("plan", "move"), help="instead of a table")
    command.add_argument("model", metavar="MODEL", nargs="?", help="for move: org/name, org/name@rev or an alias")
    command.add_argument("tier", metavar="TIER", nargs="?", help="for move: host, nvme, disk or auto")


def tiers(args: Namespace) -> Exit:
    if args.what == "move":
        return _move(args)
    if args.model is not None:
        raise Failure(
            f"cannot tell what to do with {args.model}: say `heliosctl tiers move {args.model} TIER`", Exit.USAGE
        )
    from heliosd.wire import TierList, TierPlanView

    client = connect(args)
    if args.what == "plan":
        body = client.get("/helios/v1/tiers/plan")
        show(args.output, body, lambda wide: _plan(TierPlanView.model_validate(body), wide))
        return Exit.OK
    body = client.get("/helios/v1/tiers")
    show(args.output, body, lambda wide: _list(TierList.model_validate(body), wide))
    return Exit.OK


def _move(args: Namespace) -> Exit:
    if args.model is None or args.tier is None:
        raise Failure("cannot move: say which model and where: `heliosctl tiers move MODEL TIER`", Exit.USAGE)
    if args.tier not in ("host", "nvme", "disk", "auto"):
        raise Failure(f"cannot move to {args.tier}: a tier is host, nvme, disk or auto", Exit.USAGE)
    body = connect(args).call("PUT", f"/helios/v1/tiers/models/{quoted(args.model)}", {"tier": args.tier})
    where = f"is wanted in {body['tier']} and goes there as soon as nobody uses it" if body["tier"] else None
    say(f"{body['model']} {where or 'may be in any tier again'}")
    show(args.output, body, lambda wide: body["model"])
    return Exit.OK


def _list(found: "TierList", wide: bool) -> str:
    rows = []
    for each in found.tiers:
        wanted = ", ".join(wish.model for wish in found.wishes if wish.tier == each.tier) or "-"
        used = (format_bytes(each.budget_bytes), format_bytes(each.used_bytes), str(len(each.models)))
        rows.append((each.tier, *used, wanted, each.note or "-"))
    text = table(_TIERS, rows, wide=wide)
    if wide:
        text += "".join(f"\n{each.tier}: {', '.join(each.models)}" for each in found.tiers if each.models)
    return f"{text}\nmoving {found.moving}" if found.moving else text


def _plan(found: "TierPlanView", wide: bool) -> str:
    rows = [
        (
            ", ".join(each.models),
            each.source,
            each.target,
            format_bytes(each.size_bytes),
            f"{each.seconds:.1f}",
            each.reason,
        )
        for each in found.moves
    ]
    return "\n".join([table(_MOVES, rows, wide=wide) if rows else "nothing is to be moved", *found.unmet])
