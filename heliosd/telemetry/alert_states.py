"""Which alerts are pending and which fire: conditions and time in, changes out. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from heliosd.telemetry.alerts import ALERTS, Alert
from heliosd.telemetry.conditions import Labels, Reading


@dataclass(frozen=True, slots=True)
class Active:
    """An alert whose condition is true for one set of labels."""

    alert: Alert
    labels: Labels
    value: float
    since: float
    """When the condition became true; on the clock of the readings, as all times here."""
    fired_at: float | None = None
    """None: it is pending, the condition has not been true for long enough."""

    @property
    def summary(self) -> str:
        return self.alert.said(self.labels, self.value)


@dataclass(frozen=True, slots=True)
class Change:
    """An alert began to fire, or ceased to."""

    active: Active
    ended_at: float | None = None
    """When the condition was found to be false; None: it is true."""

    @property
    def firing(self) -> bool:
        return self.ended_at is None


@dataclass
class AlertStates:
    """Of all alerts. `for_s`: how long a condition must be true, at most; None: as long as the alert says."""

    alerts: Sequence[Alert] = ALERTS
    for_s: float | None = None
    readings: list[Reading] = field(default_factory=list)
    """No older than the alerts look back."""
    active: dict[tuple[str, Labels], Active] = field(default_factory=dict)

    def look(self, reading: Reading) -> list[Change]:
        """Take in what the metrics say now; returns what changed by it."""
        self.readings = [each for each in self.readings if each.at >= reading.at - self.looks_back_s] + [reading]
        found: dict[tuple[str, Labels], Active] = {}
        changes: list[Change] = []
        for alert in self.alerts:
            for labels, value in alert.condition.met(self.readings).items():
                key = alert.name, labels
                was = self.active.get(key) or Active(alert, labels, value, reading.at)
                now = replace(was, value=value)
                if now.fired_at is None and reading.at - now.since >= self._for_s(alert):
                    now = replace(now, fired_at=reading.at)
                    changes.append(Change(now))
                found[key] = now
        changes += [
            Change(was, ended_at=reading.at)
            for key, was in self.active.items()
            if key not in found and was.fired_at is not None
        ]
        self.active = found
        return changes

    @property
    def looks_back_s(self) -> float:
        """Older readings are not needed."""
        return max(alert.condition.quantity.window_s for alert in self.alerts)

    def firing(self) -> dict[str, int]:
        """How many fire of each alert; zero of most."""
        counts = dict.fromkeys((alert.name for alert in self.alerts), 0)
        for each in self.active.values():
            counts[each.alert.name] += each.fired_at is not None
        return counts

    def _for_s(self, alert: Alert) -> float:
        return alert.for_s if self.for_s is None else min(self.for_s, alert.for_s)
