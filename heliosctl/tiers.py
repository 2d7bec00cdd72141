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
    Column("SPEED", right=True),
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
        "uses it, and the wish outlives restarts. To peer or hub it goes at once, if another node or the hub has it: "
        "its weights are removed here, and fetched again when it is asked for.",
        listing=True,
    )
    command.add_argument("what", metavar="plan|move", nargs="?", choices=("plan", "move"), help="instead of a table")
    command.add_argument("model", metavar="MODEL", nargs="?", help="for move: org/name, org/name@rev or an alias")
    command.add_argument("tier", metavar="TIER", nargs="?", help="for move: host, nvme, disk, peer, hub or auto")


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
    if args.tier not in ("host", "nvme", "disk", "peer", "hub", "auto"):
        raise Failure(f"cannot move to {args.tier}: a tier is host, nvme, disk, peer, hub or auto", Exit.USAGE)
    body = connect(args).call("PUT", f"/helios/v1/tiers/models/{quoted(args.model)}", {"tier": args.tier})
    say(f"{body['model']} {_moved(body['tier'])}")
    show(args.output, body, lambda wide: body["model"])
    return Exit.OK


def _moved(tier: str | None) -> str:
    match tier:
        case None:
            return "may be in any tier again"
        case "peer" | "hub":
            return f"was let go: it comes from {'another node' if tier == 'peer' else 'the hub'} when it is asked for"
        case _:
            return f"is wanted in {tier} and goes there as soon as nobody uses it"


def _list(found: "TierList", wide: bool) -> str:
    rows = []
    for each in found.tiers:
        wanted = ", ".join(wish.model for wish in found.wishes if wish.tier == each.tier) or "-"
        budget = "-" if each.budget_bytes is None else format_bytes(each.budget_bytes)
        speed = "-" if each.bytes_per_s is None else f"{format_bytes(int(each.bytes_per_s))}/s"
        used = (budget, format_bytes(each.used_bytes), str(len(each.models)), speed)
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
