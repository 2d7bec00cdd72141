"""Commands about this machine: gpus, doctor, top, version, completion."""

import os
import sys
from argparse import Namespace
from typing import TYPE_CHECKING, Any

from heliosctl.client import Client, connect
from heliosctl.exits import Exit, Failure
from heliosctl.output import Column, pairs, show, table, watch
from heliosd import __version__
from heliosd.core.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from heliosctl.parser import Commands
    from heliosd.wire import CheckView, DeviceView, ExhaustionView, SpaceView, StorageView

_DEVICES = (
    Column("DEVICE"),
    Column("NAME"),
    Column("CAPACITY", right=True),
    Column("WEIGHTS", right=True),
    Column("KV CACHE", right=True),
    Column("OVERHEAD", right=True),
    Column("FOREIGN", right=True),
    Column("FREE", right=True),
    Column("BUSY", right=True),
    Column("FULL IN", right=True),
    Column("SAFETY", wide=True, right=True),
    Column("MEASURED", wide=True, right=True),
    Column("USED", wide=True, right=True),
    Column("KIND", wide=True),
    Column("TEMP", wide=True, right=True),
    Column("POWER", wide=True, right=True),
    Column("ECC", wide=True, right=True),
    Column("PCIE", wide=True),
    Column("DRIVER", wide=True),
)


_SPACES = (Column("SPACE"), Column("USED", right=True), Column("LEFT", right=True), Column("FULL IN", right=True))
_SPEEDS = (
    Column("METHOD"),
    Column("FROM DISK", right=True),
    Column("FROM CACHE", right=True),
    Column("NOTE"),
)


def add(commands: "Commands") -> None:
    commands.add(
        "gpus",
        gpus,
        "list the devices and who has their memory",
        ["heliosctl gpus", "heliosctl gpus -o wide"],
        about="WEIGHTS, KV CACHE and OVERHEAD are promised to replicas; FREE may still be promised. FULL IN: as it "
        "fills now; with ~ if all comes that is likely to be asked for. -o wide adds disks and host memory.",
        aliases=["devices"],
        listing=True,
        watchable=True,
    )
    command = commands.add(
        "doctor",
        doctor,
        "check the daemon, its engines, devices and store, and say what to do",
        ["heliosctl doctor", "heliosctl doctor --storage", "heliosctl doctor --bundle"],
        about="Ends with 1 when a check fails.",
        listing=True,
    )
    command.add_argument(
        "--storage",
        action="store_true",
        help="instead measure how fast weights can be loaded from the store, each way; takes seconds to minutes",
    )
    command.add_argument(
        "--bundle",
        metavar="FILE.tar.gz",
        nargs="?",
        const="",
        help="instead write all that helps to help into one archive, without secrets and prompts",
    )
    command = commands.add(
        "top",
        top,
        "watch devices, replicas, models, queue and events live, and act on them",
        ["heliosctl top", "heliosctl top --screen models --read-only", "heliosctl top --once --size 160x48"],
        about="`?` there shows the keys.",
    )
    command.add_argument(
        "--screen",
        choices=("top", "devices", "replicas", "models", "queue", "events", "keys", "cluster", "capacity"),
        help="the screen to begin with",
    )
    command.add_argument("--read-only", action="store_true", help="only watch: nothing can be changed")
    command.add_argument("--once", action="store_true", help="print one frame as text and leave")
    command.add_argument("--size", metavar="WxH", help="of that frame; default: the terminal's, or 80x24")
    commands.add(
        "version",
        version,
        "print the versions of heliosctl and the daemon",
        ["heliosctl version -o json"],
        listing=True,
    )
    command = commands.add(
        "completion",
        completion,
        "print a shell's completion script",
        [
            "source <(heliosctl completion bash)",
            "source <(heliosctl completion zsh)",
            "heliosctl completion fish > ~/.config/fish/completions/heliosctl.fish",
        ],
    )
    command.add_argument("shell", choices=("bash", "zsh", "fish"), help="bash, zsh or fish")


def gpus(args: Namespace) -> Exit:
    from heliosd.wire import DeviceView, SpaceView

    client = connect(args)

    def draw() -> None:
        body = client.get("/helios/v1/devices")
        devices = [DeviceView.model_validate(row) for row in body["devices"]]
        spaces = [SpaceView.model_validate(row) for row in body.get("spaces", [])]
        show(args.output, body, lambda wide: _devices(devices, spaces, wide))

    watch(args, client, draw)
    return Exit.OK


def _devices(devices: "list[DeviceView]", spaces: "list[SpaceView]", wide: bool) -> str:
    text = table(_DEVICES, [_row(device) for device in devices], wide=wide)
    if spaces and wide:
        rows = [
            (each.name, format_bytes(each.used_bytes), format_bytes(each.left_bytes), full_in(each.exhaustion))
            for each in spaces
        ]
        text += "\n\n" + table(_SPACES, rows)
    return "\n\n".join([text, *(f"{device.id}: {why}" for device in devices if (why := _out(device)))])


def _out(device: "DeviceView") -> str | None:
    """Why nothing is started there."""
    taken_out = f"drained: nothing is started there until `heliosctl undrain {device.id}`" if device.drained else None
    return device.fault or taken_out


def full_in(seen: "ExhaustionView | None") -> str:
    """When something will be full; `~`: if what is likely to be asked for is."""
    if seen is None:
        return "-"
    return f"{'~' if seen.basis == 'forecast' else ''}{format_seconds(seen.after_s)}"


def _row(device: "DeviceView") -> tuple[str, ...]:
    return (
        device.id,
        device.name,
        format_bytes(device.capacity_bytes),
        format_bytes(device.weights_bytes),
        format_bytes(device.kv_cache_bytes),
        format_bytes(device.promised_bytes - device.weights_bytes - device.kv_cache_bytes),
        format_bytes(device.foreign_bytes),
        format_bytes(device.free_bytes),
        "-" if device.utilization_ratio is None else f"{device.utilization_ratio:.0%}",
        full_in(device.exhaustion),
        format_bytes(device.safety_bytes),
        format_bytes(device.measured_bytes),
        format_bytes(device.used_bytes),
        device.kind,
        "-" if device.temperature_c is None else f"{device.temperature_c:.0f}°C",
        "-" if device.power_w is None else f"{device.power_w:.0f} W",
        "-" if device.ecc_errors is None else str(device.ecc_errors),
        device.pcie or "-",
        device.driver_version or "-",
    )


def doctor(args: Namespace) -> Exit:
    from heliosd.wire import CheckView

    if args.storage:
        return _storage(args)
    if args.bundle is not None:
        from heliosctl.bundle import bundle

        return bundle(args)

    client, found = _first_look(args)
    body: dict[str, Any] = {"checks": [check.model_dump(mode="json") for check in found]}
    if client is not None:
        body["checks"] += client.get("/helios/v1/doctor")["checks"]
    checks = [CheckView.model_validate(row) for row in body["checks"]]
    show(args.output, body, lambda wide: "\n".join(_finding(check) for check in checks))
    if client is None:
        return Exit.UNREACHABLE
    return Exit.OK if all(check.ok for check in checks) else Exit.FAILED


def _storage(args: Namespace) -> Exit:
    from heliosd.wire import StorageView

    body = connect(args).call("POST", "/helios/v1/doctor/storage")
    found = StorageView.model_validate(body)
    show(args.output, body, lambda wide: _speeds(found))
    return Exit.OK


def _speeds(found: "StorageView") -> str:
    def speed(value: float | None) -> str:
        return "-" if value is None else f"{format_bytes(int(value))}/s"

    rows = [
        (each.method, speed(each.cold_bytes_per_s), speed(each.warm_bytes_per_s), each.note or "")
        for each in found.speeds
    ]
    return (
        f"{table(_SPEEDS, rows)}\n\nmeasured with {found.file}, {format_bytes(found.size_bytes)}; "
        f"engines load with {found.load_format} from now on, where no load_format is set"
    )


def _first_look(args: Namespace) -> "tuple[Client | None, list[CheckView]]":
    """What only the client can tell: whether there is a daemon, and whether it is of the same version."""
    from heliosd.wire import CheckView, NodeView

    try:
        client = connect(args)
        node = NodeView.model_validate(client.get("/helios/v1/node"))
    except Failure as failure:
        if failure.exit_code is not Exit.UNREACHABLE:
            raise
        return None, [CheckView(name="daemon", ok=False, message=failure.message)]
    reached = CheckView(
        name="daemon", ok=True, message=f"{node.name} is {node.state} at {client.place}, pid {node.pid}"
    )
    same = node.version == __version__
    versions = CheckView(
        name="version",
        ok=same,
        message=f"heliosctl {__version__}, heliosd {node.version}",
        advice=None if same else "restart heliosd after an update, or update heliosctl",
    )
    return client, [reached, versions]


def _finding(check: "CheckView") -> str:
    line = f"{'ok  ' if check.ok else 'BAD '} {check.name}: {check.message}"
    return f"{line}\n     -> {check.advice}" if check.advice else line


def top(args: Namespace) -> Exit:
    # A process of its own: heliosctl never loads the screen's library, which alone takes longer than `--help` may.
    words = [sys.executable, "-m", "tui"]
    for flag, value in (("--socket", args.socket), ("--url", args.url), ("--key", args.key)):
        words += [flag, value] if value else []
    words += ["--screen", args.screen] if args.screen else []
    words += ["--size", args.size] if args.size else []
    words += ["--once"] if args.once else []
    words += ["--read-only"] if args.read_only else []
    sys.stdout.flush()
    os.execv(words[0], words)


def version(args: Namespace) -> Exit:
    daemon: str | None = None
    try:
        daemon = str(connect(args).get("/helios/v1/node")["version"])
    except Failure as failure:
        if failure.exit_code is not Exit.UNREACHABLE:
            raise
    body = {"heliosctl": __version__, "heliosd": daemon}
    show(args.output, body, lambda wide: pairs([("heliosctl", __version__), ("heliosd", daemon or "not running")]))
    return Exit.OK


def completion(args: Namespace) -> Exit:
    from heliosctl.completion import script
    from heliosctl.parser import build_parser

    print(script(args.shell, build_parser()), end="")
    return Exit.OK
