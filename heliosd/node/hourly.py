"""Counts what each hour wants, and keeps it: for advice and for capacity planning."""

import asyncio
import logging
import math
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator

from heliosd.core.capacity import project
from heliosd.core.hours import HOST_TIER, SLEEPERS, PlaceHour, Tally, need_bytes
from heliosd.core.lifecycle import State
from heliosd.core.messages import DevicesRead, Event, ReplicaBecameReady, RequestArrived, RequestReleased
from heliosd.core.names import DeviceId, ReplicaId
from heliosd.core.scheduler import Scheduler
from heliosd.core.week import HOUR_S, hour_of
from heliosd.state.hours import Hours
from heliosd.telemetry.metrics import Metrics

log = logging.getLogger("heliosd.node")

KEEP_EVERY_S = 60.0
"""What a crash may lose."""
HORIZON_HOURS = 90 * 24
"""How far ahead the metrics look."""


class Hourly:
    """Told of every event after the scheduler; changes nothing."""

    def __init__(
        self, hours: Hours, scheduler: Scheduler, metrics: Metrics, epoch: Callable[[], float] = time.time
    ) -> None:
        self._hours = hours
        self._metrics = metrics
        self._projected = 0
        self._scheduler = scheduler
        self._epoch = epoch
        self._tally = Tally()
        self._looked_at = 0.0

    def happened(self, event: Event) -> None:
        """To be called on the event loop; takes microseconds, at a reading of the devices some more."""
        match event:
            case RequestArrived(demand=demand) if demand is not None:
                self._tally.asked(hour_of(self._epoch()), event.ticket, demand, event.terms.work_tokens)
            case RequestReleased():
                self._tally.left(event.ticket)
            case DevicesRead() | ReplicaBecameReady():
                self._look(event.at)

    async def keep(self) -> None:
        """Write what was counted, until cancelled."""
        while True:
            await self._project()
            await asyncio.sleep(KEEP_EVERY_S)
            await self.keep_now()

    async def _project(self) -> None:
        """Tell the metrics when devices will be full, once an hour: the running one is not over before."""
        hour = hour_of(self._epoch())
        if hour == self._projected:
            return
        self._projected = hour
        try:
            rows = await self._hours.places()
        except sqlite3.Error as error:
            log.error("hours not read", extra={"cause": str(error)})
            return
        devices = tuple(self._scheduler.ledger.devices)
        self._metrics.full_in(await asyncio.to_thread(_full_s, rows, devices, hour))

    async def keep_now(self) -> None:
        """What cannot be written is counted on."""
        rows = self._tally.take()
        try:
            await asyncio.shield(self._hours.add(rows))
        except sqlite3.Error as error:  # a full disk costs advice, never the service
            self._tally.give_back(rows)
            log.error("hours not kept", extra={"cause": str(error)})

    def _look(self, at: float) -> None:
        scheduler = self._scheduler
        wanted = scheduler.pool.wanted.values()
        running: dict[str, int] = {}
        for replica in scheduler.replicas.values():
            if replica.state is State.READY:
                running[replica.demand.model] = running.get(replica.demand.model, 0) + 1
        hour = hour_of(self._epoch())
        self._tally.saw(hour, running, ((each.demand, each.replicas) for each in wanted), self._places(hour))
        self._looked_at = at

    def _places(self, hour: int) -> Iterator[PlaceHour]:
        ledger, pinned = self._scheduler.ledger, self._scheduler.pool.pinned()
        for device in ledger.devices:
            peak = ledger.foreign.get(device, 0) + self._needed(device, pinned)
            yield PlaceHour(hour, device, peak, ledger.lasting_bytes(device))
        yield PlaceHour(hour, SLEEPERS, sum(ledger.staged.values()), ledger.host_bytes)
        yield PlaceHour(hour, HOST_TIER, ledger.tier_bytes, ledger.host_bytes)

    def _needed(self, device: DeviceId, pinned: frozenset[ReplicaId]) -> int:
        """Of replicas that are kept ready, or worked since the last look; sleepers' residue is needed by nobody."""
        return sum(
            need_bytes(each.demand.per_device, each.demand.kv_least_bytes, each.pressure.used_ratio)
            for each in self._scheduler.replicas.values()
            if device in each.devices
            and each.state is not State.ASLEEP
            and (not each.idle or each.id in pinned or each.last_used >= self._looked_at)
        )


def _full_s(rows: Iterable[PlaceHour], devices: Iterable[str], hour: int) -> dict[str, float]:
    """By device; +Inf where it is not in sight, left out where too little is known."""
    series: dict[str, list[PlaceHour]] = {device: [] for device in devices}
    for row in rows:
        if row.place in series:
            series[row.place].append(row)
    found = {device: project(each, hour, HORIZON_HOURS) for device, each in series.items()}
    return {
        device: math.inf if each.full_in_hours is None else each.full_in_hours * HOUR_S
        for device, each in found.items()
        if each.state != "unknown"
    }
