"""The alerts: what is worth waking somebody for. The one list that Helios itself goes by, and Prometheus' rules.

python -m heliosd.telemetry.alerts > systemd/prometheus/helios.rules.yml
"""

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from heliosd.core.units import GiB, format_bytes, format_seconds
from heliosd.telemetry.conditions import Condition, Highest, Increase, Labels, Magnitude, Now, Share, Sum, span

RUNBOOK = "docs/operations.md"
_HUMANIZED = {
    "bytes": "{{ $value | humanize1024 }}B",
    "seconds": "{{ $value | humanizeDuration }}",
    "ratio": "{{ $value | humanizePercentage }}",
    "count": "{{ $value | humanize }}",
}


class _Empty(dict[str, str]):
    def __missing__(self, label: str) -> str:
        return ""  # as Prometheus does


@dataclass(frozen=True, slots=True)
class Alert:
    name: str
    condition: Condition
    for_s: float
    """It fires when the condition has been true for so long."""
    severity: Literal["warning", "critical"]
    """critical: requests fail, or will within minutes."""
    summary: str
    """One sentence; `{value}` is the quantity's value, any other name in braces that label's."""
    advice: str
    """What to do first."""
    unit: Literal["bytes", "seconds", "ratio", "count"] = "count"
    """Of the value."""

    @property
    def runbook(self) -> str:
        """Where the documentation tells what it means, what to look at and what to do."""
        return f"{RUNBOOK}#{self.name.lower()}"

    def said(self, labels: Labels, value: float) -> str:
        """The summary, for these labels."""
        return self.summary.format_map(_Empty({**dict(labels), "value": _told(self.unit, value)}))

    def template(self) -> str:
        """The summary as Prometheus fills it in."""
        names = {label: f"{{{{ $labels.{label} }}}}" for label in _labels(self.summary)}
        return self.summary.format_map({**names, "value": _HUMANIZED[self.unit]})


ALERTS = (
    Alert(
        "HeliosMemoryPressure",
        Condition(Sum(Now("helios_device_free_bytes"), Now("helios_device_safety_bytes")), "<", 0),
        60,
        "critical",
        "{device} no longer has what was promised to its replicas, {value} are left beside it: foreign processes grew",
        "see who holds the memory with `heliosctl gpus`, end it, or unload a model",
        "bytes",
    ),
    Alert(
        "HeliosMemoryExhaustionPredicted",
        Condition(Now("helios_exhaustion_seconds"), "<", 1800),
        60,
        "warning",
        "{device}{tier} will be full in {value} at the speed it fills now",
        "see what grows with `heliosctl gpus` or `heliosctl cache`, and make room before it is used up",
        "seconds",
    ),
    Alert(
        "HeliosLedgerDrift",
        Condition(
            Magnitude(Share(Now("helios_device_drift_bytes"), Now("helios_device_capacity_bytes"))), ">", 0.01
        ),
        60,
        "warning",
        "{device} holds {value} of its memory more, or less, than was measured of its replicas",
        "compare `heliosctl gpus -o wide` with nvidia-smi; unload the replica that holds what it should not",
        "ratio",
    ),
    Alert(
        "HeliosEstimateTooSmall",
        Condition(Increase("helios_estimate_under_predictions_total", 3600, (("term", "total"),)), ">", 0),
        0,
        "warning",
        "within an hour {value} loads took over 1 % more memory than was set aside",
        "see which with `heliosctl events`; the next estimates have learned of it",
    ),
    Alert(
        "HeliosOutOfMemory",
        Condition(Increase("helios_out_of_memory_total", 900), ">", 0),
        0,
        "critical",
        "within a quarter of an hour {value} engines died for want of {memory} memory",
        "see which with `heliosctl events`, and what else took the memory with `heliosctl gpus`",
    ),
    Alert(
        "HeliosBreakerOpen",
        Condition(Highest("helios_breaker_open", 90), ">", 0),
        120,
        "critical",
        "{model} cannot be started on {devices}, and is tried there only now and then",
        "read the engine's words with `heliosctl explain MODEL`",
    ),
    Alert(
        "HeliosStartsFailing",
        Condition(Increase("helios_engine_failures_total", 900, (("phase", "starting"),)), ">", 2),
        0,
        "warning",
        "within a quarter of an hour {value} engines would not start",
        "read why with `heliosctl events`; `heliosctl doctor` checks the installation",
    ),
    Alert(
        "HeliosQueueOld",
        Condition(Now("helios_queue_reason_oldest_seconds", without=(("reason", "arriving"),)), ">", 120),
        60,
        "warning",
        "a request has waited for a replica for {value} ({reason})",
        "see what it waits for with `heliosctl queue`",
        "seconds",
    ),
    Alert(
        "HeliosDiskFull",
        Condition(Now("helios_disk_free_bytes"), "<", 5 * GiB),
        300,
        "warning",
        "{value} are free where the {place} is kept",
        "remove what nobody needs with `heliosctl gc`, or `heliosctl rm`",
        "bytes",
    ),
    Alert(
        "HeliosJournalLost",
        Condition(Increase("helios_journal_lost_total", 900), ">", 0),
        0,
        "critical",
        "within a quarter of an hour {value} lines of the journal could not be written",
        "look at the space and the permissions of the state directory",
    ),
    Alert(
        "HeliosLeakSuspected",
        Condition(Now("helios_leak_suspected"), ">", 0),
        0,
        "warning",
        "{replica} holds ever more memory without being asked for more",
        "read the evidence with `heliosctl explain REPLICA`",
    ),
    Alert(
        "HeliosDeviceFault",
        Condition(Now("helios_device_fault"), ">", 0),
        0,
        "critical",
        "{device} cannot be used",
        "read what its driver says with `heliosctl gpus`",
    ),
    Alert(
        "HeliosPeerDead",
        Condition(Now("helios_cluster_members", (("state", "dead"),)), ">", 0),
        60,
        "warning",
        "{value} nodes of the cluster have stopped answering",
        "see which with `heliosctl cluster ls`",
    ),
)  # fmt: skip
"""There is none of a certificate: heliosd has none, TLS ends before it."""

NAMES = frozenset(name for alert in ALERTS for name in alert.condition.quantity.names)
"""Of all samples that the alerts need."""


def rules(alerts: Iterable[Alert] = ALERTS) -> str:
    """A rules file for Prometheus (https://prometheus.io/docs/prometheus/latest/configuration/alerting_rules/)."""
    return "\n".join(_rule_lines(alerts)) + "\n"


def _rule_lines(alerts: Iterable[Alert]) -> Iterator[str]:
    yield "# Made by `python -m heliosd.telemetry.alerts` from the list in the code; a test keeps it true."
    yield "groups:"
    yield "  - name: helios"
    yield "    rules:"
    for alert in alerts:
        yield f"      - alert: {alert.name}"
        yield f"        expr: {json.dumps(alert.condition.promql())}"
        if alert.for_s:
            yield f"        for: {span(alert.for_s)}"
        yield f"        labels: {{severity: {alert.severity}}}"
        yield "        annotations:"
        yield f"          summary: {json.dumps(alert.template())}"
        yield f"          description: {json.dumps(alert.advice)}"
        yield f"          runbook: {json.dumps(alert.runbook)}"


def _told(unit: str, value: float) -> str:
    match unit:
        case "bytes":
            return f"-{format_bytes(-int(value))}" if value < 0 else format_bytes(int(value))
        case "seconds":
            return format_seconds(value)
        case "ratio":
            return f"{value:.1%}"
    return f"{value:g}"


def _labels(summary: str) -> set[str]:
    return {part.partition("}")[0] for part in summary.split("{")[1:]} - {"value"}


if __name__ == "__main__":
    sys.stdout.write(rules())
