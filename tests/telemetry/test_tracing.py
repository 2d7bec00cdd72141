"""Spans as they are made, kept and sent to a real collector."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceResponse,
)

from heliosd.api.traces import view_of
from heliosd.telemetry import tracing_export, tracing_ring
from heliosd.telemetry.metrics import Metrics
from heliosd.telemetry.traces import Traces
from heliosd.telemetry.tracing import Origin
from heliosd.telemetry.tracing_current import request_trace
from heliosd.telemetry.tracing_export import traces_url
from heliosd.telemetry.tracing_request import RequestTrace
from tests.telemetry.otlp import attributes, collector

ORIGIN = Origin("heliosd", "west", "1")
CALLER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-{}"


def traces(endpoint: str | None = None, sample_ratio: float = 1.0, metrics: Metrics | None = None) -> Traces:
    return Traces(ORIGIN, metrics or Metrics(), endpoint=endpoint, sample_ratio=sample_ratio)


@asynccontextmanager
async def running(it: Traces) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as tasks:
        exporting = tasks.create_task(it.run())
        yield
        exporting.cancel()


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches do not wait to become full."""
    monkeypatch.setattr(tracing_export, "_COLLECT_S", 0.0)


async def until(true: Callable[..., bool]) -> None:
    while not true():  # noqa: ASYNC110 - it is true within a turn or two of the loop
        await asyncio.sleep(0)


def a_request(it: Traces, ticket: str = "t-1", caller: str = "") -> RequestTrace:
    request = it.request("POST /v1/chat/completions", {"helios.ticket": ticket}, caller)
    request.stage("receive", from_start=True)
    request.answering({"helios.replica": "r1"})
    request.first_byte()
    request.end(200, "")
    return request


async def test_stages_follow_one_another_without_a_gap() -> None:
    it = traces()
    request = a_request(it)
    spans, _ = it.ring.find("t-1")
    view = view_of(spans)
    assert view.trace_id == request.id and view.unexplained_s == 0
    assert [span.name for span in view.spans] == [
        "POST /v1/chat/completions", "receive", "answer", "first byte", "stream",
    ]  # fmt: skip
    root, receive, answer, first, stream = spans
    assert (root.start_time, root.end_time) == (receive.start_time, answer.end_time)
    assert receive.end_time == answer.start_time and first.end_time == stream.start_time
    assert stream.end_time == answer.end_time


async def test_a_wait_for_the_same_reason_is_one_span() -> None:
    it = traces()
    request = it.request("POST /x", {"helios.ticket": "t-1"})
    for reason, position in (("r1 is busy", 2), ("r1 is busy", 1), ("r1 drains", 0)):
        request.wait({"helios.reason": reason, "helios.position": position})
    view = view_of(it.ring.find("t-1")[0])
    assert [(span.name, len(span.events), span.ended_s is None) for span in view.spans] == [
        ("POST /x", 0, True),
        ("wait", 1, False),
        ("wait", 0, True),
    ], "what is under way is seen too"


async def test_the_caller_decides_whether_his_trace_is_kept_and_the_ratio_decides_for_others() -> None:
    kept, not_kept = CALLER.format("01"), CALLER.format("00")
    never = traces(sample_ratio=0.0)
    assert a_request(never, "t-1", kept).id == kept.split("-")[1]
    assert not a_request(never, "t-2", not_kept).kept and not a_request(never, "t-3").kept
    assert [bool(never.ring.find(ticket)[0]) for ticket in ("t-1", "t-2", "t-3")] == [True, False, False]
    assert not int(a_request(never).traceparent[-2:], 16) & 1, "an engine or a peer shall not keep it either"
    always = traces()
    assert not a_request(always, "t-1", not_kept).kept
    for nonsense in ("", "00-xyz", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "x" * 10_000):
        assert a_request(always, "t-2", nonsense).kept


async def test_the_memory_for_traces_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("KEPT_TRACES", 3), ("KEPT_SPANS", 40), ("SPANS_OF_A_TRACE", 20)):
        monkeypatch.setattr(tracing_ring, name, value)
    it = traces()
    for number in range(5):
        a_request(it, f"t-{number}")
    assert it.ring.size == (3, 15)
    assert not it.ring.find("t-1")[0] and it.ring.find("t-2")[0]
    long = it.request("POST /long", {"helios.ticket": "t-long"})
    for number in range(30):
        long.stage(f"stage {number}")
    spans, left_out = it.ring.find(long.id)
    assert (len(spans), left_out) == (20, 11)
    for number in range(9):
        a_request(it, f"t-again-{number}")
        assert it.ring.size[0] <= 3 and it.ring.size[1] <= 40


async def test_what_is_done_for_a_request_is_below_it_and_else_a_trace_of_its_own() -> None:
    it = traces()
    with pytest.raises(OSError, match="full"), it.work("tier move", {"helios.model": "org/a"}):
        raise OSError("the disk is full")
    request = it.request("POST /helios/v1/models", {"helios.ticket": "t-1"})
    token = request_trace.set(request)
    with it.work("fetch", {}):
        pass
    request_trace.reset(token)
    spans, _ = it.ring.find("t-1")
    assert [span.name for span in spans] == ["POST /helios/v1/models", "fetch"]
    assert it.ring.size == (2, 3)


async def test_vllm_s_numbers_become_spans() -> None:
    it = traces()
    request = it.request("POST /v1/completions", {"helios.ticket": "t-1"})
    caller, told = (
        request.answering({}),
        {"time_in_queue": 0.1, "time_in_model_prefill": 0.2, "time_in_model_decode": 0.5},
    )
    theirs = it.tracing.begin(
        "llm_request", {f"gen_ai.latency.{k}": v for k, v in told.items()}, caller=caller, at_ns=10**9
    )
    theirs.end(2 * 10**9)
    spans = {span.name: span for span in it.ring.find("t-1")[0]}
    placed = {name: (spans[name].start_time, spans[name].end_time) for name in ("queue", "prefill", "decode")}
    assert placed == {
        "queue": (1_200_000_000, 1_300_000_000),
        "prefill": (1_300_000_000, 1_500_000_000),
        "decode": (1_500_000_000, 2_000_000_000),
    }
    assert spans["llm_request"].parent and spans["llm_request"].parent.span_id == spans["answer"].context.span_id


# ---- export ----------------------------------------------------------------


def counted(metrics: Metrics) -> dict[str, float]:
    return {
        sample.labels["outcome"]: sample.value
        for family in metrics._registry.collect()
        for sample in family.samples
        if sample.name == "helios_trace_spans_total"
    }


async def test_spans_are_sent_with_what_they_know() -> None:
    async with collector() as there:
        metrics = Metrics()
        it = Traces(ORIGIN, metrics, endpoint=there.url, headers={"authorization": "Bearer x"})
        async with running(it):
            request = a_request(it, "t-7")
            await there.until("POST /v1/chat/completions", "stream")
            assert it.exporter is not None
            await until(lambda: it.exporter.sent == 5)
            assert it.exporter.error is None
        assert there.headers[0]["authorization"] == "Bearer x"
        assert {span.trace_id.hex() for span in there.spans} == {request.id}
        assert attributes(there.named("POST /v1/chat/completions"))["helios.ticket"] == "t-7"
        assert set(there.services) == {"heliosd"}
        assert counted(metrics) == {"sent": 5}


async def test_what_is_left_is_sent_at_the_end() -> None:
    async with collector() as there:
        it = traces(there.url)
        async with asyncio.TaskGroup() as tasks:
            exporting = tasks.create_task(it.run())
            a_request(it)
            await asyncio.sleep(0)
            exporting.cancel()
        assert len(there.spans) == 5


async def test_a_collector_that_is_busy_is_asked_again_and_one_that_refuses_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tracing_export, "_FIRST_PAUSE_S", 0.01)
    async with collector() as there:
        metrics = Metrics()
        it = traces(there.url, metrics=metrics)
        some = ExportTraceServiceResponse(
            partial_success=ExportTracePartialSuccess(rejected_spans=2, error_message="too old")
        )
        none = ExportTraceServiceResponse()
        there.answers = [(503, none), (429, none), (200, none), (400, none), (200, some)]
        async with running(it):
            a_request(it)
            assert it.exporter is not None
            await until(lambda: it.exporter.sent == 5)
            assert len(there.headers) == 3 and counted(metrics) == {"sent": 5}
            for dropped, words in ((5, "answers 400"), (7, "rejected 2 of 5 spans: too old")):
                a_request(it)
                await until(lambda least=dropped: it.exporter.dropped >= least)
                assert words in (it.exporter.error or "")
            a_request(it)
            await until(lambda: it.exporter.error is None)
        assert counted(metrics) == {"sent": 13, "dropped": 7}


async def test_a_collector_that_is_down_costs_spans_beyond_a_bound_and_holds_nobody_up(
    monkeypatch: pytest.MonkeyPatch, unused_tcp_port: int
) -> None:
    monkeypatch.setattr(tracing_export, "QUEUED_SPANS", 20)
    metrics = Metrics()
    it = traces(f"http://127.0.0.1:{unused_tcp_port}", metrics=metrics)
    async with running(it):
        for _ in range(10):
            a_request(it)
        assert it.exporter is not None
        await until(lambda: it.exporter.error is not None and it.exporter.dropped > 0)
        assert "cannot reach http://127.0.0.1" in it.exporter.error
        assert it.exporter.dropped == 30 and counted(metrics) == {"dropped": 30}


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        ("http://c:4318", "http://c:4318/v1/traces"),
        ("http://c:4318/", "http://c:4318/v1/traces"),
        ("https://c/otlp/v1/traces", "https://c/otlp/v1/traces"),
    ],
)
def test_a_collector_without_a_path_is_asked_at_the_usual_one(endpoint: str, url: str) -> None:
    assert traces_url(endpoint) == url
