"""The command plan: which models could share which devices, before anything is bought or started."""

import re
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heliosctl.arguments import count
from heliosctl.client import connect
from heliosctl.exits import Exit, Failure
from heliosctl.output import Column, show, table
from heliosd.core.units import format_bytes

if TYPE_CHECKING:
    from heliosctl.parser import Commands
    from heliosd.wire import PlacedView, PlanView

_PATH = "/helios/v1/plan"
_SEVERAL = re.compile(r"(\d+)x(.+)")
MOST_GPUS = 64


def add(commands: "Commands") -> None:
    command = commands.add(
        "plan",
        plan,
        "what if these models shared those GPUs",
        [
            "heliosctl plan --models org/a,org/b",
            "heliosctl plan --models org/a,./config.json --gpus 2xH100,L40S --context 32768 --concurrency 16",
            "heliosctl plan --models org/a=10,hub:org/b --gpus 4xH200 -o json",
        ],
        about="MODEL=WORTH says what counts more when not all fit. Ends with 6 when something is left over.",
        listing=True,
    )
    command.add_argument(
        "--models",
        metavar="A,B",
        required=True,
        help="models of the store, a config.json or its directory, or hub:org/name; each with =WORTH if you like",
    )
    command.add_argument("--gpus", metavar="A,NxB", help="H100, 2xL40S, 'MIG 1g.10gb'; default: what is here")
    command.add_argument("--context", type=count, metavar="TOKENS", help="longest request of each model")
    command.add_argument("--concurrency", type=count, metavar="N", help="such requests at once, of each model")
    command.add_argument("--precision", metavar="P", help="of all weights: fp32, bf16, fp16, fp8, int8, int4 or fp4")
    command.add_argument("--replicas", type=count, metavar="N", help="of each model")


def plan(args: Namespace) -> Exit:
    from heliosctl.bars import plain_output
    from heliosd.wire import PlanView

    asked = {
        "models": [_model(text, args) for text in args.models.split(",") if text],
        **({"gpus": gpus_of(args.gpus)} if args.gpus else {}),
    }
    body = connect(args).call("POST", _PATH, asked)
    view = PlanView.model_validate(body)
    show(args.output, body, lambda wide: words(view, plain=plain_output()))
    return Exit.CANNOT_FIT if view.left else Exit.OK


def gpus_of(text: str) -> list[str]:
    """`2xH100,L40S` is H100, H100 and L40S. Raises Failure."""
    found: list[str] = []
    for each in filter(None, (part.strip() for part in text.split(","))):
        several = _SEVERAL.fullmatch(each)
        times, name = (int(several[1]), several[2]) if several else (1, each)
        if not 0 < times <= MOST_GPUS - len(found):
            raise Failure(f"cannot plan for {text}: from 1 to {MOST_GPUS} GPUs can be asked about", Exit.USAGE)
        found += [name] * times
    return found


def _model(text: str, args: Namespace) -> dict[str, Any]:
    from heliosctl.estimate_request import local_path, read_local

    name, equals, worth = text.rpartition("=")
    if not equals:
        name = text
    if name.startswith("hub:"):
        subject: dict[str, Any] = {"hub": name.removeprefix("hub:")}
    elif (path := local_path(name)) is not None:
        subject = {**read_local(path), "name": _called(path)}
    else:
        subject = {"model": name}
    limits = {
        "context": args.context,
        "concurrency": args.concurrency,
        "precision": args.precision,
        "replicas": args.replicas,
        "worth": _worth(text, worth) if equals else None,
    }
    return subject | {name: value for name, value in limits.items() if value is not None}


def _called(path: Path) -> str:
    """By its file, or by its directory where the file is called like all of them."""
    whole = path.resolve()
    return whole.parent.name if whole.name == "config.json" else whole.stem if whole.suffix == ".json" else whole.name


def _worth(text: str, worth: str) -> float:
    try:
        found = float(worth)
    except ValueError:
        found = 0.0
    if not 0 < found < 1e12:
        raise Failure(f"cannot read {text!r}: after = a worth above zero is expected", Exit.USAGE)
    return found


def _staged(placed: "PlacedView") -> str:
    """`gpu0+gpu1 -> gpu2+gpu3`: the devices of each pipeline stage."""
    size = max(1, len(placed.devices) // placed.pipeline_parallel)
    return " -> ".join("+".join(placed.devices[at : at + size]) for at in range(0, len(placed.devices), size))


def words(view: "PlanView", *, plain: bool) -> str:
    """A bar for each device, a table of what lies there, and why the rest does not."""
    from heliosctl.bars import Part, bar

    where = {each.model: each for each in view.placed}
    blocks = []
    for device in view.devices:
        parts = [Part(name, where[name].committed_bytes) for name in device.models]
        head = (
            f"{device.name} ({device.gpu}): {format_bytes(device.committed_bytes)} of "
            f"{format_bytes(device.capacity_bytes)} committed"
        )
        blocks.append(f"{head}\n{bar(parts, 0, device.capacity_bytes, plain=plain)}")
    columns = [
        Column("MODEL"),
        Column("DEVICES"),
        Column("NEEDS", right=True),
        Column("KV CACHE", right=True),
        Column("CONTEXT", right=True),
        Column("AT ONCE", right=True),
    ]
    rows = [
        (
            each.model,
            _staged(each),
            format_bytes(each.needed_bytes),
            format_bytes(each.kv_cache_bytes),
            f"{each.context:,}",
            f"{each.concurrency:,}",
        )
        for each in view.placed
    ]
    blocks.append(table(columns, rows) if rows else "nothing fits")
    if view.left:
        blocks.append("left over:\n" + "\n".join(f"- {each.model}: {each.reason}" for each in view.left))
    blocks.append(f"committed: {view.committed_ratio:.1%} of all devices")
    return "\n\n".join(blocks)
