"""Traces over HTTP: what a client gets, what engines and peers are told, what can be looked up."""

from heliosd.api.doctor import traces_exported
from heliosd.core.names import PeerName
from heliosd.telemetry.metrics import Metrics
from heliosd.telemetry.traces import Traces
from heliosd.telemetry.tracing import Origin
from heliosd.wire import TraceView
from tests.api.world import World, world

CALLER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
TRACE_ID = CALLER.split("-")[1]
BODY = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "stream": True}


def traces() -> Traces:
    return Traces(Origin("heliosd", "west", "1"), Metrics())


async def seen(it: World, name: str) -> TraceView:
    async with it.local.get(f"/helios/v1/traces/{name}") as response:
        assert response.status == 200, await response.text()
        return TraceView.model_validate(await response.json())


async def test_an_answer_names_its_trace_and_the_engine_continues_it() -> None:
    async with world(traces=traces()) as it:
        headers = {"traceparent": CALLER, "tracestate": "a=b"}
        async with it.local.post("/v1/chat/completions", json=BODY, headers=headers) as response:
            assert response.status == 200
            told, ticket = response.headers["traceparent"], response.headers["X-Request-Id"]
            await response.read()
        by_ticket, by_id = await seen(it, ticket), await seen(it, TRACE_ID)
        assert by_ticket == by_id and by_id.trace_id == TRACE_ID == told.split("-")[1]
        spans = {span.name: span for span in by_id.spans}
        assert list(spans) == ["POST /v1/chat/completions", "receive", "answer", "first byte", "stream", "finish"]
        assert spans["POST /v1/chat/completions"].parent == CALLER.split("-")[2]
        assert told.split("-")[2] == spans["POST /v1/chat/completions"].id
        passed = dict(it.engine.seen[0].headers)
        assert passed["traceparent"].split("-")[1:3] == [TRACE_ID, spans["answer"].id] and "tracestate" not in passed
        assert spans["POST /v1/chat/completions"].attributes["http.response.status_code"] == 200


async def test_a_peer_continues_the_trace() -> None:
    async with world(traces=traces()) as it:
        it.node.at_peers["tiny"] = PeerName("east")
        async with it.local.post("/v1/chat/completions", json=BODY) as response:
            trace_id = response.headers["traceparent"].split("-")[1]
            await response.read()
        answer = next(span for span in (await seen(it, trace_id)).spans if span.name == "answer")
        assert answer.attributes["helios.peer"] == "east"
        assert dict(it.peers.passed[0][1].headers)["traceparent"].split("-")[1:3] == [trace_id, answer.id]


async def test_a_refusal_is_in_the_trace_and_reading_makes_none() -> None:
    it_traces = traces()
    async with world(traces=it_traces) as it:
        async with it.local.post("/v1/chat/completions", json={**BODY, "model": "nobody"}) as response:
            assert response.status == 404
            ticket = response.headers["X-Request-Id"]
        root = (await seen(it, ticket)).spans[0]
        assert root.error == "model_not_found" and root.ended_s is not None
        async with it.local.get("/helios/v1/node") as response:
            assert "traceparent" not in response.headers
        assert it_traces.ring.size[0] == 1
        async with it.local.get("/helios/v1/traces/t-99") as response:
            assert (response.status, (await response.json())["error"]["code"]) == (404, "trace_not_found")


async def test_without_tracing_the_client_s_context_goes_on_as_it_came(it: World) -> None:
    async with it.local.post("/v1/chat/completions", json=BODY, headers={"traceparent": CALLER}) as response:
        assert "traceparent" not in response.headers
        await response.read()
    assert dict(it.engine.seen[0].headers)["traceparent"] == CALLER
    async with it.local.get("/helios/v1/traces/t-1") as response:
        error = (await response.json())["error"]
        assert (response.status, error["code"]) == (404, "not_traced") and "tracing.enabled" in error["message"]


async def test_a_fetch_is_in_the_trace_of_who_asked_for_it() -> None:
    async with world(traces=traces()) as it:
        asked = {"source": "directory", "location": "/models/a", "ref": "org/a"}
        async with it.local.post("/helios/v1/models", json=asked) as response:
            ticket = response.headers["X-Request-Id"]
            await response.read()
        assert "fetch" in [span.name for span in (await seen(it, ticket)).spans]


async def test_the_doctor_says_whether_traces_are_exported(unused_tcp_port: int) -> None:
    async def found(it: Traces | None) -> tuple[bool, str]:
        (view,) = await traces_exported(it)()
        return view.ok, view.message

    assert await found(None) == (True, "off")
    assert (await found(traces()))[1].endswith("there is no collector (tracing.endpoint)")
    it = Traces(Origin("heliosd", "west", "1"), Metrics(), endpoint=f"http://127.0.0.1:{unused_tcp_port}")
    assert (await found(it))[0]
    assert it.exporter is not None
    it.exporter.error = "cannot reach http://127.0.0.1:1/v1/traces: refused"
    ok, message = await found(it)
    assert not ok and message.startswith("cannot reach") and "0 dropped" in message
