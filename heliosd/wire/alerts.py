"""What is worth telling somebody at once."""

from typing import Literal

from pydantic import Field

from heliosd.wire.base import Wire

Severity = Literal["warning", "critical"]


class AlertView(Wire):
    """An alert whose condition is true now, for one set of labels."""

    name: str
    state: Literal["pending", "firing"] = Field(description="pending: not true for long enough yet")
    severity: Severity
    labels: dict[str, str]
    value: float
    summary: str
    advice: str
    runbook: str = Field(description="where the documentation tells more")
    since: float = Field(description="when its condition became true, in seconds since the epoch")
    fired_at: float | None = Field(None, description="when it began to fire")


class AlertRuleView(Wire):
    """An alert as such."""

    name: str
    severity: Severity
    condition: str = Field(description="in PromQL, of the families of /metrics")
    for_s: float = Field(description="so long it must be true")
    summary: str = Field(description="with the names of labels in braces")
    advice: str
    runbook: str
    firing: int = Field(description="for so many sets of labels")


class AlertList(Wire):
    alerts: list[AlertView]
    rules: list[AlertRuleView]
