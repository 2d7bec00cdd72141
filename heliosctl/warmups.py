"""Commands about what engines compiled: warmups ls, export, import, rm."""

import os
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heliosctl.client import connect, quoted
from heliosctl.exits import Exit, Failure
from heliosctl.output import Column, say, show, table
from heliosd.core.units import format_bytes

if TYPE_CHECKING:
    from heliosctl.parser import Commands

_COLUMNS = (
    Column("KEY"),
    Column("REVISION"),
    Column("ENGINE"),
    Column("DEVICE"),
    Column("FILES", right=True),
    Column("SIZE", right=True),
    Column("ARGUMENTS", wide=True),
)
_PATH = "/helios/v1/warmups"


def add(commands: "Commands") -> None:
    from heliosctl.parser import Commands as Below

    group = commands.add("warmups", None, "look at what engines compiled, and pass it on", ["heliosctl warmups ls"])
    below = Below(group)
    below.add(
        "ls",
        ls,
        "list what is kept for the next start of a model",
        ["heliosctl warmups ls", "heliosctl warmups ls -o wide"],
        listing=True,
    )
    command = below.add(
        "export",
        export,
        "pack one for a node with the same engine and devices",
        ["heliosctl warmups export 3fa9 warm.tar"],
    )
    command.add_argument("key", metavar="KEY", help="its key, or the beginning of it")
    command.add_argument("file", metavar="FILE", help="the tar file to write; must not exist")
    command = below.add(
        "import",
        take_in,
        "take in what another node packed",
        ["heliosctl warmups import warm.tar"],
        about="It holds code that engines will run: take it from nodes that you trust.",
        listing=True,
    )
    command.add_argument("file", metavar="FILE", help="the tar file")
    command = below.add("rm", rm, "forget one; the next start compiles again", ["heliosctl warmups rm 3fa9"])
    command.add_argument("key", metavar="KEY", help="its key, or the beginning of it")


def ls(args: Namespace) -> Exit:
    body = connect(args).get(_PATH)
    show(args.output, body, lambda wide: table(_COLUMNS, [_row(each) for each in body["warmups"]], wide=wide))
    return Exit.OK


def _row(warmup: Any) -> tuple[str, ...]:
    facts = warmup["facts"]
    return (
        warmup["key"][:12],
        facts.get("revision", "-")[:12],
        facts.get("engine", "-"),
        facts.get("device", "-"),
        str(warmup["files"]),
        format_bytes(warmup["size_bytes"]),
        facts.get("arguments", "-"),
    )


def export(args: Namespace) -> Exit:
    file = Path(args.file)
    part = file.with_name(file.name + ".part")
    if file.exists():
        raise Failure(f"cannot write {file}: it is there already", Exit.USAGE)
    try:
        with part.open("wb") as out:
            connect(args).download(f"{_PATH}/{quoted(args.key)}", out)
            size_bytes = out.tell()
        part.rename(file)
    except OSError as error:
        raise Failure(f"cannot write {file}: {os.strerror(error.errno or 0).lower()}") from error
    finally:
        part.unlink(missing_ok=True)
    say(f"{file} has {format_bytes(size_bytes)}; `heliosctl warmups import {file.name}` takes it in elsewhere")
    return Exit.OK


def take_in(args: Namespace) -> Exit:
    try:
        content = Path(args.file).open("rb")  # noqa: SIM115 - closed below
    except OSError as error:
        raise Failure(f"cannot read {args.file}: {os.strerror(error.errno or 0).lower()}", Exit.USAGE) from error
    with content:
        body = connect(args).upload(_PATH, content)
    say(f"taken in: {body['files']} files, {format_bytes(body['size_bytes'])}")
    show(args.output, body, lambda wide: str(body["key"][:12]))
    return Exit.OK


def rm(args: Namespace) -> Exit:
    body = connect(args).call("DELETE", f"{_PATH}/{quoted(args.key)}")
    say(f"forgotten: {body['key'][:12]}, {format_bytes(body['size_bytes'])}")
    return Exit.OK
