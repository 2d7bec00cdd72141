"""Alerts reach a real receiver, also one that fails at first; what cannot be delivered is given up and told."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from heliosd.telemetry.alert_states import Active, Change
from heliosd.telemetry.alerts import ALERTS
from heliosd.telemetry.metrics import Metrics
from heliosd.telemetry.webhook import ATTEMPTS, LONGEST_PAUSE_S, MOST_QUEUED, Webhook
from tests.telemetry.receiver import Receiver, receiver
from tests.telemetry.test_estimates import EMPTY

DISK = next(alert for alert in ALERTS if alert.name == "HeliosDiskFull")
ACTIVE = Active(DISK, (("place", "store"),), 1024**3, since=100.0, fired_at=400.0)


class Noted(Metrics):
    """Metrics whose posts can be waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.outcomes: asyncio.Queue[str] = asyncio.Queue()

    def alert_posted(self, outcome: str) -> None:
        super().alert_posted(outcome)
        self.outcomes.put_nowait(outcome)

    async def after(self, outcome: str, times: int = 1) -> dict[str, float]:
        """All outcomes, once there were so many of this one."""
        for _ in range(times):
            while await self.outcomes.get() != outcome:
                pass
        return posts(self)


def posts(metrics: Metrics) -> dict[str, float]:
    return {
        sample.labels["outcome"]: sample.value
        for family in metrics.families(EMPTY)
        if family.name == "helios_alert_posts"
        for sample in family.samples
        if sample.name.endswith("_total")
    }


@asynccontextmanager
async def running(there: Receiver) -> AsyncIterator[tuple[Webhook, Noted, list[float]]]:
    pauses: list[float] = []
    metrics = Noted()

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    webhook = Webhook(there.url, "gpu7", metrics, sleep)
    async with asyncio.TaskGroup() as tasks:
        work = tasks.create_task(webhook.run())
        yield webhook, metrics, pauses
        work.cancel()


async def test_firing_and_resolved_are_one_alert() -> None:
    async with receiver() as there, running(there) as (webhook, metrics, _):
        webhook.post(Change(ACTIVE), 1_000_000.0)
        webhook.post(Change(ACTIVE, ended_at=500.0), 1_000_000.0)
        fired, resolved = await there.posts.get(), await there.posts.get()
        assert await metrics.after("sent", 2) == {"sent": 2}
    assert (fired["status"], resolved["status"]) == ("firing", "resolved")
    assert fired["version"] == "4"
    (one,), (other,) = fired["alerts"], resolved["alerts"]
    assert one["fingerprint"] == other["fingerprint"]
    assert one["labels"] == {"alertname": "HeliosDiskFull", "severity": "warning", "node": "gpu7", "place": "store"}
    assert one["annotations"]["summary"] == "1.0 GiB are free where the store is kept"
    assert one["annotations"]["runbook"] == "docs/operations.md#heliosdiskfull"
    assert one["startsAt"] == other["startsAt"] == "1970-01-12T13:48:20.000Z"
    assert (one["endsAt"], other["endsAt"]) == ("0001-01-01T00:00:00Z", "1970-01-12T13:55:00.000Z")


async def test_a_receiver_that_fails_is_asked_again_with_growing_pauses() -> None:
    async with receiver() as there, running(there) as (webhook, metrics, pauses):
        there.failures = [503, 429, 500]
        webhook.post(Change(ACTIVE), 0.0)
        assert await metrics.after("sent") == {"retried": 3, "sent": 1}
    assert pauses == [1.0, 2.0, 4.0]


async def test_what_is_refused_for_good_is_given_up_at_once_and_the_next_one_sent() -> None:
    async with receiver() as there, running(there) as (webhook, metrics, pauses):
        there.failures = [404]
        webhook.post(Change(ACTIVE), 0.0)
        webhook.post(Change(ACTIVE, ended_at=1.0), 0.0)
        assert (await there.posts.get())["status"] == "resolved"
        assert await metrics.after("sent") == {"lost": 1, "sent": 1}
    assert pauses == []


async def test_nobody_there_costs_all_attempts_and_no_more(caplog: pytest.LogCaptureFixture) -> None:
    async with receiver() as there:
        pass
    async with running(there) as (webhook, metrics, pauses):
        webhook.post(Change(ACTIVE), 0.0)
        assert await metrics.after("lost") == {"retried": ATTEMPTS - 1, "lost": 1}
    assert len(pauses) == ATTEMPTS - 1
    assert max(pauses) <= LONGEST_PAUSE_S
    assert there.url not in caplog.text, "the URL may be a secret"


async def test_the_queue_is_bounded_and_the_newest_stay() -> None:
    async with receiver() as there:
        metrics = Metrics()
        webhook = Webhook(there.url, "gpu7", metrics)
        for number in range(MOST_QUEUED + 5):
            webhook.post(Change(ACTIVE, ended_at=float(number)), 0.0)
        assert posts(metrics) == {"lost": 5}
        async with asyncio.TaskGroup() as tasks:
            work = tasks.create_task(webhook.run())
            received = [await there.posts.get() for _ in range(MOST_QUEUED)]
            work.cancel()
        with suppress(asyncio.QueueEmpty):
            there.posts.get_nowait()
            pytest.fail("more was sent than fits")
    assert received[0]["alerts"][0]["endsAt"] == "1970-01-01T00:00:05.000Z"
