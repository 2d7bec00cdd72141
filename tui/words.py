"""The words and figures that several screens share. Pure: views in, text out; ages are told, not asked for."""

from collections.abc import Mapping
from datetime import datetime

from rich.text import Text

from heliosd.core.units import format_bytes, format_seconds
from heliosd.wire import EventView, NodeView, ReplicaView
from tui.columns import Cell
from tui.palette import GREEN, ORANGE, VERMILION, state_mark


def state_cell(state: str, more: str = "") -> Cell:
    """The state with its glyph in front."""
    glyph, style = state_mark(state)
    return Cell(f"{glyph} {state}{more}", style)


def memory(replica: ReplicaView) -> str:
    """Measured bytes on each device; with ~ only predicted."""
    if replica.measured is not None:
        return format_bytes(replica.measured.total_bytes)
    return f"~{format_bytes(replica.predicted.total_bytes)}"


def ticking(span_s: float) -> str:
    """A span that grows or shrinks while it is looked at: in whole seconds, so that it changes once a second."""
    return f"{int(span_s)} s" if span_s < 60 else format_seconds(int(span_s))


def clock(at: float) -> str:
    """The time of day, local."""
    return f"{datetime.fromtimestamp(at).astimezone():%H:%M:%S}"


def day(at: float) -> str:
    """The date and the time of day, local."""
    return f"{datetime.fromtimestamp(at).astimezone():%Y-%m-%d %H:%M}"


def event_line(event: EventView) -> Text:
    text = Text()
    text.append(f"{clock(event.at)} ")
    text.append(f"{event.kind} ", "bold")
    text.append(event.message)
    return text


def node_line(node: NodeView, states: Mapping[str, int], waiting: int, place: str, age_s: float) -> Text:
    """One line about the daemon, and one for each of its warnings."""
    engines = ", ".join(" ".join(filter(None, [e.kind, e.version, e.state])) for e in node.engines)
    counts = [f"{count} {state}" for state, count in states.items()]
    text = Text(no_wrap=True, overflow="ellipsis")
    text.append("Helios ", "bold")
    text.append(f"{node.name} ", f"bold {GREEN}")
    said = [node.state, f"up {format_seconds(node.uptime_s + age_s)}", *counts, f"{waiting} waiting", engines]
    text.append(" · ".join([*said, node.version, place]))
    for warning in node.warnings:
        text.append(f"\n! {warning}", ORANGE)
    return text


def lost_line(reason: str, place: str, retry_s: float, since: float) -> Text:
    text = Text(no_wrap=True, overflow="ellipsis")
    text.append("DISCONNECTED", f"bold reverse {VERMILION}")
    text.append(f" since {clock(since)}: {reason} · {place} · trying again in {format_seconds(retry_s)}")
    return text
