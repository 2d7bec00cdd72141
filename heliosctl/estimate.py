"""The command estimate: what a model would take, whether it is to be had, and what it was measured to take."""

import argparse
from argparse import Namespace
from typing import TYPE_CHECKING

from heliosctl.client import Client, connect
from heliosctl.exits import Exit
from heliosctl.figures import PARTS, against
from heliosctl.output import Column, pairs, show, table
from heliosd.core.units import format_bytes, parse_bytes

if TYPE_CHECKING:
    from heliosctl.parser import Commands
    from heliosd.wire import EstimateView, FootprintView


def add(commands: "Commands") -> None:
    command = commands.add(
        "estimate",
        estimate,
        "predict the memory a model takes, before anything is loaded",
        ["heliosctl estimate org/name", "heliosctl estimate org/name --max-model-len 8192 --kv-cache 4GiB"],
        about="Ends with 6 when it can never fit here.",
        listing=True,
    )
    command.add_argument("model", metavar="MODEL", help="org/name, org/name@rev or an alias")
    command.add_argument("--max-model-len", type=_count, metavar="TOKENS", help="longest sequence")
    command.add_argument("--kv-cache", type=_bytes, metavar="SIZE", help="size of the KV cache, such as 4GiB")
    command.add_argument("--max-num-seqs", type=_count, metavar="N", help="most sequences at a time")


def estimate(args: Namespace) -> Exit:
    from heliosd.wire import EstimateView

    client = connect(args)
    asked = {
        "model": args.model,
        "max_model_len": args.max_model_len,
        "kv_cache_bytes": args.kv_cache,
        "max_num_seqs": args.max_num_seqs,
    }
    body = client.call(
        "POST", "/helios/v1/estimate", {name: value for name, value in asked.items() if value is not None}
    )
    view = EstimateView.model_validate(body)
    show(args.output, body, lambda wide: _words(view, _measured(client, view.model)))
    return Exit.CANNOT_FIT if view.verdict == "never_fits" else Exit.OK


def _measured(client: Client, model: str) -> "FootprintView | None":
    """What a replica that is up was measured to hold; None when there is none."""
    from heliosd.wire import ReplicaView

    replicas = [ReplicaView.model_validate(row) for row in client.get("/helios/v1/replicas")["replicas"]]
    return next((replica.measured for replica in replicas if replica.model == model and replica.measured), None)


def _words(view: "EstimateView", measured: "FootprintView | None") -> str:
    columns = [Column("PER DEVICE"), Column("PREDICTED", right=True)]
    rows = [[name, format_bytes(getattr(view.per_device, field))] for name, field in PARTS]
    if measured is not None:
        columns += [Column("MEASURED", right=True), Column("DIFFERENCE", right=True)]
        for row, (_, field) in zip(rows, PARTS, strict=True):
            row.extend(against(getattr(view.per_device, field), getattr(measured, field)))
    facts = [
        ("devices", str(view.device_count)),
        ("context", f"{view.max_model_len} tokens"),
        ("KV cache", f"{view.kv_tokens} tokens of {format_bytes(view.kv_bytes_per_token)}"),
        ("verdict", f"{view.verdict.replace('_', ' ')}: {view.reason}"),
        *(("note", note) for note in view.notes),
    ]
    return f"{view.model}\n\n{table(columns, rows)}\n\n{pairs(facts)}"


def _bytes(text: str) -> int:
    try:
        return parse_bytes(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"cannot read {text!r}: a whole number above zero is expected")
    return int(text)
