"""Which models are to be kept ready: the operator's pins, and `min_replicas` of the configuration."""

import asyncio
import logging
import sqlite3
from collections.abc import Callable

from heliosd.config import Settings
from heliosd.core.messages import Wanted
from heliosd.core.names import ModelRef, parse_ref
from heliosd.demands import Demands
from heliosd.errors import HeliosError
from heliosd.state.pins import Pins

log = logging.getLogger("heliosd.node")


class WantedModels:
    """Tells the scheduler, through `post`, whenever what is wanted may have changed."""

    def __init__(self, pins: Pins, demands: Demands, settings: Callable[[], Settings]) -> None:
        self._pins = pins
        self._demands = demands
        self._settings = settings
        self._changed = asyncio.Event()
        self._told: tuple[Wanted, ...] = ()

    def changed(self) -> None:
        """Pins, settings, models, devices or measurements are others than before."""
        self._changed.set()

    def retell(self) -> None:
        """The scheduler has forgotten what is wanted."""
        self._told = ()
        self.changed()

    async def pinned(self) -> dict[str, int]:
        """Replicas to keep ready, by the ref they were pinned under."""
        return await self._pins.all()

    async def pin(self, ref: ModelRef, replicas: int) -> None:
        """Keep so many replicas of a stored model ready. Raises NotFound when nobody has it."""
        appraisal = await self._demands.of(ref)
        if appraisal is None:
            raise await self._demands.unknown(ref)
        await self._pins.set(appraisal.demand.model, replicas)
        self.changed()

    async def unpin(self, ref: ModelRef) -> None:
        """Raises NotFound when it is not pinned."""
        appraisal = await self._demands.of(ref)
        await self._pins.remove(appraisal.demand.model if appraisal else str(ref))
        self.changed()

    async def follow(self, post: Callable[[tuple[Wanted, ...]], None]) -> None:
        """Tell what is wanted, at once and after each change, until cancelled."""
        self._changed.set()
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                wanted = await self._wanted()
            except (HeliosError, OSError, sqlite3.Error) as error:
                log.error("pins not followed", extra={"cause": str(error)})
                continue
            if wanted != self._told:
                self._told = wanted
                post(wanted)

    async def _wanted(self) -> tuple[Wanted, ...]:
        counts = await self._pins.all()
        for name, own in self._settings().models.items():
            if own.min_replicas:
                counts[name] = max(counts.get(name, 0), own.min_replicas)
        wanted = []
        for name, replicas in sorted(counts.items()):
            try:
                appraisal = await self._demands.of(parse_ref(name))
            except HeliosError as error:  # one model's settings must not cost the others their pins
                log.error("pin not followed", extra={"model": name, "cause": error.message})
                continue
            if appraisal is not None:
                wanted.append(Wanted(appraisal.demand, replicas))
        return tuple(wanted)
