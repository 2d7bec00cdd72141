"""A story in words: what happened to a request, what a model would take, what a replica is worth. Prints nothing."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from heliosctl.output import Column, table
from heliosctl.times import clock
from heliosd.core.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from heliosd.wire import (
        AppetiteView,
        EstimateView,
        Explanation,
        FootprintView,
        MemoryView,
        ModelStory,
        ReplicaStory,
        RequestStory,
        StartView,
        WorthView,
    )

_PARTS = (
    ("weights", "weights_bytes"),
    ("KV cache", "kv_cache_bytes"),
    ("overhead", "overhead_bytes"),
    ("total", "total_bytes"),
)


def story(told: "Explanation") -> str:
    """All there is; empty when only the journal's lines are."""
    lines: list[str] = []
    if told.request is not None:
        lines += _request(told.subject, told.request)
    if told.model is not None:
        lines += _model(told.subject, told.model)
    if told.replica is not None:
        lines += _replica(told.subject, told.replica)
    return "\n".join(lines)


def _request(ticket: str, it: "RequestStory") -> Iterator[str]:
    waited = format_seconds(it.waited_s)
    ends = {
        "waiting": f"has waited {waited} so far",
        "served": f"waited {waited}; {it.replica} works on it",
        "over": f"waited {waited}; {it.replica or 'nobody'} worked on it"
        + (f" for {format_seconds(it.served_s)}" if it.served_s is not None else ""),
        "forwarded": f"waited {waited} and went to a peer",
        "refused": f"waited {waited} and was refused ({it.code})",
    }
    yield f"{ticket} asked for {it.model or 'a model'} at {clock(it.arrived_at)}, {ends[it.state]}"
    for step in it.steps:
        yield f"  +{format_seconds(step.after_s)}  {step.kind}: {step.reason}{_place(step.position, step.eta_s)}"
    if it.state == "waiting":
        yield f"  now{_place(it.position, it.eta_s)}"
    if it.cause:
        yield f"  the engine said: {it.cause.strip().splitlines()[-1]}"
    if it.waited_for is not None:
        yield from _start("it waited for the start of", it.waited_for)


def _place(position: int | None, eta_s: float | None) -> str:
    if position is None:
        return ""
    when = "nobody can tell when" if eta_s is None else f"in {format_seconds(eta_s)}, as it looked"
    return f" ({position} before it; {when})"


def _start(words: str, it: "StartView") -> Iterator[str]:
    took = "not ready" if it.took_s is None else f"ready after {format_seconds(it.took_s)}"
    yield f"  {words} {it.replica} at {clock(it.began_at)}, {took}{_phases(it.phases)}"
    yield f"    {it.reason}"


def _phases(phases: Mapping[str, float]) -> str:
    shown = ", ".join(f"{name} {format_seconds(span_s)}" for name, span_s in phases.items())
    return f": {shown}" if shown else ""


def _model(model: str, it: "ModelStory") -> Iterator[str]:
    yield model
    if it.estimate is not None:
        need = it.estimate.per_device
        parts = " + ".join(f"{format_bytes(getattr(need, field))} {name}" for name, field in _PARTS[:-1])
        yield f"  would take {parts} = {format_bytes(need.total_bytes)} on {_devices(it.estimate)}"
        yield f"  {it.estimate.verdict.replace('_', ' ')}: {it.estimate.reason}"
        yield from (f"  {note}" for note in it.estimate.notes)
    for replica in it.replicas:
        measured = "not measured yet" if replica.measured is None else _against(replica.predicted, replica.measured)
        where = "+".join(replica.devices)
        yield f"  {replica.id} is {replica.state} on {where}, {replica.leases} leases; {measured}"
    if it.appetite is not None:
        yield from _appetite(it.appetite)
    if it.failure is not None:
        yield f"  last failure: {it.failure.message} ({clock(it.failure.at)})"


def _devices(it: "EstimateView") -> str:
    stages = f" in {it.pipeline_parallel} pipeline stages" if it.pipeline_parallel > 1 else ""
    return "one device" if it.device_count == 1 else f"each of {it.device_count} devices{stages}"


def _against(predicted: "FootprintView", measured: "FootprintView") -> str:
    off = measured.total_bytes / max(1, predicted.total_bytes) - 1
    return (
        f"predicted {format_bytes(predicted.total_bytes)}, measured {format_bytes(measured.total_bytes)} ({off:+.1%})"
    )


def _appetite(it: "AppetiteView") -> Iterator[str]:
    yield (
        f"  asked for {it.asked_per_minute:.2g} times a minute: {it.reuse_ratio:.0%} that somebody asks within "
        f"{format_seconds(it.horizon_s)}; {it.waiting} wait"
    )
    times = [("a start took", it.reload_s), ("waking took", it.wake_s), ("a request takes", it.lease_s)]
    said = ", ".join(f"{name} {format_seconds(span_s)}" for name, span_s in times if span_s is not None)
    if said:
        yield f"  {said}"
    if it.tier is not None and it.read_s is not None:
        yield f"  lies in {it.tier}: reading it from there takes {format_seconds(it.read_s)}"
    if it.at_once is not None:
        yield f"  at most {it.at_once} requests at once are expected"
    for barred in it.barred:
        when = f"not tried for {format_seconds(barred.retry_in_s)}" if barred.retry_in_s else "the next request may try"
        cause = barred.cause.strip().splitlines()[-1:] or [""]
        yield f"  failed {barred.failures} times in a row on {'+'.join(barred.devices)}, {when}: {cause[0]}"


def _replica(replica: str, it: "ReplicaStory") -> Iterator[str]:
    now = it.running
    state = f"is {now.state} on {'+'.join(now.devices)} with {now.leases} leases" if now else "has ended"
    yield f"{replica} of {it.model or 'a model'} {state}"
    if it.start is not None:
        yield from _start("started as", it.start)
    if it.predicted is not None:
        yield from _columns(it.predicted, it.measured)
    if now is not None and now.memory is not None:
        yield _memory(now.memory)
    if it.worth is not None:
        yield from _worth(it.worth, it.appetite)
    if it.ended is not None:
        yield f"  {it.ended.message} ({clock(it.ended.at)})"


def _memory(it: "MemoryView") -> str:
    held = [("of RAM", it.pss_bytes), ("of its devices", it.device_bytes)]
    now = ", ".join(f"{format_bytes(n_bytes)} {where}" for where, n_bytes in held if n_bytes is not None)
    return f"  memory over time: {'it leaks; ' if it.suspected else ''}{it.why}{f'; now {now}' if now else ''}"


def _columns(predicted: "FootprintView", measured: "FootprintView | None") -> Iterator[str]:
    titles = (Column(""), Column("PREDICTED", right=True), Column("MEASURED", right=True), Column("OFF", right=True))
    rows = []
    for name, field in _PARTS:
        before, after = getattr(predicted, field), getattr(measured, field) if measured else None
        off = (
            "-"
            if after is None
            else f"{after - before:+,} B"
            if abs(after - before) < 1024
            else _signed(after - before)
        )
        rows.append((name, format_bytes(before), "-" if after is None else format_bytes(after), off))
    yield from ("  " + line for line in table(titles, rows).splitlines())


def _signed(n_bytes: int) -> str:
    return ("-" if n_bytes < 0 else "+") + format_bytes(abs(n_bytes))


def _worth(it: "WorthView", appetite: "AppetiteView | None") -> Iterator[str]:
    reuse = appetite.reuse_ratio if appetite else 0.0
    way = "to sleep" if it.sleeps else "away"
    yield (
        f"  sent {way} it would free {format_bytes(it.frees_bytes)} on each device and cost "
        f"{format_seconds(it.loss_s)} of waiting: {reuse:.0%} that it is asked for · "
        f"{format_seconds(it.slower_s)} longer to have it back"
    )
    turn = "is not asked to make room" if it.rank is None else f"is number {it.rank} of {it.of} to make room"
    yield f"  it {turn}{f': {it.protected}' if it.protected else ''}"
    for rival in it.before:
        price = f"{format_seconds(rival.loss_s)} for {format_bytes(rival.frees_bytes)}"
        yield f"    before it {rival.replica} of {rival.model}: {price}"
