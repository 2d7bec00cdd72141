"""All that is known about one replica: how it started, and predicted beside measured. Pure."""

from rich.text import Text

from heliosctl.figures import PARTS, against
from heliosd.core.units import format_bytes, format_seconds
from heliosd.wire import ReplicaView

_BAR_WIDTH = 24


def details(replica: ReplicaView) -> Text:
    text = Text()
    text.append(f"{replica.model}\n", "bold")
    text.append(f"{replica.id} · {replica.state} · {replica.leases} leases · on {', '.join(replica.devices)}\n")
    text.append("\n")
    text.append_text(_memory(replica))
    text.append("\n")
    text.append_text(_phases(replica))
    text.append("\n")
    for name, value in _facts(replica):
        text.append(f"{name:<10} {value}\n")
    text.rstrip()
    return text


def _memory(replica: ReplicaView) -> Text:
    text = Text(f"{'per device':<10} {'predicted':>11} {'measured':>11} {'difference':>11}\n", "bold")
    for name, field in PARTS:
        predicted = getattr(replica.predicted, field)
        line = f"{name:<10} {format_bytes(predicted):>11} "
        if replica.measured is None:
            line += f"{'-':>11} {'-':>11}"
        else:
            measured, difference = against(predicted, getattr(replica.measured, field))
            line += f"{measured:>11} {difference:>11}"
        text.append(f"{line}\n", "bold" if field == "total_bytes" else "not bold")
    return text


def _phases(replica: ReplicaView) -> Text:
    if not replica.phases:
        return Text("not started yet\n", "italic")
    total_s = sum(replica.phases.values())
    title = f"started in {format_seconds(total_s)}"
    if replica.state == "starting":
        left = "" if replica.left_s is None else f", {format_seconds(replica.left_s)} left"
        title = f"starting, {format_seconds(total_s)} so far{left}"
    text = Text(f"{title}\n", "bold")
    for name, span_s in replica.phases.items():
        cells = round(_BAR_WIDTH * span_s / total_s) if total_s > 0 else 0
        text.append(f"{name[:18]:<18} {format_seconds(span_s):>8} ", "not bold")
        text.append(f"{'█' * cells}\n", "cyan not bold")
    return text


def _facts(replica: ReplicaView) -> list[tuple[str, str]]:
    if replica.pinned:
        kept = "ready, whatever is asked for: it is pinned"
    else:
        kept = "for ever" if replica.keep_alive_s is None else f"{format_seconds(replica.keep_alive_s)} when idle"
    facts = [
        ("kept", kept),
        ("KV in use", f"{replica.kv_used_ratio:.0%}" if replica.state == "ready" else ""),
        ("context", f"{replica.max_model_len} tokens" if replica.max_model_len else ""),
        ("tasks", ", ".join(replica.tasks)),
        ("processes", ", ".join(map(str, replica.pids))),
        ("revision", replica.revision[:12]),
        ("log", replica.log_file or ""),
    ]
    return [(name, value) for name, value in facts if value]
