"""/helios/v1/explain: why a request, a model or a replica was treated as it was, with the arithmetic."""

import time
from collections.abc import Sequence

from aiohttp import web

from heliosd.api.asked import json_of
from heliosd.api.explain_views import (
    appetite_view,
    first,
    last_failure,
    noted_footprint,
    request_story,
    start_view,
    worth_view,
)
from heliosd.api.feed import subject_of
from heliosd.api.now import replica_now, replicas_of
from heliosd.api.parts import Entry, Parts, Stored
from heliosd.api.routes import Answer, Route, Scope
from heliosd.api.views import estimate_view, event_view
from heliosd.core.names import ReplicaId
from heliosd.errors import HeliosError, NotFound
from heliosd.explain import Facts
from heliosd.wire import EstimateView, Explanation, ModelStory, ReplicaStory, RequestStory

_MOST = 500
_LIFE = ("start", "ready", "exited")
"""What is noted of a replica once, however many it served."""


async def explain(request: web.Request, parts: Parts) -> web.StreamResponse:
    """The story of a ticket, a replica or a model, and all that the journal says about it."""
    asked = request.match_info["subject"]
    subject = await subject_of(parts, asked) or asked
    found = await parts.journal.read(subject=subject, limit=_MOST)
    stored = await parts.store.by_name(subject)
    facts = parts.node.facts(subject)
    if not found and stored is None and facts.worth is None and facts.waits is None:
        raise NotFound(
            f"cannot explain {asked}: the journal has nothing on it. Ask for a ticket (the header x-request-id "
            "of an answer), a replica or a model"
        )
    story: dict[str, RequestStory | ModelStory | ReplicaStory | None] = {}
    if any(entry.ticket == subject for entry in found):
        story["request"] = await _request(parts, found, facts)
    elif stored is not None or any(entry.model == subject for entry in found):
        story["model"] = await _model(parts, subject, stored, facts)
    else:
        story["replica"] = await _replica(parts, subject, facts)
    return json_of(Explanation(subject=asked, events=[event_view(entry) for entry in found], **story))


async def _request(parts: Parts, found: Sequence[Entry], facts: Facts) -> RequestStory | None:
    served_by = next((entry.replica for entry in found if entry.kind == "grant"), None)
    of_replica = await parts.journal.read(subject=served_by, kinds=_LIFE) if served_by else ()
    return request_story(found, of_replica, facts.waits, time.time())


async def _model(parts: Parts, model: str, stored: Stored | None, facts: Facts) -> ModelStory:
    snapshot = parts.node.snapshot()
    ends = await parts.journal.read(subject=model, kinds=("exited",))
    return ModelStory(
        estimate=await _estimate(parts, stored) if stored else None,
        replicas=replicas_of(parts, snapshot, [each for each in snapshot.replicas if each.model == model]),
        appetite=appetite_view(facts.appetite) if facts.appetite else None,
        failure=last_failure(ends),
    )


async def _estimate(parts: Parts, stored: Stored) -> EstimateView | None:
    """None when its settings contradict each other: the rest of the story is no worse for it."""
    try:
        return estimate_view(await parts.node.judge(stored.ref))
    except HeliosError:
        return None


async def _replica(parts: Parts, replica: str, facts: Facts) -> ReplicaStory:
    life = await parts.journal.read(subject=replica, kinds=_LIFE)
    start, ready, ended = (first(life, kind) for kind in ("start", "ready", "exited"))
    running = replica_now(parts, ReplicaId(replica))
    return ReplicaStory(
        model=running.model if running else next((entry.model for entry in life if entry.model), None),
        start=start_view(life),
        predicted=running.predicted if running else noted_footprint(start, "predicted"),
        measured=running.measured if running else noted_footprint(ready, "measured"),
        running=running,
        appetite=appetite_view(facts.appetite) if facts.appetite else None,
        worth=worth_view(facts.worth) if facts.worth else None,
        ended=event_view(ended) if ended else None,
    )


ROUTES = (
    Route(
        "GET",
        "/helios/v1/explain/{subject:.+}",
        explain,
        Scope.ADMIN,
        "Why something happened: the story of one ticket, replica or model.",
        Answer("its story, and the journal's lines on it, oldest first", Explanation),
        detail="A request: what it waited for and how long. A model: what it would take now, how much it is asked for, "
        "what failed. A replica: predicted and measured, and what its loss would cost.",
        errors=("not_found",),
    ),
)
