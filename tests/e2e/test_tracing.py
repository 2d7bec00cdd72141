"""Traces of a whole daemon: of simulated engines, and of vLLM with its own spans joined."""

import asyncio
import json
from pathlib import Path

import httpx
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from heliosctl.__main__ import main
from heliosd.core.timeline import Span as Phase
from heliosd.core.timeline import Timeline
from tests.e2e.conftest import SMOL
from tests.e2e.daemon import Daemon, heliosd, prepared
from tests.store.models import model_files, write_folder
from tests.telemetry.otlp import attributes, collector

FLEET = '[[device]]\nname = "g0"\ncapacity = "8GiB"\n'
MOST_UNEXPLAINED = 0.05
CALLER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

pytestmark = pytest.mark.slow


def ask(daemon: Daemon, model: str, **headers: str) -> httpx.Response:
    body = {
        "model": model,
        "messages": [{"role": "user", "content": "Name a colour."}],
        "max_tokens": 16,
        "stream": True,
    }
    answer = daemon.admin.post("/v1/chat/completions", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer


def shown(daemon: Daemon, name: str, capsys: pytest.CaptureFixture[str]) -> dict:
    capsys.readouterr()
    assert main(["--socket", str(daemon.socket), "trace", name, "-o", "json"]) == 0
    return json.loads(capsys.readouterr().out)


def paths(spans: list[dict]) -> set[str]:
    """Each span with those above it."""
    known = {span["id"]: span for span in spans}

    def path(span: dict) -> str:
        above = known.get(span["parent"])
        return (path(above) + " / " if above else "") + span["name"]

    return {path(span) for span in spans}


def uncovered(view: dict, name: str) -> float:
    """Of a span's time the share that no span right below it tells of."""
    span = next(each for each in view["spans"] if each["name"] == name)
    below = [
        Phase(each["name"], each["began_s"] - span["began_s"], each["ended_s"] - span["began_s"])
        for each in view["spans"]
        if each["parent"] == span["id"]
    ]
    took_s = span["ended_s"] - span["began_s"]
    return Timeline(tuple(below), took_s).other_s / took_s


ROOT = "POST /v1/chat/completions"
WARM = {f"{ROOT} / {name}" for name in ("receive", "estimate", "admission", "grant", "answer", "finish")} | {
    ROOT, f"{ROOT} / answer / first byte", f"{ROOT} / answer / stream",
}  # fmt: skip
COLD = WARM | {f"{ROOT} / {name}" for name in ("placement", "wait", "start")}


async def test_a_cold_and_a_warm_request_are_told_span_by_span(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with collector() as there:
        config = f"""
[tracing]
enabled = true
endpoint = "{there.url}"
headers = "x-tenant=ours"
[models."test/a"]
kv_cache = "4GiB"
engine_args = {{load_s = 0.4}}
[models."test/b"]
kv_cache = "4GiB"
engine_args = {{load_s = 0.1}}
"""
        await asyncio.to_thread(_ask_cold_and_warm, config, tmp_path, capsys)
        assert there.headers[0]["x-tenant"] == "ours"
        joined = [span for span in there.spans if span.trace_id.hex() == CALLER.split("-")[1]]
        (root,) = [span for span in joined if span.name == ROOT]
        assert (root.parent_span_id.hex(), root.kind) == (CALLER.split("-")[2], Span.SPAN_KIND_SERVER)
        assert {"start", "weights", "first byte"} <= {span.name for span in joined}, "they were sent before the end"
        assert set(there.services) == {"heliosd"}


def _ask_cold_and_warm(config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with heliosd(fleet=FLEET, config=config) as daemon:
        daemon.bring(write_folder(tmp_path / "a", model_files()), "test/a")
        daemon.bring(write_folder(tmp_path / "b", model_files()), "test/b")
        cold, warm = ask(daemon, "test/a", traceparent=CALLER), ask(daemon, "test/a")
        trace_id = CALLER.split("-")[1]
        assert cold.headers["traceparent"].split("-")[1] == trace_id
        first = shown(daemon, cold.headers["x-request-id"], capsys)
        assert first["trace_id"] == trace_id
        phases = {
            f"{ROOT} / start / {name}"
            for name in ("dispatch", "resolve", "turn", "fork", "weights", "warm_up", "settle")
        }
        assert paths(first["spans"]) == COLD | phases
        second = shown(daemon, warm.headers["traceparent"].split("-")[1], capsys)
        assert paths(second["spans"]) == WARM
        for seen in (first, second):
            assert seen["unexplained_s"] <= MOST_UNEXPLAINED * seen["total_s"]
        assert max(uncovered(first, "start"), uncovered(second, "answer")) <= MOST_UNEXPLAINED
        start = next(span for span in first["spans"] if span["name"] == "start")
        known = start["attributes"]
        assert known["helios.tier"] == "nvme" and known["helios.device.g0.free_bytes"] >= 0
        assert known["helios.predicted_bytes"] == known["helios.device.g0.booked_bytes"] > 4 * 2**30
        (link,) = next(span for span in second["spans"] if span["name"] == "grant")["links"]
        assert link == trace_id, "the start that it profits from"

        other = shown(daemon, ask(daemon, "test/b").headers["x-request-id"], capsys)
        assert {f"{ROOT} / drain", f"{ROOT} / stop"} <= paths(other["spans"])
        (evicted,) = next(span for span in other["spans"] if span["name"] == "start")["attributes"]["helios.evicted"]
        assert evicted.startswith("stop r1 of test/a: ")

        refused = daemon.admin.post("/v1/chat/completions", json={"model": "test/none", "messages": []})
        assert refused.status_code == 404
        error = shown(daemon, refused.headers["x-request-id"], capsys)["spans"][0]["error"]
        assert error == "model_not_found"

        noted = daemon.admin.get(f"/helios/v1/explain/{cold.headers['x-request-id']}").json()["events"]
        assert {event["detail"]["trace_id"] for event in noted} == {trace_id}
        begun = daemon.admin.get("/helios/v1/explain/r1").json()["events"]
        assert next(event for event in begun if event["kind"] == "start")["detail"]["trace_id"] == trace_id
        assert f"ticket={cold.headers['x-request-id']} trace_id={trace_id} " in daemon.log()
        assert f'msg="engine ready" trace_id={trace_id} replica=r1' in daemon.log()
        assert main(["--socket", str(daemon.socket), "trace", "t-unknown"]) == 4
        assert "not among the last" in capsys.readouterr().err
        daemon.until(
            lambda: 'helios_trace_spans_total{outcome="sent"}' in daemon.admin.get("/metrics").text,
            30,
            "nothing is sent",
        )
        assert main(["--socket", str(daemon.socket), "doctor", "-o", "json"]) == 0
        (check,) = [each for each in json.loads(capsys.readouterr().out)["checks"] if each["name"] == "tracing"]
        assert check["ok"] and "spans sent to the collector, 0 dropped" in check["message"]
        daemon.stop()


def test_without_tracing_its_library_is_not_loaded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with prepared(fleet=FLEET) as daemon:
        daemon.environment["PYTHONPROFILEIMPORTTIME"] = "1"
        daemon.start()
        daemon.bring(write_folder(tmp_path / "a", model_files()), "test/a")
        answer = ask(daemon, "test/a", traceparent=CALLER)
        assert "traceparent" not in answer.headers
        imported = daemon.log()
        assert "heliosd.telemetry.metrics" in imported and "opentelemetry" not in imported
        assert main(["--socket", str(daemon.socket), "trace", answer.headers["x-request-id"]]) == 4
        assert "tracing.enabled" in capsys.readouterr().err
        daemon.stop()


async def test_vllm_tells_its_own_part_of_the_same_trace(stock: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with collector() as there:
        config = f'[tracing]\nenabled = true\nendpoint = "{there.url}"\n'
        with heliosd(config=config, stock=stock) as daemon:
            cold = await asyncio.to_thread(ask, daemon, SMOL)
            warm = await asyncio.to_thread(ask, daemon, SMOL)
            seen = [
                await asyncio.to_thread(shown, daemon, answer.headers["x-request-id"], capsys)
                for answer in (cold, warm)
            ]
            await there.until("EngineCoreProc init", "llm_request", "Load weights")
        engine = {f"{ROOT} / answer / llm_request{part}" for part in ("", " / queue", " / prefill", " / decode")}
        assert paths(seen[1]["spans"]) == WARM | engine
        assert COLD | engine | {f"{ROOT} / start / weights"} <= paths(seen[0]["spans"])
        for view in seen:
            assert view["unexplained_s"] <= MOST_UNEXPLAINED * view["total_s"]
            own = next(span for span in view["spans"] if span["name"] == "llm_request")["attributes"]
            assert own["gen_ai.usage.completion_tokens"] > 0 and own["gen_ai.usage.prompt_tokens"] > 0
        assert uncovered(seen[0], "start") <= MOST_UNEXPLAINED
        begun = there.named("EngineCoreProc init")
        assert begun.trace_id.hex() == seen[0]["trace_id"]
        assert begun.parent_span_id == there.named("start").span_id, (
            "what the engine's process tells is below its start"
        )
        assert "heliosd-engine" in there.services
        assert attributes(there.named("start"))["helios.model"] == SMOL
