"""Replicas, queue, events and the node as words. Pure: views in, text out; ages are told, not asked for."""

from datetime import datetime

from rich.text import Text

from heliosd.core.units import format_bytes, format_seconds
from heliosd.wire import EventView, NodeView, QueueView, ReplicaView

REPLICA_COLUMNS = ("MODEL", "STATE", "LEASES", "MEMORY", "IDLE", "STOPS IN", "DEVICES", "REPLICA")
QUEUE_COLUMNS = ("WAITS FOR", "SINCE", "BECAUSE", "TICKET")

_STATE_STYLES = {
    "ready": "green",
    "failed": "bold red",
    "draining": "yellow",
    "stopping": "yellow",
    "starting": "cyan",
    "fetching": "cyan",
    "planned": "cyan",
    "waking": "cyan",
}


def replica_row(replica: ReplicaView, age_s: float) -> tuple[str | Text, ...]:
    """Cells under REPLICA_COLUMNS. `age_s` is how long ago the view was made; idleness has grown since."""
    idle_s = replica.idle_s + age_s
    idle = replica.state == "ready" and replica.leases == 0
    left_s = None if replica.keep_alive_s is None else max(0.0, replica.keep_alive_s - idle_s)
    return (
        shortened(replica.model, 30),
        Text(replica.state, _STATE_STYLES.get(replica.state, "")),
        str(replica.leases),
        memory(replica),
        format_seconds(idle_s) if idle else "-",
        ("never" if left_s is None else format_seconds(left_s)) if idle else "-",
        ",".join(device[:12] for device in replica.devices),
        replica.id,
    )


def memory(replica: ReplicaView) -> str:
    """Measured bytes; with ~ only predicted."""
    if replica.measured is not None:
        return format_bytes(replica.measured.total_bytes)
    return f"~{format_bytes(replica.predicted.total_bytes)}"


def queue_row(entry: QueueView, age_s: float) -> tuple[str, ...]:
    return (shortened(entry.model, 30), format_seconds(entry.waiting_s + age_s), entry.reason, entry.ticket)


def event_line(event: EventView) -> Text:
    text = Text()
    text.append(f"{datetime.fromtimestamp(event.at).astimezone():%H:%M:%S} ", "bright_black")
    text.append(f"{event.kind} ", "bold")
    text.append(event.message)
    return text


def node_line(node: NodeView, place: str, age_s: float) -> Text:
    """One line about the daemon, and one for each of its warnings."""
    engines = ", ".join(" ".join(filter(None, [e.kind, e.version, e.state])) for e in node.engines)
    text = Text("Helios ", "bold")
    text.append(f"{node.name} ", "bold green")
    text.append(f"{node.version} · {node.state} · up {format_seconds(node.uptime_s + age_s)} · {engines} · {place}")
    for warning in node.warnings:
        text.append(f"\n! {warning}", "yellow")
    return text


def lost_line(reason: str, place: str, retry_s: float) -> Text:
    text = Text("DISCONNECTED", "bold reverse red")
    text.append(f" {reason} · {place} · trying again in {format_seconds(retry_s)}")
    return text


def shortened(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
