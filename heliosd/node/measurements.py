"""What is learned from each start and end: kept for the estimates, counted for the metrics."""

import logging
import sqlite3
from dataclasses import replace

from heliosd.core.lifecycle import State
from heliosd.core.messages import Event, Footprint, ReplicaBecameReady, ReplicaExited
from heliosd.core.scheduler import Scheduler
from heliosd.demands import Demands
from heliosd.engines.pool import Pool
from heliosd.node.starts import Starts
from heliosd.state.records import Measurement, Records
from heliosd.telemetry.metrics import Metrics

log = logging.getLogger("heliosd.node")

_PHASES = {State.STARTING: "starting", State.SLEEPING: "sleeping", State.ASLEEP: "sleeping", State.WAKING: "waking"}


class Measurements:
    def __init__(
        self, scheduler: Scheduler, pool: Pool, records: Records, demands: Demands, metrics: Metrics, starts: Starts
    ) -> None:
        self._scheduler = scheduler
        self._pool = pool
        self._records = records
        self._demands = demands
        self._metrics = metrics
        self._starts = starts

    def count(self, event: Event) -> None:
        """In the metrics; to be called before the scheduler takes the event in."""
        replica = (
            self._scheduler.replicas.get(event.replica)
            if isinstance(event, ReplicaBecameReady | ReplicaExited)
            else None
        )
        if replica is None:
            return
        if isinstance(event, ReplicaBecameReady):
            engine = self._pool.engine(replica.id)
            timeline = self._starts.timeline(event)
            phases = timeline.seconds() if timeline else engine.phases if engine else {}
            self._metrics.replica_started(replica.demand.model, phases, swapped=replica.swapped)
        elif isinstance(event, ReplicaExited) and event.cause is not None:
            self._metrics.replica_failed(replica.demand.model)
            was = replica.died_while or replica.state
            if was is not State.STOPPING:
                self._metrics.reasons.failed(_PHASES.get(was, "serving"), event.cause)

    async def keep(self, event: ReplicaBecameReady) -> None:
        """What a start took, beside what was predicted, so that the next estimates are better."""
        replica = self._scheduler.replicas.get(event.replica)
        engine = self._pool.engine(event.replica)
        if replica is None or engine is None:
            return
        kind = self._scheduler.ledger.devices[replica.devices[0]].kind
        demand, basis, timeline = replica.demand, replica.demand.basis, self._starts.timeline(event)
        likely = basis.likely if basis else demand.per_device
        await self._add(
            Measurement(
                model=demand.model,
                revision=demand.revision,
                engine=self._demands.engine_name(kind),
                device_kind=kind,
                arguments=demand.arguments,
                predicted=demand.per_device,
                measured=event.measured,
                phases=engine.phases,
                timeline=timeline.spans if timeline else (),
                tier=self._scheduler.usage.places.tier(demand.model),
                swapped=replica.swapped,
                likely=likely,
                architecture=basis.architecture if basis else "",
                device_name=basis.device_name if basis else "",
                tensor_parallel=len(replica.devices) // demand.pipeline_parallel,
                law=basis.law if basis else {},
                features=basis.features if basis else {},
            )
        )
        self._check_estimate(
            replace(likely, kv_cache_bytes=demand.per_device.kv_cache_bytes), demand.per_device, event.measured
        )
        self._demands.measured()

    async def _add(self, measurement: Measurement) -> None:
        try:
            await self._records.add(measurement)
        except sqlite3.Error as error:  # a full disk costs what is learned, never the service
            log.error("measurement not kept", extra={"model": measurement.model, "cause": str(error)})

    def _check_estimate(self, likely: Footprint, booked: Footprint, measured: Footprint) -> None:
        """Tell the metrics how near the prediction of a start came."""
        for term in ("weights", "kv_cache", "overhead", "total"):
            name = f"{term}_bytes"
            values = (getattr(likely, name), getattr(measured, name), getattr(booked, name))
            self._metrics.estimate_checked(term, *values)
