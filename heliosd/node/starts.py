"""The starts of the replicas that are there: their clocks, and the first word that belongs to each."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from heliosd.core.lifecycle import State
from heliosd.core.messages import Event, ReplicaBecameReady, ReplicaExited, ReplicaProgressed
from heliosd.core.names import ReplicaId
from heliosd.core.rooms import expected
from heliosd.core.scheduler import Scheduler
from heliosd.core.timeline import Span, Timeline, as_rows
from heliosd.engines.start_clock import StartClock
from heliosd.lease import StartSoFar
from heliosd.state.journal import Journal
from heliosd.telemetry.metrics import Metrics


class Starts:
    """Tells the scheduler, through `post`, of each phase that ends."""

    def __init__(
        self,
        scheduler: Scheduler,
        journal: Journal,
        metrics: Metrics,
        post: Callable[[Event], None],
        now: Callable[[], float],
        before: Callable[[str, float], list[tuple[str, float, float]]],
    ) -> None:
        """`before`: what was done for a model that a start decided at that time follows; name, begin and end."""
        self._scheduler = scheduler
        self._before = before
        self._journal = journal
        self._metrics = metrics
        self._post = post
        self._now = now
        self._clocks: dict[ReplicaId, StartClock] = {}
        self._first_words: dict[ReplicaId, Span] = {}
        """Where somebody waited for the start: from ready to the first byte of an answer."""

    def begin(self, replica: ReplicaId) -> StartClock:
        """The clock of a start that was decided on; phases may be marked in any thread."""
        loop, there = asyncio.get_running_loop(), self._scheduler.replicas[replica]
        before = self._before(there.demand.model, there.started_at)

        def tell(phase: str) -> None:
            with suppress(RuntimeError):  # the loop has ended; the start is about to
                loop.call_soon_threadsafe(self._progressed, replica, phase)

        clock = self._clocks[replica] = StartClock(there.started_at, tell, loop.time, before)
        return clock

    def _progressed(self, replica: ReplicaId, phase: str) -> None:
        self._post(ReplicaProgressed(self._now(), replica, phase))

    def gone(self, replica: ReplicaId) -> None:
        """The replica has ended."""
        self._clocks.pop(replica, None)
        self._first_words.pop(replica, None)

    def timeline(self, event: Event) -> Timeline | None:
        """Of the start of the replica that became ready, or ended."""
        if not isinstance(event, ReplicaBecameReady | ReplicaExited):
            return None
        clock = self._clocks.get(event.replica)
        return clock.timeline(event.at) if clock else None

    def answered(self, replica: ReplicaId, asked_at: float, first_byte_at: float) -> None:
        """An engine has answered a request. The first answer to whoever waited for the start belongs to the start."""
        there = self._scheduler.replicas.get(replica)
        if there is None or there.ready_at is None or replica in self._first_words or asked_at > there.ready_at:
            return
        began_s, ended_s = there.ready_at - there.started_at, first_byte_at - there.started_at
        clock = self._clocks.get(replica)
        lead_s = clock.lead_s if clock else 0.0
        span = self._first_words[replica] = Span("first_token", round(began_s + lead_s, 4), round(ended_s + lead_s, 4))
        self._metrics.first_token(span.took_s)
        text = f"{replica} gave its first word {ended_s:.2f} s after the decision to start it"
        detail: dict[str, object] = {"timeline": as_rows([span])}
        self._journal.note("first_token", text, replica=replica, model=there.demand.model, detail=detail)

    def so_far(self, replica: ReplicaId) -> StartSoFar | None:
        """The start of a replica that is there, under way or over; None for others."""
        there, clock = self._scheduler.replicas.get(replica), self._clocks.get(replica)
        if there is None or clock is None:
            return None
        starting = there.state is State.STARTING
        known = expected(self._scheduler.usage, there.demand, swapped=there.swapped) if starting else None
        since_s = self._now() - (there.started_at if there.progressed_at is None else there.progressed_at)
        told = clock.timeline(self._now() if starting else there.ready_at)
        first = self._first_words.get(replica)
        return StartSoFar(
            timeline=Timeline((*told.spans, first), first.ended_s, told.lead_s) if first else told,
            starting=starting,
            age_s=self._now() - there.started_at + clock.lead_s,
            expected=known.phases if known else (),
            left_s=known.left_s(there.phases_done, since_s) if known else None,
        )
