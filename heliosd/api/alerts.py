"""/helios/v1/alerts: what is worth telling somebody at once, without a Prometheus; and the doctor's look at it."""

import time
from collections.abc import Callable, Sequence

from aiohttp import web

from heliosd.api.asked import json_of
from heliosd.api.parts import Check, Parts
from heliosd.api.routes import Answer, Route, Scope
from heliosd.core.units import format_seconds
from heliosd.telemetry.alert_states import Active
from heliosd.telemetry.alerts import ALERTS
from heliosd.wire import AlertList, AlertRuleView, AlertView, CheckView


async def alerts(request: web.Request, parts: Parts) -> web.StreamResponse:
    firing = parts.alerts.firing()
    return json_of(
        AlertList(
            alerts=[_view(each, parts.alerts.epoch_offset_s) for each in parts.alerts.active],
            rules=[
                AlertRuleView(
                    name=alert.name,
                    severity=alert.severity,
                    condition=alert.condition.promql(),
                    for_s=alert.for_s,
                    summary=alert.summary,
                    advice=alert.advice,
                    runbook=alert.runbook,
                    firing=firing.get(alert.name, 0),
                )
                for alert in ALERTS
            ],
        )
    )


def _view(active: Active, epoch_offset_s: float) -> AlertView:
    alert = active.alert
    return AlertView(
        name=alert.name,
        state="pending" if active.fired_at is None else "firing",
        severity=alert.severity,
        labels=dict(active.labels),
        value=active.value,
        summary=active.summary,
        advice=alert.advice,
        runbook=alert.runbook,
        since=active.since + epoch_offset_s,
        fired_at=None if active.fired_at is None else active.fired_at + epoch_offset_s,
    )


def alerts_quiet(active: Callable[[], Sequence[Active]], epoch_offset_s: float) -> Check:
    """A finding of the doctor's for each alert that fires."""

    async def check() -> Sequence[CheckView]:
        firing = [each for each in active() if each.fired_at is not None]
        found = [
            CheckView(
                name=f"alert {each.alert.name}",
                ok=False,
                message=f"{each.summary} (for {format_seconds(time.time() - each.since - epoch_offset_s)})",
                advice=f"{each.alert.advice}; {each.alert.runbook}",
            )
            for each in firing
        ]
        return found or [CheckView(name="alerts", ok=True, message=f"none of {len(ALERTS)} fires")]

    return check


ROUTES = (
    Route(
        "GET",
        "/helios/v1/alerts",
        alerts,
        Scope.ADMIN,
        "What is worth telling somebody at once: alerts that fire or are about to, and all there are.",
        Answer("alerts whose condition is true, and the list of all with their conditions", AlertList),
        detail="The same list that Prometheus' rules are made of; `docs/operations.md` has a section for each.",
    ),
)
