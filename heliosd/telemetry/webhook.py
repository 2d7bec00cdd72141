"""Posts alerts to a URL, in the form in which Prometheus' Alertmanager posts them to its receivers (version 4).

What receives from an Alertmanager can receive from Helios. Tried again with growing pauses; the queue is bounded.
"""

import asyncio
import hashlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from heliosd.telemetry.alert_states import Change
from heliosd.telemetry.metrics import Metrics

log = logging.getLogger("heliosd.alerts")

MOST_QUEUED = 100
"""One more, and the oldest is given up: what is newer tells more."""
ATTEMPTS = 8
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
"""Each pause is twice the one before, at most so long: eight attempts take about two minutes."""
ANSWER_S = 10.0
_TRY_AGAIN = frozenset({408, 425, 429})
"""Of the statuses that blame the request, those that may be another time."""


class Webhook:
    """`run` must be running for anything to be posted."""

    def __init__(
        self,
        url: str,
        node: str,
        metrics: Metrics,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._url = url
        self._place = urlsplit(url).hostname or ""
        """For the log: the rest of such URLs is often a secret."""
        self._node = node
        self._metrics = metrics
        self._sleep = sleep
        self._queue: deque[dict[str, Any]] = deque()
        self._something = asyncio.Event()

    def post(self, change: Change, epoch_offset_s: float) -> None:
        """Queue a post; never blocks. `epoch_offset_s`: seconds since the epoch minus the clock of the change."""
        if len(self._queue) >= MOST_QUEUED:
            self._queue.popleft()
            self._lost("too many wait to be posted")
        self._queue.append(payload(change, self._node, epoch_offset_s))
        self._something.set()

    async def run(self) -> None:
        """Post what is queued, one after the other, until cancelled."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_S)) as session:
            while True:
                while self._queue:
                    await self._deliver(session, self._queue.popleft())
                self._something.clear()
                await self._something.wait()

    async def _deliver(self, session: aiohttp.ClientSession, body: dict[str, Any]) -> None:
        why = ""
        for attempt in range(ATTEMPTS):
            if attempt:
                self._metrics.alert_posted("retried")
                await self._sleep(min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** (attempt - 1)))
            try:
                async with session.post(self._url, json=body) as answer:
                    if answer.status < 300:
                        self._metrics.alert_posted("sent")
                        return
                    why = f"it answered {answer.status}"
                    if answer.status < 500 and answer.status not in _TRY_AGAIN:
                        break
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                why = f"{type(error).__name__}: {error}"
        self._lost(why)

    def _lost(self, why: str) -> None:
        self._metrics.alert_posted("lost")
        log.error("alert not posted", extra={"host": self._place, "cause": why})


def payload(change: Change, node: str, epoch_offset_s: float) -> dict[str, Any]:
    """One alert as an Alertmanager would post it."""
    active, alert = change.active, change.active.alert
    labels = {"alertname": alert.name, "severity": alert.severity, "node": node, **dict(active.labels)}
    notes = {"summary": active.summary, "description": alert.advice, "runbook": alert.runbook}
    status = "firing" if change.firing else "resolved"
    ended = change.ended_at
    one = {
        "status": status,
        "labels": labels,
        "annotations": notes,
        "startsAt": _time(active.since + epoch_offset_s),
        "endsAt": "0001-01-01T00:00:00Z" if ended is None else _time(ended + epoch_offset_s),
        "generatorURL": "",
        "fingerprint": fingerprint(labels),
    }
    return {
        "version": "4",
        "groupKey": f"{{}}:{{alertname={alert.name!r}, node={node!r}}}",
        "truncatedAlerts": 0,
        "status": status,
        "receiver": "helios",
        "groupLabels": {"alertname": alert.name, "node": node},
        "commonLabels": labels,
        "commonAnnotations": notes,
        "externalURL": "",
        "alerts": [one],
    }


def fingerprint(labels: dict[str, str]) -> str:
    """The same for the firing and the resolved post of one alert."""
    text = "\n".join(f"{name}={value}" for name, value in sorted(labels.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _time(epoch_s: float) -> str:
    return datetime.fromtimestamp(epoch_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
