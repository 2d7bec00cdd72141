"""Commands about the store's room on the disk: cache du, share."""

from argparse import Namespace
from typing import TYPE_CHECKING

from heliosctl.client import connect
from heliosctl.exits import Exit
from heliosctl.output import Column, say, show, table
from heliosd.core.units import format_bytes

if TYPE_CHECKING:
    from heliosctl.parser import Commands
    from heliosd.wire import CacheView

_COLUMNS = (
    Column("MODEL"),
    Column("LOGICAL", right=True),
    Column("ALONE", right=True),
    Column("SHARED", right=True),
    Column("RM FREES", right=True),
)


def add(commands: "Commands") -> None:
    from heliosctl.parser import Commands as Below

    group = commands.add("cache", None, "see and shrink what models take on the disk", ["heliosctl cache du"])
    below = Below(group)
    below.add(
        "du",
        du,
        "show what each model takes on the disk, and what removing it would free",
        ["heliosctl cache du", "heliosctl cache du -o json"],
        about="LOGICAL counts a model's files as if nothing was shared; ALONE is on the disk for it only, SHARED for "
        "others too.",
        listing=True,
    )
    below.add(
        "share",
        share,
        "look through the whole store for tensors that models have in common, and keep them once",
        ["heliosctl cache share"],
        about="The daemon does so by itself after each addition, unless store.share is false.",
        listing=True,
    )


def du(args: Namespace) -> Exit:
    from heliosd.wire import CacheView

    body = connect(args).get("/helios/v1/cache")
    show(args.output, body, lambda wide: _usage(CacheView.model_validate(body), wide))
    return Exit.OK


def _usage(view: "CacheView", wide: bool) -> str:
    rows = [
        (
            model.ref,
            format_bytes(model.logical_bytes),
            format_bytes(model.alone_bytes),
            format_bytes(model.shared_bytes),
            format_bytes(model.frees_bytes),
        )
        for model in view.models
    ]
    total = f"{format_bytes(view.logical_bytes)} of models take {format_bytes(view.physical_bytes)} of disk"
    if view.logical_bytes:
        total += f" ({view.ratio:.0%})"
    if view.whole_bytes:
        total += f", and {format_bytes(view.whole_bytes)} for engines that read whole files only"
    return f"{table(_COLUMNS, rows, wide=wide)}\n\n{total}"


def share(args: Namespace) -> Exit:
    from heliosd.wire import SharedView

    body = connect(args).call("POST", "/helios/v1/cache/share")
    found = SharedView.model_validate(body)
    say(f"{found.files} files of {format_bytes(found.logical_bytes)} were reduced to what they alone have")
    if found.in_use:
        say(f"{found.in_use} files are in use and stay as they are; they are looked at again when they no longer are")
    show(args.output, body, lambda wide: f"{format_bytes(found.freed_bytes)} are free again")
    return Exit.OK
