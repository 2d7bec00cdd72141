"""How listings leave on stdout: as a table for people, or as the API's own body for programs."""

import json
import sys
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from heliosctl.client import Client
from heliosctl.yaml_text import to_yaml

FORMATS = ("table", "wide", "json", "yaml")
_CLEAR = "\x1b[H\x1b[2J"


@dataclass(frozen=True, slots=True)
class Column:
    title: str
    wide: bool = False
    """Only with `-o wide`."""
    right: bool = False


def table(columns: Sequence[Column], rows: Iterable[Sequence[str]], *, wide: bool = False) -> str:
    """Align `rows` under the columns' titles; the last column is not padded."""
    chosen = [number for number, column in enumerate(columns) if wide or not column.wide]
    grid = [[columns[number].title for number in chosen]]
    grid += [[row[number] for number in chosen] for row in rows]
    widths = [max(len(line[place]) for line in grid) for place in range(len(chosen))]
    rights = [columns[number].right for number in chosen]
    return "\n".join(_aligned(line, widths, rights) for line in grid)


def _aligned(line: Sequence[str], widths: Sequence[int], rights: Sequence[bool]) -> str:
    cells = [
        cell.rjust(width) if right else cell.ljust(width)
        for cell, width, right in zip(line, widths, rights, strict=True)
    ]
    return "   ".join(cells).rstrip()


def pairs(rows: Iterable[tuple[str, str]]) -> str:
    """Name and value, one a line; rows without a value are left out."""
    shown = [(name, value) for name, value in rows if value]
    width = max((len(name) for name, _ in shown), default=0)
    return "\n".join(f"{name.ljust(width)}   {value}" for name, value in shown)


def show(form: str, body: Any, human: Callable[[bool], str]) -> None:
    """Print `body` as json or yaml, or else `human(wide)`."""
    match form:
        case "json":
            print(json.dumps(body, indent=2, ensure_ascii=False))
        case "yaml":
            print(to_yaml(body), end="")
        case _:
            print(human(form == "wide"))


def watch(args: Namespace, client: Client, draw: Callable[[], None]) -> None:
    """Draw once; with `--watch` again after every change the daemon tells of, until Ctrl-C."""
    if not args.watch:
        draw()
        return
    for _ in snapshots(client):
        if sys.stdout.isatty():
            print(_CLEAR, end="")
        draw()
        sys.stdout.flush()


def snapshots(client: Client) -> Iterator[str]:
    """The feed's snapshots as JSON text: one at once, one after each change."""
    query = {"follow": 1, "snapshots": 1, "limit": 1}
    with client.stream("GET", "/helios/v1/events", query=query) as stream:
        for event in stream:
            if event.kind == "snapshot":
                yield event.data


def say(text: str) -> None:
    """Talk to the person: stderr, because stdout is data."""
    print(text, file=sys.stderr, flush=True)
