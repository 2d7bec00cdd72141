"""What is known of the models' use: taken over from earlier lives, kept for later ones, and with it what those models
take that may be asked for again."""

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable

from heliosd.core.messages import Demand, DemandsKnown, Event, UsageSeeded
from heliosd.core.names import parse_ref
from heliosd.core.scheduler import Scheduler
from heliosd.demands import Demands
from heliosd.errors import HeliosError
from heliosd.state.records import Records
from heliosd.state.usage import UsageTable

log = logging.getLogger("heliosd.node")

FORESEEN = 500
"""Models whose demands are worked out before anyone asks for them in this life: those asked for last."""


class Foresight:
    """Tells the scheduler through `post`; changes nothing of it but what of its usage is kept."""

    def __init__(
        self,
        table: UsageTable,
        records: Records,
        demands: Demands,
        scheduler: Scheduler,
        post: Callable[[Event], None],
        now: Callable[[], float],
    ) -> None:
        self._table = table
        self._records = records
        self._demands = demands
        self._scheduler = scheduler
        self._post = post
        self._now = now
        self._changed = asyncio.Event()
        self._earlier: tuple[str, ...] = ()
        """Models that earlier lives knew, the one asked for last first."""

    def changed(self) -> None:
        """Models or settings are others than before: the scheduler has forgotten what models take."""
        self._changed.set()

    async def begin(self) -> None:
        """To be awaited before the first request: what earlier lives knew, and the time of day."""
        known = await self._table.load()
        self._earlier = tuple(each.model for each in known)
        starts, swaps = await self._records.starts(), await self._records.swaps()
        self._post(UsageSeeded(self._now(), time.time() - self._now(), known, starts, swaps))

    async def keep(self) -> None:
        """Keep what is learned, until cancelled; a crash loses the last minute at most."""
        await self._table.follow(self._scheduler.usage)

    async def end(self) -> None:
        """Keep what is not kept yet."""
        await self._table.keep_changed(self._scheduler.usage)

    async def run(self) -> None:
        """Tell what the models take that were asked for last, in any life, until cancelled."""
        while True:
            self._changed.clear()
            found = await self._find()
            if found is not None:
                self._post(DemandsKnown(self._now(), found))
            await self._changed.wait()

    async def _find(self) -> tuple[Demand, ...] | None:
        """None: models or settings changed meanwhile."""
        habits = self._scheduler.usage.forecast.habits
        last = dict.fromkeys((*sorted(habits, key=lambda model: -habits[model].heat.at), *self._earlier))
        unknown = [model for model in last if model not in self._scheduler.ahead.demands][:FORESEEN]
        found: list[Demand] = []
        for model in unknown if self._scheduler.limits.prefetch_loads else ():
            try:
                appraisal = await self._demands.of(parse_ref(model))
            except (HeliosError, ValueError, OSError, sqlite3.Error) as error:
                log.warning("model not foreseen", extra={"model": model, "cause": str(error)})
                continue
            if self._changed.is_set():
                return None
            if appraisal is not None:
                found.append(appraisal.demand)
        return tuple(found)
