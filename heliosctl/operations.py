"""Commands for an operator's hand: scale, evict, move, limits, drain, undrain."""

from argparse import Namespace
from typing import TYPE_CHECKING, Any

from heliosctl.arguments import byte_size, count, model_argument
from heliosctl.changing import Planned, confirmed, plan_words
from heliosctl.client import Client, connect, quoted
from heliosctl.exits import Exit, Failure
from heliosctl.output import Column, say, show, table

if TYPE_CHECKING:
    import argparse

    from heliosctl.parser import Commands

_LIMITS = (
    Column("REPLICA"),
    Column("LIMIT"),
    Column("BEFORE", right=True),
    Column("AFTER", right=True),
    Column("HOW"),
    Column("INSTEAD"),
)


def add(commands: "Commands") -> None:
    command = commands.add(
        "scale",
        scale,
        "have so many replicas of a model, started, woken or stopped as need be",
        ["heliosctl scale org/name 2", "heliosctl scale org/name 3 --devices g0,g1 --dry-run", "heliosctl scale m 0"],
        about="They step down when they are idle, as all do: pin the model to keep them.",
        listing=True,
    )
    model_argument(command)
    command.add_argument("count", metavar="N", type=_number, help="how many")
    command.add_argument("--devices", metavar="LIST", type=_names, default=[], help="where those that start may run")
    _limit_options(command)

    command = commands.add(
        "evict",
        evict,
        "have a replica, or all of a model, give its memory back, after telling what that frees and costs",
        ["heliosctl evict org/name --dry-run", "heliosctl evict r3 --to stop -y"],
        listing=True,
    )
    command.add_argument("subject", metavar="MODEL|REPLICA", help="who")
    command.add_argument("--to", choices=("auto", "sleep", "stop"), default="auto", help="auto: to sleep where it can")
    command.add_argument("-y", "--yes", action="store_true", help="do not ask")

    command = commands.add(
        "move",
        move,
        "have a replica run on other devices",
        ["heliosctl move r3 g1", "heliosctl move org/name g2,g3 --dry-run"],
        about="`heliosctl tiers move` moves weights between disks and memory.",
        listing=True,
    )
    command.add_argument("subject", metavar="MODEL|REPLICA", help="who")
    command.add_argument("devices", metavar="DEVICES", type=_names, help="where it may run, such as g0 or g0,g1")

    command = commands.add(
        "limits",
        limits,
        "change the KV cache, the longest request or the requests at once of what runs",
        ["heliosctl limits org/name --max-num-seqs 16", "heliosctl limits r3 --kv-cache 8GiB --dry-run"],
        about="Fewer requests at once hold from the next one on; all else needs a restart, which --dry-run shows. "
        "It holds for what runs now; helios.toml is for later starts.",
        listing=True,
    )
    command.add_argument("subject", metavar="MODEL|REPLICA", help="whose")
    _limit_options(command)

    command = commands.add(
        "drain",
        drain,
        "take a device, a replica or the whole node out of service, once its requests are done",
        ["heliosctl drain --device g0", "heliosctl drain --replica r3", "heliosctl drain --node -y"],
        about="A device stays out, also after a restart, until `heliosctl undrain`.",
        listing=True,
    )
    which = command.add_mutually_exclusive_group(required=True)
    which.add_argument("--device", metavar="DEVICE", help="nothing is started there")
    which.add_argument("--replica", metavar="MODEL|REPLICA", help="it stops")
    which.add_argument("--node", action="store_true", help="this node: it takes no requests")
    command.add_argument("-y", "--yes", action="store_true", help="do not ask")

    command = commands.add(
        "undrain",
        undrain,
        "take the node, or a device, into service again",
        ["heliosctl undrain", "heliosctl undrain g0"],
        listing=True,
    )
    command.add_argument("device", metavar="DEVICE", nargs="?", help="default: the node")


def _limit_options(command: "argparse.ArgumentParser") -> None:
    command.add_argument("--max-num-seqs", metavar="N", type=count, help="requests at once")
    command.add_argument("--kv-cache", metavar="SIZE", type=byte_size, help="per device, such as 8GiB")
    command.add_argument("--max-model-len", metavar="TOKENS", type=count, help="the longest request")


def _number(text: str) -> int:
    return 0 if text == "0" else count(text)


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def _limits(args: Namespace) -> dict[str, int]:
    wanted = {
        "max_num_seqs": args.max_num_seqs,
        "kv_cache_bytes": args.kv_cache,
        "max_model_len": args.max_model_len,
    }
    return {name: value for name, value in wanted.items() if value is not None}


def scale(args: Namespace) -> Exit:
    asked = {"model": args.model, "count": args.count, "devices": args.devices, **_limits(args)}
    body = connect(args).call("POST", "/helios/v1/replicas", asked)
    for word in ("started", "stopped"):
        if body[word]:
            say(f"{word}: {', '.join(body[word])}")
    show(args.output, body, lambda wide: "\n".join(each["id"] for each in body["replicas"]))
    return Exit.OK


def evict(args: Namespace) -> Exit:
    client, path, asked = connect(args), f"/helios/v1/evict/{quoted(args.subject)}", {"to": args.to}
    if not _agreed(args, client, path, asked, f"Evict {args.subject}?"):
        return Exit.FAILED
    body = client.call("POST", path, asked)
    show(args.output, body, lambda wide: "\n".join(body["evicted"]))
    return Exit.OK


def move(args: Namespace) -> Exit:
    body = connect(args).call("POST", f"/helios/v1/move/{quoted(args.subject)}", {"devices": args.devices})
    replica = body["replica"]
    say(f"{replica['id']} runs on {', '.join(replica['devices'])} instead of {', '.join(body['stopped'])}")
    show(args.output, body, lambda wide: str(replica["id"]))
    return Exit.OK


def limits(args: Namespace) -> Exit:
    asked = _limits(args)
    if not asked:
        raise Failure("cannot change limits: say --max-num-seqs, --kv-cache or --max-model-len", Exit.USAGE)
    body = connect(args).call("PATCH", f"/helios/v1/limits/{quoted(args.subject)}", asked)
    rows = [
        (
            each["replica"],
            each["limit"],
            str(each["before"]),
            str(each["after"]),
            each["how"],
            each["replaced_by"] or "-",
        )
        for each in body["changes"]
    ]
    show(args.output, body, lambda wide: table(_LIMITS, rows, wide=wide) if rows else "nothing changes")
    return Exit.OK


def drain(args: Namespace) -> Exit:
    client, path = connect(args), "/helios/v1/drain"
    asked = {"device": args.device, "replica": args.replica}
    what = args.device or args.replica or "the node"
    if not _agreed(args, client, path, asked, f"Drain {what}?"):
        return Exit.FAILED
    body = client.call("POST", path, asked)
    say(f"{what} is drained" + (f"; stopped: {', '.join(body['stopped'])}" if body["stopped"] else ""))
    show(args.output, body, lambda wide: "\n".join(body["stopped"])) if body["stopped"] or args.output != "table" else 0
    return Exit.OK


def undrain(args: Namespace) -> Exit:
    body = connect(args).call("DELETE", "/helios/v1/drain", query={"device": args.device})
    say(f"{args.device or 'the node'} is in service again")
    show(args.output, body, lambda wide: "") if args.output in ("json", "yaml") else None
    return Exit.OK


def _agreed(args: Namespace, client: Client, path: str, asked: Any, question: str) -> bool:
    """Tell what it frees and costs, and ask; with --dry-run that is all, and `Planned` goes on to whoever shows it."""
    if args.dry_run or args.yes:
        return True
    from heliosd.wire import ChangePlan

    try:
        client.call("POST", path, asked, query={"dry_run": "true"})
    except Planned as planned:
        say(plan_words(ChangePlan.model_validate(planned.body)))
    if confirmed(question, yes=False):
        return True
    say("nothing was done")
    return False
