"""Commands about what a model has meant: revisions, rollback, diff."""

import json
from argparse import Namespace
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from heliosctl.arguments import model_argument
from heliosctl.client import connect, failure_from, quoted
from heliosctl.exits import Exit, Failure
from heliosctl.output import Column, say, show, table
from heliosd.core.units import format_bytes

if TYPE_CHECKING:
    from heliosctl.parser import Commands
    from heliosd.wire import DifferenceView, RevisionList

_COLUMNS = (
    Column("REVISION"),
    Column("NOW"),
    Column("SINCE"),
    Column("SIZE", right=True),
    Column("OWN", right=True),
    Column("SHARED", right=True),
    Column("KEPT"),
    Column("WHY"),
    Column("USED BY", wide=True),
    Column("SOURCE", wide=True),
)
_SHOWN = 40
"""Lines of each kind of difference, unless all are asked for."""


def add(commands: "Commands") -> None:
    command = commands.add(
        "revisions",
        revisions,
        "list what a model means and has meant",
        ["heliosctl revisions org/name", "heliosctl run org/name@1a2b3c4d"],
        about="Each can be asked for as org/name@DIGITS, with at least 8 digits. OWN is what no other revision has.",
        listing=True,
    )
    model_argument(command)

    command = commands.add(
        "rollback",
        rollback,
        "let a model mean an earlier revision again",
        ["heliosctl rollback org/name", "heliosctl rollback org/name --to 1a2b3c4d"],
        about="Requests get it at once; the other revision finishes what it serves. Doing it again takes it back.",
        listing=True,
    )
    model_argument(command)
    command.add_argument("--to", metavar="REVISION", help="at least 8 digits of it (default: what it meant before)")

    command = commands.add(
        "diff",
        diff,
        "tell what differs between two revisions: files, tensors, configurations",
        ["heliosctl diff org/name", "heliosctl diff org/name@1a2b3c4d org/name", "heliosctl diff org/a org/b -o json"],
        about="With one model: what it meant before against what it means now.",
        listing=True,
    )
    command.add_argument("model", metavar="MODEL", help="org/name or org/name@DIGITS")
    command.add_argument("other", metavar="MODEL", nargs="?", help="what to compare it with")


def revisions(args: Namespace) -> Exit:
    from heliosd.wire import RevisionList

    body = connect(args).get(f"/helios/v1/models/{quoted(args.model)}/revisions")
    show(args.output, body, lambda wide: _revisions(RevisionList.model_validate(body), wide))
    return Exit.OK


def _revisions(found: "RevisionList", wide: bool) -> str:
    from heliosctl.times import ago

    rows = [
        (
            each.revision[:12],
            "*" if each.current else "",
            ago(each.at),
            format_bytes(each.size_bytes),
            format_bytes(each.own_bytes),
            format_bytes(each.shared_bytes),
            "yes" if each.kept else "no",
            each.why,
            ", ".join(each.used_by) or "-",
            each.source,
        )
        for each in found.revisions
    ]
    return table(_COLUMNS, rows, wide=wide)


def rollback(args: Namespace) -> Exit:
    from heliosd.wire import RolledBack

    body = connect(args).call("POST", f"/helios/v1/models/{quoted(args.model)}/rollback", {"to": args.to})
    done = RolledBack.model_validate(body)
    say(f"{done.model} means {done.revision[:12]} again, no longer {done.before[:12]}")
    show(args.output, body, lambda wide: done.revision)
    return Exit.OK


def diff(args: Namespace) -> Exit:
    from heliosd.wire import DifferenceView

    body = _compared(args)
    show(args.output, body, lambda wide: _difference(DifferenceView.model_validate(body), wide))
    return Exit.OK


def _compared(args: Namespace) -> Any:
    from heliosctl.progress import progress
    from heliosd.wire import ProgressView

    asked = {"model": args.model, "other": args.other}
    with connect(args).stream("POST", "/helios/v1/store/diff", asked) as stream, progress() as bar:
        for event in stream:
            match event.kind:
                case "progress":
                    bar(ProgressView.model_validate_json(event.data))
                case "error":
                    raise failure_from(event.data, None)
                case "done":
                    return json.loads(event.data)
    raise Failure(f"cannot compare {args.model}: heliosd ended the answer early; `heliosctl logs` may say why")


def _difference(found: "DifferenceView", whole: bool) -> str:
    parts = [f"from {found.before} to {found.after}"]
    files = [(_SIGN[file.change], file.path, _sizes(file.before_bytes, file.after_bytes)) for file in found.files]
    parts.append(_listed(f"files: {len(files)} differ, {found.equal_files} are the same", files, whole))
    keys = [
        (_SIGN[key.change], f"{key.file}: {key.key}", _values(key.change, key.before, key.after)) for key in found.keys
    ]
    if keys:
        parts.append(_listed(f"configurations: {len(keys)} keys differ", keys, whole))
    tensors = [
        (_SIGN.get(tensor.change, "~"), tensor.name, _tensor(tensor.change, tensor.before, tensor.after))
        for tensor in found.tensors
    ]
    if tensors or found.equal_tensors:
        parts.append(_listed(f"tensors: {len(tensors)} differ, {found.equal_tensors} are the same", tensors, whole))
    return "\n\n".join(parts)


_SIGN = {"added": "+", "removed": "-", "changed": "~"}


def _listed(title: str, rows: Iterable[tuple[str, str, str]], whole: bool) -> str:
    rows = list(rows)
    shown = rows if whole else rows[:_SHOWN]
    width = max((len(name) for _, name, _ in shown), default=0)
    lines = [f"  {sign} {name.ljust(width)}   {words}".rstrip() for sign, name, words in shown]
    if len(shown) < len(rows):
        lines.append(f"  and {len(rows) - len(shown)} more; -o wide shows all")
    return "\n".join([title, *lines])


def _sizes(before: int | None, after: int | None) -> str:
    known = [format_bytes(size) for size in (before, after) if size is not None]
    return " -> ".join(dict.fromkeys(known))


def _values(change: str, before: Any, after: Any) -> str:
    match change:
        case "added":
            return json.dumps(after)
        case "removed":
            return json.dumps(before)
        case _:
            return f"{json.dumps(before)} -> {json.dumps(after)}"


def _tensor(change: str, before: str | None, after: str | None) -> str:
    if before is None or after is None or change == "bytes":
        return f"{after or before}" + (", other values" if change == "bytes" else "")
    return f"{before} -> {after}"
