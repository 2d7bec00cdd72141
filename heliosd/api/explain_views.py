"""What the journal's lines tell together: the story of a request, the start and end of a replica. Pure."""

from collections.abc import Sequence
from typing import Any, Literal

from heliosd.api.parts import Entry
from heliosd.api.views import event_view
from heliosd.explain import Appetite, Waits, Worth
from heliosd.wire import (
    AppetiteView,
    BarredView,
    EventView,
    FootprintView,
    RequestStory,
    RivalView,
    StartView,
    StepView,
    WorthView,
)

_STEPS = ("hold", "grant", "forward", "refuse", "released")
_ANSWERS: dict[str, Literal["served", "forwarded", "refused"]] = {
    "grant": "served",
    "forward": "forwarded",
    "refuse": "refused",
}


def request_story(
    entries: Sequence[Entry], of_replica: Sequence[Entry], waits: Waits | None, now: float
) -> RequestStory | None:
    """`entries` are of one ticket, `of_replica` of the one that serves it. A request is answered or held as it comes,
    so the first entry tells when it came."""
    steps = [entry for entry in entries if entry.kind in _STEPS]
    if not steps:
        return None
    arrived_at = steps[0].at
    answer = next((entry for entry in steps if entry.kind in _ANSWERS), None)
    released = next((entry for entry in steps if entry.kind == "released"), None)
    ended = answer or released  # a client that gave up has no answer
    state: Literal["waiting", "served", "over", "forwarded", "refused"] = "waiting" if ended is None else "over"
    if answer is not None and (released is None or answer.kind == "refuse"):
        state = _ANSWERS[answer.kind]
    granted = answer if answer is not None and answer.kind == "grant" else None
    start = start_view(of_replica)
    ready_at = start.began_at + start.took_s if start and start.took_s is not None else 0.0
    return RequestStory(
        model=next((entry.model for entry in steps if entry.model), None),
        state=state,
        arrived_at=arrived_at,
        waited_s=waits.waited_s if waits else (ended.at if ended else now) - arrived_at,
        served_s=released.at - granted.at if granted and released else None,
        steps=[_step(entry, arrived_at) for entry in steps],
        replica=granted.replica if granted else None,
        waited_for=start if ready_at >= arrived_at else None,
        position=waits.position if waits else None,
        eta_s=waits.eta_s if waits else None,
        **({name: answer.detail.get(name) for name in ("code", "cause")} if answer else {}),
    )


def _step(entry: Entry, arrived_at: float) -> StepView:
    return StepView(
        after_s=entry.at - arrived_at,
        kind=entry.kind,
        reason=entry.message,
        position=entry.detail.get("position"),
        eta_s=entry.detail.get("eta_s"),
    )


def start_view(entries: Sequence[Entry]) -> StartView | None:
    """Of a replica's lines; None when its start is no longer among them."""
    start, ready = first(entries, "start"), first(entries, "ready")
    if start is None or start.replica is None:
        return None
    return StartView(
        replica=start.replica,
        reason=start.message,
        devices=list(start.detail.get("devices", [])),
        began_at=start.at,
        took_s=ready.at - start.at if ready else None,
        phases=dict(ready.detail.get("phases", {})) if ready else {},
    )


def noted_footprint(entry: Entry | None, name: str) -> FootprintView | None:
    """A footprint from the detail of a line."""
    noted: dict[str, Any] | None = entry.detail.get(name) if entry else None
    return FootprintView(**noted, total_bytes=sum(noted.values())) if noted else None


def first(entries: Sequence[Entry], kind: str) -> Entry | None:
    return next((entry for entry in entries if entry.kind == kind), None)


def last_failure(entries: Sequence[Entry]) -> EventView | None:
    """The newest line that tells of an engine's own failure."""
    failed = [entry for entry in entries if entry.detail.get("cause")]
    return event_view(failed[-1]) if failed else None


def appetite_view(appetite: Appetite) -> AppetiteView:
    return AppetiteView(
        asked_per_minute=appetite.asked_per_minute,
        reuse_ratio=appetite.reuse_ratio,
        horizon_s=appetite.horizon_s,
        reload_s=appetite.reload_s,
        wake_s=appetite.wake_s,
        lease_s=appetite.lease_s,
        waiting=appetite.waiting,
        barred=[
            BarredView(devices=list(each.devices), failures=each.failures, retry_in_s=each.retry_in_s, cause=each.cause)
            for each in appetite.barred
        ],
        tier=appetite.tier,
        read_s=appetite.read_s,
        at_once=appetite.at_once,
    )


def worth_view(worth: Worth) -> WorthView:
    return WorthView(
        loss_s=worth.loss_s,
        slower_s=worth.slower_s,
        frees_bytes=worth.frees_bytes,
        sleeps=worth.sleeps,
        rank=worth.rank,
        of=worth.of,
        protected=worth.protected,
        before=[
            RivalView(replica=each.id, model=each.model, loss_s=each.loss_s, frees_bytes=each.frees_bytes)
            for each in worth.before
        ],
    )
