"""Traces through a whole node: what is decided for a request is in its own trace, all else in one of its own."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from heliosd.api.traces import view_of
from heliosd.core.names import Ticket
from heliosd.core.timeline import from_rows
from heliosd.errors import EngineFailed
from heliosd.telemetry.metrics import Metrics
from heliosd.telemetry.traces import Traces
from heliosd.telemetry.tracing import Origin
from heliosd.telemetry.tracing_current import request_trace
from heliosd.telemetry.tracing_request import RequestTrace
from heliosd.wire import TraceSpan
from tests.node.world import world

PHASES = ["dispatch", "resolve", "turn", "fork", "weights", "warm_up", "settle"]
STAGES = ["receive", "estimate", "admission", "grant"]


def traces(sample_ratio: float = 1.0) -> Traces:
    return Traces(Origin("heliosd", "west", "1"), Metrics(), sample_ratio=sample_ratio)


@contextmanager
def asking(it: Traces, ticket: str) -> Iterator[RequestTrace]:
    """As the API does around a request."""
    trace = it.request("POST /v1/completions", {"helios.ticket": ticket})
    trace.stage("receive", from_start=True)
    token = request_trace.set(trace)
    try:
        yield trace
    finally:
        request_trace.reset(token)
        trace.end(200, "")


def seen(it: Traces, name: str) -> dict[str, TraceSpan]:
    return {span.name: span for span in view_of(it.ring.find(name)[0]).spans}


async def test_a_cold_start_is_in_the_trace_of_who_waits_and_a_warm_request_links_to_it(tmp_path: Path) -> None:
    it = traces()
    async with world(tmp_path, traces=it) as here:
        ref = await here.add("org/a")
        for ticket in ("t-cold", "t-warm"):
            with asking(it, ticket):
                async with here.node.lease(Ticket(ticket), ref):
                    pass
        await here.journal.flushed()
        (ready,) = await here.journal.read(kinds=("ready",))
        noted = {entry.kind: entry.detail.get("trace_id") for entry in await here.journal.read()}
    cold, warm = seen(it, "t-cold"), seen(it, "t-warm")
    assert set(cold) == {"POST /v1/completions", *STAGES, "placement", "start", "wait", *PHASES}
    assert list(warm) == ["POST /v1/completions", *STAGES]
    start = cold["start"]
    assert start.parent == cold["placement"].parent == cold["POST /v1/completions"].id
    assert all(cold[phase].parent == start.id for phase in PHASES)
    for span in from_rows(ready.detail["timeline"]):
        assert cold[span.phase].began_s - start.began_s == pytest.approx(span.began_s, abs=1e-4)
        assert cold[span.phase].ended_s - start.began_s == pytest.approx(span.ended_s, abs=1e-4)
    known = start.attributes
    predicted = known["helios.predicted_bytes"]
    assert predicted == known["helios.device.g0.booked_bytes"] and known["helios.measured_bytes"] > 0
    assert predicted == sum(known[f"helios.predicted_{term}_bytes"] for term in ("weights", "kv_cache", "overhead"))
    assert known["helios.tier"] == "nvme"
    trace_id = view_of(it.ring.find("t-cold")[0]).trace_id
    assert warm["grant"].links == [trace_id] and cold["grant"].links == []
    assert noted["start"] == noted["ready"] == noted["hold"] == trace_id
    assert noted["grant"] == noted["released"] == view_of(it.ring.find("t-warm")[0]).trace_id


async def test_who_made_room_is_in_the_trace_and_on_the_start(tmp_path: Path) -> None:
    it = traces()
    big = {"kv_cache": "50GiB"}
    async with world(tmp_path, models={"org/a": big, "org/b": big}, traces=it) as here:
        first, second = await here.add("org/a"), await here.add("org/b")
        await here.node.load(first)
        with asking(it, "t-b"):
            async with here.node.lease(Ticket("t-b"), second):
                pass
    told = seen(it, "t-b")
    assert (
        told["sleep"].attributes["helios.replica"] == "r1"
        and "room for org/b" in told["sleep"].attributes["helios.reason"]
    )
    (victim,) = told["start"].attributes["helios.evicted"]
    assert victim.startswith("sleep r1 of org/a: 5") and told["start"].attributes["helios.evicted_bytes"] > 50 * 2**30


async def test_a_start_that_nobody_traced_waits_for_is_a_trace_of_its_own(tmp_path: Path) -> None:
    it = traces()
    async with world(tmp_path, traces=it) as here:
        ref = await here.add("org/a")
        replica = await here.node.load(ref)
        (spans,) = it.ring._traces.values()
        assert [span.name for span in spans] == ["start", *PHASES]
        with asking(it, "t-1"):
            async with here.node.lease(Ticket("t-1"), ref):
                pass
        assert seen(it, "t-1")["grant"].links == [view_of(spans).trace_id]
        await here.node.stop(str(replica))
    assert [spans[-1].name for spans in it.ring._traces.values()][-1] == "stop"


async def test_a_start_that_fails_says_why_with_the_phases_that_ended(tmp_path: Path) -> None:
    it = traces()
    async with world(tmp_path, models={"org/a": {"engine_args": {"refuses": "no such kernel"}}}, traces=it) as here:
        ref = await here.add("org/a")
        with asking(it, "t-1"), pytest.raises(EngineFailed):
            async with here.node.lease(Ticket("t-1"), ref):
                pass
    told = seen(it, "t-1")
    assert "no such kernel" in (told["start"].error or "") and "weights" in told
    assert told["refuse"].attributes["helios.code"] == "engine_failed"


async def test_what_is_not_sampled_leaves_nothing(tmp_path: Path) -> None:
    it = traces(sample_ratio=0.0)
    async with world(tmp_path, traces=it) as here:
        ref = await here.add("org/a")
        with asking(it, "t-1") as trace:
            async with here.node.lease(Ticket("t-1"), ref):
                assert trace.traceparent
        await here.journal.flushed()
        assert not [entry for entry in await here.journal.read() if "trace_id" in entry.detail]
    assert it.ring.size == (0, 0)
