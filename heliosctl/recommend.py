"""recommend: what could be done better; carries out what is a setting, and puts off what nobody wants to hear."""

import argparse
import sys
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from heliosctl.advice_file import changed, diff, toml, write
from heliosctl.arguments import number
from heliosctl.client import Client, connect, quoted
from heliosctl.exits import Exit, Failure
from heliosctl.output import Column, pairs, say, show, table
from heliosd.core.units import format_bytes, parse_seconds

if TYPE_CHECKING:
    from heliosctl.parser import Commands
    from heliosd.wire import AdviceList, AdviceView

_PATH = "/helios/v1/recommendations"
_COLUMNS = (
    Column("#", right=True),
    Column("FREES", right=True),
    Column("WAITING", right=True),
    Column("MONEY", right=True),
    Column("WHAT TO DO"),
    Column("ID", wide=True),
)


def add(commands: "Commands") -> None:
    command = commands.add(
        "recommend",
        recommend,
        "what could be done better, with the figures that say so",
        [
            "heliosctl recommend",
            "heliosctl recommend 1",
            "heliosctl recommend --apply 1",
            "heliosctl recommend --apply 2 --into /etc/helios/conf.d/90-advice.toml",
            "heliosctl recommend --dismiss 2 --for 30d",
        ],
        about="The most worth first. N is its number in the list, or its ID. --apply shows the difference and asks "
        "before it changes anything; what only a person can do is said, not done.",
        listing=True,
    )
    command.add_argument("which", metavar="N", nargs="?", help="all there is to say of one")
    command.add_argument("--apply", metavar="N", help="carry it out, if it is a setting of the daemon")
    command.add_argument("-y", "--yes", action="store_true", help="with --apply: do not ask")
    command.add_argument(
        "--into", metavar="FILE", type=Path, help="with --apply: the file of conf.d that settings are written into"
    )
    command.add_argument("--dismiss", metavar="N", help="do not show it for a while")
    command.add_argument("--restore", metavar="ID", help="show it again")
    command.add_argument("--for", dest="span", metavar="TIME", type=_span, default=30 * 86400.0,
                         help="with --dismiss: 12h, 30d (default: 30d)")  # fmt: skip
    command.add_argument("--price", metavar="P", type=number, help="what a GiB-hour of device memory costs")


def _span(text: str) -> float:
    try:
        found = parse_seconds(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    if not 0 < found <= 10 * 366 * 86400:
        raise argparse.ArgumentTypeError(f"cannot put it off for {text}: up to ten years is expected")
    return found


def recommend(args: Namespace) -> Exit:
    from heliosd.wire import AdviceList

    chosen = [name for name in ("which", "apply", "dismiss", "restore") if getattr(args, name) is not None]
    if len(chosen) > 1:
        said = ", ".join("N" if name == "which" else f"--{name}" for name in chosen)
        raise Failure(f"cannot do several things at once: use one of {said}", Exit.USAGE)
    client = connect(args)
    if args.restore is not None:
        body = client.call("DELETE", f"{_PATH}/{quoted(args.restore)}/put_off")
        say(f"{body['id']} is shown again")
        show(args.output, body, lambda wide: body["id"])
        return Exit.OK
    query = {} if args.price is None else {"gib_hour_price": str(args.price)}
    body = client.get(_PATH, query)
    found = AdviceList.model_validate(body)
    if args.dismiss is not None:
        return _dismiss(args, client, _one(found, args.dismiss))
    if args.apply is not None:
        return _apply(args, client, _one(found, args.apply))
    if args.which is not None:
        one = _one(found, args.which)
        show(args.output, one.model_dump(), lambda wide: words(one))
        return Exit.OK
    show(args.output, body, lambda wide: listing(found, wide=wide))
    return Exit.OK


def _one(found: "AdviceList", which: str) -> "AdviceView":
    """By number or id. Raises Failure."""
    for at, each in enumerate(found.recommendations, 1):
        if which in (str(at), each.id):
            return each
    there = f"there are {len(found.recommendations)}" if found.recommendations else "nothing is recommended now"
    raise Failure(f"cannot find the recommendation {which}: {there}; `heliosctl recommend` lists them", Exit.NOT_FOUND)


def _dismiss(args: Namespace, client: Client, one: "AdviceView") -> Exit:
    body = client.call("PUT", f"{_PATH}/{quoted(one.id)}/put_off", {"for_s": args.span})
    say(f"not shown for {args.span / 86400:.3g} days: {one.title}; `heliosctl recommend --restore {one.id}` undoes it")
    show(args.output, body, lambda wide: one.id)
    return Exit.OK


def _apply(args: Namespace, client: Client, one: "AdviceView") -> Exit:
    say(f"{one.title}\n{difference(one)}")
    if not one.calls and not (one.settings and args.into):
        raise Failure(f"cannot carry out {one.id}: {_for_a_person(one)}")
    text = None
    if one.settings and args.into:
        before, text = changed(args.into, one.settings)
        say(diff(args.into, before, text))
    if not args.yes:
        if not sys.stdin.isatty():
            raise Failure(f"cannot carry out {one.id} unasked: say --yes", Exit.USAGE)
        say("carry it out? [y/N] ")
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            say("nothing was changed")
            return Exit.FAILED
    if text is not None:
        write(args.into, text)
        say(f"{args.into} is written; `systemctl reload heliosd` takes it over, and its log says what needs a restart")
    for call in one.calls:
        client.call(call.method, call.path, call.body)
    if one.settings and text is None:
        say(f"that is not all: {_for_a_person(one)}")
    say(f"done: {one.after}")
    show(args.output, one.model_dump(), lambda wide: one.id)
    return Exit.OK


def _for_a_person(one: "AdviceView") -> str:
    """What he has to do."""
    if not one.settings:
        return f"only a person can. {one.by_hand}"
    lines = "\n".join(f"  {each.key} = {toml(each.after)}" for each in one.settings)
    by_hand = f" Mind: {one.by_hand}." if one.by_hand else ""
    return (
        "it belongs into the configuration. --into FILE writes it into a file of its own, such as "
        f"/etc/helios/conf.d/90-advice.toml.{by_hand}\n{lines}"
    )


def difference(one: "AdviceView") -> str:
    """As `diff` shows it."""
    lines = [f"- {one.before}", f"+ {one.after}"]
    lines += [f"  {each.key}: {each.before} -> {toml(each.after)}" for each in one.settings]
    lines += [f"  {call.method} {call.path}" + (f" {call.body}" if call.body else "") for call in one.calls]
    return "\n".join(lines)


def words(one: "AdviceView") -> str:
    """All there is to say of one."""
    rows = [
        ("id", one.id),
        ("why", one.why),
        ("frees", f"{format_bytes(one.frees_bytes)} of {one.where} memory" if one.frees_bytes else ""),
        ("waiting", _waiting(one) if one.saves_s_per_day else ""),
        ("money", "" if one.money_per_month is None else f"{one.money_per_month:,.2f} a month"),
        *((each.name, each.value) for each in one.evidence),
        ("by hand", one.by_hand),
    ]
    return f"{one.title}\n\n{pairs(rows)}\n\n{difference(one)}"


def listing(found: "AdviceList", *, wide: bool) -> str:
    """A table, and why some rules say nothing."""
    rows = [
        (
            str(at),
            f"{format_bytes(each.frees_bytes)} {each.where}" if each.frees_bytes else "-",
            _waiting(each),
            "-" if each.money_per_month is None else f"{each.money_per_month:,.2f}/month",
            each.title,
            each.id,
        )
        for at, each in enumerate(found.recommendations, 1)
    ]
    lines = [table(_COLUMNS, rows, wide=wide) if rows else "nothing is recommended"]
    if any(each.money_per_month is not None for each in found.recommendations):
        lines.append(f"money: {found.gib_hour_price:.4f} for a GiB-hour, {found.price_source}")
    if found.put_off:
        lines.append(f"put off: {', '.join(each.id for each in found.put_off)}")
    lines += [f"{each.rule}: {each.why}" for each in found.quiet]
    return "\n".join(lines)


def _waiting(one: "AdviceView") -> str:
    if not one.saves_s_per_day:
        return "-"
    return f"{-one.saves_s_per_day:+.0f} s/day"
