"""Commands about what runs: ps, load, stop."""

from argparse import Namespace
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from heliosctl.arguments import model_argument
from heliosctl.changing import plan_each
from heliosctl.client import connect, quoted
from heliosctl.exits import Exit, Failure
from heliosctl.output import Column, say, show, table, watch
from heliosd.core.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from heliosctl.parser import Commands
    from heliosd.wire import QueueView, ReplicaView

_REPLICAS = (
    Column("MODEL"),
    Column("REPLICA"),
    Column("STATE"),
    Column("LEASES", right=True),
    Column("MEMORY", right=True),
    Column("IDLE", right=True),
    Column("KEPT", right=True),
    Column("DEVICES"),
    Column("PREDICTED", wide=True, right=True),
    Column("CONTEXT", wide=True, right=True),
    Column("STARTED IN", wide=True, right=True),
    Column("PIDS", wide=True),
    Column("TASKS", wide=True),
    Column("RAM", wide=True, right=True),
    Column("GROWS/H", wide=True, right=True),
    Column("LEAK", wide=True),
)
_QUEUE = (Column("WAITS FOR"), Column("TICKET"), Column("SINCE", right=True), Column("BECAUSE"))


def add(commands: "Commands") -> None:
    command = commands.add(
        "ps",
        ps,
        "list the replicas that run, and the requests that wait",
        ["heliosctl ps", "heliosctl ps -w", "heliosctl ps -o json"],
        about="MEMORY is measured; with ~ it is still the prediction.",
        listing=True,
        watchable=True,
    )
    command.add_argument("-q", "--quiet", action="store_true", help="replica ids only")

    command = commands.add(
        "load",
        load,
        "start a replica of a model and wait until it is ready",
        ["heliosctl load org/name", "heliosctl load org/name --timeline"],
        listing=True,
    )
    model_argument(command)
    command.add_argument("--timeline", action="store_true", help="tell each phase as it ends, then show all as a chart")

    command = commands.add(
        "stop",
        stop,
        "stop a replica, or all replicas of a model, once their requests are done",
        ["heliosctl stop org/name", "heliosctl stop --all"],
        listing=True,
    )
    command.add_argument("subject", metavar="MODEL|REPLICA", nargs="*", help="what to stop")
    command.add_argument("--all", action="store_true", help="every replica")

    command = commands.add(
        "sleep",
        sleep,
        "let a replica, or all replicas of a model, give its memory back and stay at hand",
        ["heliosctl sleep org/name"],
        about="What sleeps wakes with its next request, in a second or so. Engines on the CPU cannot sleep.",
        listing=True,
    )
    command.add_argument("subject", metavar="MODEL|REPLICA", help="what shall sleep")

    command = commands.add(
        "wake", wake, "wake a model, or start it where it does not sleep", ["heliosctl wake org/name"], listing=True
    )
    model_argument(command)


def ps(args: Namespace) -> Exit:
    from heliosd.wire import QueueView, ReplicaView

    client = connect(args)

    def draw() -> None:
        body = client.get("/helios/v1/replicas")
        replicas = [ReplicaView.model_validate(row) for row in body["replicas"]]
        queue = [QueueView.model_validate(row) for row in body["queue"]]
        if args.quiet:
            print(*(replica.id for replica in replicas), sep="\n", end="\n" if replicas else "")
        else:
            show(args.output, body, lambda wide: _running(replicas, queue, wide))

    watch(args, client, draw)
    return Exit.OK


def _running(replicas: "list[ReplicaView]", queue: "list[QueueView]", wide: bool) -> str:
    text = table(_REPLICAS, [_row(replica) for replica in replicas], wide=wide)
    if queue:
        rows = [(entry.model, entry.ticket, format_seconds(entry.waiting_s), entry.reason) for entry in queue]
        text += "\n\n" + table(_QUEUE, rows)
    return text


def _row(replica: "ReplicaView") -> tuple[str, ...]:
    measured = replica.measured
    predicted = format_bytes(replica.predicted.total_bytes)
    pinned = " (pinned)" if replica.pinned else ""
    return (
        replica.model,
        replica.id,
        replica.state + pinned,
        str(replica.leases),
        format_bytes(measured.total_bytes) if measured else f"~{predicted}",
        "-" if replica.leases else format_seconds(replica.idle_s),
        "for ever" if replica.keep_alive_s is None else format_seconds(replica.keep_alive_s),
        ",".join(replica.devices),
        predicted,
        str(replica.max_model_len or "-"),
        format_seconds(sum(replica.phases.values())) if replica.phases else "-",
        ",".join(map(str, replica.pids)) or "-",
        ",".join(replica.tasks) or "-",
        *_memory(replica),
    )


def _memory(replica: "ReplicaView") -> tuple[str, str, str]:
    it = replica.memory
    if it is None:
        return "-", "-", "-"
    ram = "-" if it.pss_bytes is None else format_bytes(it.pss_bytes)
    grows = format_bytes(int(it.slope_bytes_per_s * 3600)) if it.slope_bytes_per_s else "-"
    return ram, grows, "yes" if it.suspected else "-"


def sleep(args: Namespace) -> Exit:
    body = connect(args).call("POST", f"/helios/v1/sleep/{quoted(args.subject)}")
    show(args.output, body, lambda wide: "\n".join(body["asleep"]))
    return Exit.OK


def wake(args: Namespace) -> Exit:
    return _loaded(args, connect(args).call("POST", "/helios/v1/replicas", {"model": args.model}))


def load(args: Namespace) -> Exit:
    if not args.timeline:
        return wake(args)
    from heliosctl.timeline import chart_of, load_watched

    replica, timeline = load_watched(connect(args), args.model)
    if timeline is None:
        return _loaded(args, replica)
    show(args.output, timeline, lambda wide: chart_of(timeline))
    return Exit.OK


def _loaded(args: Namespace, body: Any) -> Exit:
    from heliosd.wire import ReplicaView

    replica = ReplicaView.model_validate(body)
    held = replica.measured or replica.predicted
    say(
        f"{replica.model} is ready as {replica.id} on {', '.join(replica.devices)}: "
        f"{format_bytes(held.total_bytes)} per device"
    )
    if replica.phases:
        say(f"started in {phases_line(replica.phases)}")
    show(args.output, body, lambda wide: _running([replica], [], wide) if wide else replica.id)
    return Exit.OK


def phases_line(phases: Mapping[str, float]) -> str:
    """`1.9 s: fork 40 ms, load 1.1 s, …`, in the order they happened."""
    parts = ", ".join(f"{name} {format_seconds(span_s)}" for name, span_s in phases.items())
    return f"{format_seconds(sum(phases.values()))}: {parts}"


def stop(args: Namespace) -> Exit:
    if bool(args.subject) == args.all:
        raise Failure("cannot tell what to stop: name models or replicas, or say --all (not both)", Exit.USAGE)
    client = connect(args)
    subjects = args.subject
    if args.all:
        subjects = [replica["id"] for replica in client.get("/helios/v1/replicas")["replicas"]]
    if args.dry_run:
        return plan_each(args, client, (("DELETE", f"/helios/v1/replicas/{quoted(each)}") for each in subjects))
    stopped: list[str] = []
    for subject in subjects:
        try:
            stopped += client.call("DELETE", f"/helios/v1/replicas/{quoted(subject)}")["stopped"]
        except Failure as failure:
            # With --all it may have stopped of itself since the list was made; that is what was wanted.
            if not (args.all and failure.exit_code is Exit.NOT_FOUND):
                raise
    if not stopped:
        say("nothing ran")
    show(args.output, {"stopped": stopped}, lambda wide: "\n".join(stopped)) if stopped else None
    return Exit.OK
