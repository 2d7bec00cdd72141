"""Commands about API keys: keys add, set, ls, rm."""

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from typing import TYPE_CHECKING, Any

from heliosctl.arguments import number
from heliosctl.client import connect, quoted
from heliosctl.exits import Exit, Failure
from heliosctl.output import Column, say, show, table

if TYPE_CHECKING:
    from heliosctl.parser import Commands

_COLUMNS = (
    Column("NAME"),
    Column("ADMIN"),
    Column("PRIORITY"),
    Column("SHARE", right=True),
    Column("BUDGET", right=True),
    Column("TOKENS/DAY", right=True),
    Column("CREATED"),
    Column("ID", wide=True),
)
_PERIODS = ("day", "month")
_MOST_TOKENS = 10**15
_PRIORITIES = ("low", "normal", "high")


def add(commands: "Commands") -> None:
    from heliosctl.parser import Commands as Below

    group = commands.add("keys", None, "make, change, list and remove API keys", ["heliosctl keys add laptop"])
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
    _add_terms(command)
    command = below.add(
        "set",
        change,
        "change the class, the share or the budget of a key's requests",
        [
            "heliosctl keys set batch --priority low",
            "heliosctl keys set laptop --share 2",
            "heliosctl keys set laptop --budget 100/month --tokens-per-day 1e6",
            "heliosctl keys set laptop --budget none",
        ],
        about="Requests that wait already keep their place.",
        listing=True,
    )
    command.add_argument("name", metavar="NAME", help="the key's name")
    _add_terms(command)
    below.add("ls", ls, "list the keys, without their secrets", ["heliosctl keys ls"], listing=True)
    command = below.add("rm", rm, "remove a key; it stops working at once", ["heliosctl keys rm laptop"])
    command.add_argument("name", metavar="NAME", help="the key's name")


def _add_terms(command: ArgumentParser) -> None:
    command.add_argument(
        "--priority", choices=_PRIORITIES, help="class of its requests; a normal key leaves it to the model"
    )
    command.add_argument(
        "--share", type=number, metavar="N", help="of the fair share, beside other keys that wait (1 at first)"
    )

    command.add_argument(
        "--budget",
        type=_budget,
        metavar="N/PERIOD",
        help="what it may spend in a day or month (UTC) by the prices configured, such as 100/month; none: no limit",
    )
    command.add_argument(
        "--tokens-per-day",
        type=_tokens,
        metavar="N",
        help="of prompts and answers together, such as 1e6; none: no limit",
    )


def _budget(text: str) -> tuple[float, str]:
    amount, _, period = text.partition("/")
    if text == "none":
        return 0.0, "month"
    if period not in _PERIODS:
        raise ArgumentTypeError(f"cannot read {text!r}: an amount and day or month are expected, such as 100/month")
    return number(amount), period


def _tokens(text: str) -> int:
    if text == "none":
        return 0
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 1 <= found <= _MOST_TOKENS or found != int(found):
        raise ArgumentTypeError(f"cannot read {text!r}: a whole number of tokens is expected, such as 1e6, or none")
    return int(found)


def _terms(args: Namespace) -> dict[str, Any]:
    given = {"priority": args.priority, "share": args.share, "tokens_per_day": args.tokens_per_day}
    if args.budget is not None:
        given["budget"], given["budget_period"] = args.budget
    return {name: value for name, value in given.items() if value is not None}


def create(args: Namespace) -> Exit:
    from heliosd.wire import KeyView

    body = connect(args).call("POST", "/helios/v1/keys", {"name": args.name, "admin": args.admin, **_terms(args)})
    key = KeyView.model_validate(body)
    say(f"key {key.name} is made; keep its secret now, it is not shown again")
    show(args.output, body, lambda wide: key.secret or "")
    return Exit.OK


def change(args: Namespace) -> Exit:
    terms = _terms(args)
    if not terms:
        raise Failure("cannot change the key: say --priority, --share, --budget or --tokens-per-day", Exit.USAGE)
    body = connect(args).call("PATCH", f"/helios/v1/keys/{quoted(args.name)}", terms)
    show(args.output, body, lambda wide: _table([body], wide))
    return Exit.OK


def ls(args: Namespace) -> Exit:
    body = connect(args).get("/helios/v1/keys")
    show(args.output, body, lambda wide: _table(body["keys"], wide))
    return Exit.OK


def _table(bodies: list[Any], wide: bool) -> str:
    from heliosctl.times import ago
    from heliosd.wire import KeyView

    keys = [KeyView.model_validate(body) for body in bodies]
    rows = [
        (
            key.name,
            "yes" if key.admin else "no",
            key.priority,
            f"{key.share:g}",
            f"{key.budget:g}/{key.budget_period}" if key.budget else "-",
            f"{key.tokens_per_day:,}" if key.tokens_per_day else "-",
            ago(key.created_at),
            key.id,
        )
        for key in keys
    ]
    return table(_COLUMNS, rows, wide=wide)


def rm(args: Namespace) -> Exit:
    connect(args).call("DELETE", f"/helios/v1/keys/{quoted(args.name)}")
    say(f"key {args.name} is removed")
    return Exit.OK
