"""One request's way through the node: asked, granted, used and given back, however its client leaves."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from heliosd.adapters import Adapters
from heliosd.arrivals import Arrivals
from heliosd.config import Settings
from heliosd.core.claim import Claim
from heliosd.core.messages import Event, Hold, RefusalCode, RequestArrived, RequestReleased
from heliosd.core.names import ModelRef, Ticket
from heliosd.demands import Demands
from heliosd.errors import NotFound
from heliosd.lease import Lease, PeerLease
from heliosd.node.answers import Answers

if TYPE_CHECKING:
    from heliosd.telemetry.tracing_node import NodeSpans


class Leasing:
    """Tells the scheduler, through `post`, who came and who left."""

    def __init__(
        self,
        demands: Demands,
        adapters: Adapters,
        answers: Answers,
        settings: Callable[[], Settings],
        post: Callable[[Event], None],
        now: Callable[[], float],
        arrivals: Arrivals,
        at_peers: Callable[[str], bool],
        spans: "NodeSpans | None" = None,
    ) -> None:
        """`at_peers`: whether a live peer holds a model."""
        self._arrivals = arrivals
        self._at_peers = at_peers
        self._spans = spans
        self._demands = demands
        self._adapters = adapters
        self._answers = answers
        self._settings = settings
        self._post = post
        self._now = now

    @asynccontextmanager
    async def lease(
        self,
        ticket: Ticket,
        ref: ModelRef,
        claim: Claim,
        deadline_s: float | None,
        forwarded: bool,
        told: Callable[[Hold], None] | None,
    ) -> AsyncIterator[Lease]:
        """See `Node.lease`."""
        if self._spans:
            self._spans.asked()
        appraisal = await self._demands.of(ref)
        settings = self._settings()
        timeout_s = settings.queue.timeout_s
        deadline_at = self._now() + (timeout_s if deadline_s is None else min(deadline_s, timeout_s))
        if appraisal is None and self._arrivals.coming(ref) and (forwarded or not self._at_peers(str(ref))):
            if self._spans:
                self._spans.stage("arrival")
            began = self._now()
            try:
                await self._arrivals.until_there(ref, ticket, deadline_at, told)
            finally:
                self._answers.spent("arriving", self._now() - began)
            appraisal = await self._demands.of(ref)
        model = str(appraisal.stored.ref) if appraisal else str(ref)
        with self._answers.expected(ticket, model, told) as answer:
            now = self._now()
            terms = claim.terms(settings.for_model(model).priority)
            demand = appraisal.demand if appraisal else None
            if self._spans:
                self._spans.estimated(ticket, model, demand)
            self._post(RequestArrived(now, ticket, model, demand, deadline_at, forwarded, terms))
            try:
                granted = await self._answers.wait(answer, now)
                if isinstance(granted, PeerLease):
                    granted = replace(granted, terms=terms, left_s=max(0.0, deadline_at - self._now()))
                elif appraisal is not None and appraisal.stored.adapter is not None:
                    if self._spans:
                        self._spans.stage("adapter")
                    await self._adapters.bring(granted.replica, granted.engine, appraisal.stored)
                yield granted
            except NotFound as error:
                raise (await self._demands.unknown(ref)) if error.code == RefusalCode.UNKNOWN_MODEL else error from None
            finally:
                self._post(RequestReleased(self._now(), ticket))
