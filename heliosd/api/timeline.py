"""The start of a replica, phase by phase: of one that is there as its clock tells, of others as the journal does."""

import time
from collections.abc import Sequence

from heliosd.api.explain_views import first
from heliosd.api.feed import subject_of
from heliosd.api.parts import Entry, Parts
from heliosd.core.lifecycle import COMING
from heliosd.core.names import ReplicaId
from heliosd.core.snapshot import ReplicaStatus
from heliosd.core.timeline import Span, Timeline, from_rows
from heliosd.wire import SpanView, TimelineView


async def starting_now(parts: Parts, model: str) -> TimelineView | None:
    """Of the replica of the model that starts at the moment."""
    name = await subject_of(parts, model)
    found = [each for each in parts.node.snapshot().replicas if each.model == name and each.state in COMING]
    return _running(parts, found[-1]) if found else None


async def last_start(parts: Parts, subject: str) -> TimelineView | None:
    """Of a replica by its id, or the last one of a model; None when nothing tells of it."""
    name = await subject_of(parts, subject)
    there = [each for each in parts.node.snapshot().replicas if name in (each.id, each.model)]
    for replica in reversed(there):
        if (view := _running(parts, replica)) is not None:
            return view
    await parts.journal.flushed()  # it may have ended a moment ago
    ready = await parts.journal.read(subject=name, kinds=("ready",), limit=1)
    if not ready or ready[-1].replica is None:
        return None
    life = await parts.journal.read(subject=ready[-1].replica, kinds=("start", "ready", "first_token", "exited"))
    return journal_view(life)


def journal_view(life: Sequence[Entry]) -> TimelineView | None:
    """From the lines on one replica; None when they do not tell when its phases were."""
    start, ready, word = (first(life, kind) for kind in ("start", "ready", "first_token"))
    if ready is None or ready.replica is None or "timeline" not in ready.detail:
        return None
    spans = from_rows([*ready.detail["timeline"], *(word.detail["timeline"] if word else [])])
    total_s = max([float(ready.detail["total_s"]), *(span.ended_s for span in spans)])
    ended = first(life, "exited") is not None
    began_at = start.at if start else ready.at - total_s
    return _view(ready.replica, ready.model, "ended" if ended else "ready", began_at, Timeline(spans, total_s))


def _running(parts: Parts, replica: ReplicaStatus) -> TimelineView | None:
    so_far = parts.node.start_so_far(ReplicaId(replica.id))
    if so_far is None:
        return None
    state, began_at = "starting" if so_far.starting else "ready", time.time() - so_far.age_s
    view = _view(replica.id, replica.model, state, began_at, so_far.timeline)
    return view.model_copy(update={"expected": dict(so_far.expected), "left_s": so_far.left_s})


def _view(replica: str, model: str | None, state: str, began_at: float, timeline: Timeline) -> TimelineView:
    return TimelineView(
        replica=replica,
        model=model,
        state=state,
        began_at=began_at,
        total_s=timeline.total_s,
        other_s=round(timeline.other_s, 4),
        spans=[_span(span) for span in timeline.spans],
    )


def _span(span: Span) -> SpanView:
    return SpanView(phase=span.phase, began_s=span.began_s, ended_s=span.ended_s, within=span.within)
