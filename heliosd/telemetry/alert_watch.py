"""Judges the alerts again and again: what begins and ceases to fire goes to the journal, the log and the webhook.

Nothing tells when a disk fills or when a condition has been true for long enough, so this is on a timer.
"""

import asyncio
import logging
import sqlite3
import time
from collections.abc import Awaitable, Callable, Sequence

from heliosd.errors import HeliosError
from heliosd.state.journal import Journal
from heliosd.telemetry.alert_states import Active, AlertStates, Change
from heliosd.telemetry.alerts import NAMES
from heliosd.telemetry.conditions import reading_of
from heliosd.telemetry.metrics import Metrics, Scrape
from heliosd.telemetry.webhook import Webhook

log = logging.getLogger("heliosd.alerts")


class AlertWatch:
    """Of one daemon. `scrape` tells what the metrics are made of, `now` is a monotonic clock; `webhook` is run here."""

    def __init__(
        self,
        scrape: Callable[[], Awaitable[Scrape]],
        metrics: Metrics,
        journal: Journal,
        webhook: Webhook | None,
        *,
        interval_s: float,
        for_s: float | None,
        now: Callable[[], float],
    ) -> None:
        self._scrape = scrape
        self._metrics = metrics
        self._journal = journal
        self._webhook = webhook
        self._now = now
        self._states = AlertStates()
        self.epoch_offset_s = time.time() - now()
        self.set_pace(interval_s, for_s)

    def set_pace(self, interval_s: float, for_s: float | None) -> None:
        """Judge so often from now on; `for_s`: how long a condition must be true at most, None: as alerts say."""
        self._interval_s, self._states.for_s = interval_s, for_s

    @property
    def active(self) -> Sequence[Active]:
        """Alerts that are pending or fire, the oldest first."""
        return sorted(self._states.active.values(), key=lambda each: each.since)

    def firing(self) -> dict[str, int]:
        """How many fire of each alert; zero of most."""
        return self._states.firing()

    async def run(self) -> None:
        """Judge, and post what changes, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            if self._webhook is not None:
                tasks.create_task(self._webhook.run(), name="alert webhook")
            while True:
                try:
                    await self.look()
                except (HeliosError, OSError, sqlite3.Error) as error:
                    log.error("alerts not judged", extra={"cause": str(error)})
                await asyncio.sleep(self._interval_s)

    async def look(self) -> None:
        """Judge once."""
        at, scrape = self._now(), await self._scrape()
        families = lambda: reading_of(at, self._metrics.families(scrape), NAMES)  # noqa: E731
        for change in self._states.look(await asyncio.to_thread(families)):
            self._tell(change)

    def _tell(self, change: Change) -> None:
        active, alert = change.active, change.active.alert
        labels = dict(active.labels)
        verb = "fires" if change.firing else "no longer fires"
        text = f"{alert.name} {verb}: {active.summary}"
        detail = {
            "alert": alert.name,
            "severity": alert.severity,
            "state": "firing" if change.firing else "resolved",
            "labels": labels,
            "value": active.value,
            "since": active.since + self.epoch_offset_s,
        }
        model, replica = labels.get("model"), labels.get("replica")
        self._journal.note("alert", text, model=model, replica=replica, detail=detail)
        log.log(logging.WARNING if change.firing else logging.INFO, text, extra={"alert": alert.name, **labels})
        if self._webhook is not None:
            self._webhook.post(change, self.epoch_offset_s)
