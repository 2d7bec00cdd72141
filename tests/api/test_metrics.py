"""/metrics: one text of Helios and all its engines that Prometheus can read."""

import subprocess
import threading
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from tests.api.world import MemoryEngine, World

CHAT = {"model": "tiny", "messages": []}


def engine_text(model: str) -> str:
    registry = CollectorRegistry()
    Counter("vllm:generation_tokens", "Tokens.", ["model_name"], registry=registry).labels(model).inc(3)
    return generate_latest(registry).decode()


async def scrape(it: World) -> str:
    async with it.http.get("/metrics") as response:
        assert response.status == 200
        return await response.text()


async def values(it: World) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    families = list(text_string_to_metric_families(await scrape(it)))
    assert len({family.name for family in families}) == len(families)
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def series(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return name, frozenset(labels.items())


async def test_requests_are_counted_by_route_status_and_code(it: World) -> None:
    for model in ("tiny", "nobody"):
        async with it.http.post("/v1/chat/completions", json=CHAT | {"model": model}) as response:
            await response.read()
    async with it.http.get("/nowhere/1") as response:
        await response.read()
    found = await values(it)
    route = "/v1/chat/completions"
    assert found[series("helios_requests_total", route=route, status="200", code="")] == 1
    assert found[series("helios_requests_total", route=route, status="404", code="model_not_found")] == 1
    assert found[series("helios_requests_total", route="unknown", status="404", code="unknown_path")] == 1
    assert found[series("helios_request_seconds_count", route=route)] == 2
    assert found[series("helios_time_to_first_byte_seconds_count", route=route)] == 1


async def test_the_state_of_the_node_is_there(it: World) -> None:
    it.parts.metrics.replica_started("tiny", {"fork": 0.1, "load": 1.2})
    it.parts.metrics.replica_failed("tiny")
    it.parts.metrics.loop_was_late(0.003)
    it.parts.metrics.waited("granted", 1.5)
    it.parts.metrics.waited("queue_timeout", 30.0)
    it.journal.note("test", "one")
    await it.journal.flushed()
    it.journal.lost = 3
    found = await values(it)
    assert found[series("helios_build_info", version="0.1.0")] == 1
    assert found[series("helios_replicas", state="ready")] == 1
    assert found[series("helios_replicas", state="asleep")] == 0
    assert found[series("helios_device_capacity_bytes", device="g0")] == 80 * 1024**3
    assert found[series("helios_device_promised_bytes", device="g0", part="weights")] == 256 * 1024**2
    assert found[series("helios_replica_starts_total", model="tiny")] == 1
    assert found[series("helios_replica_start_seconds_total", phase="load")] == 1.2
    assert found[series("helios_replica_failures_total", model="tiny")] == 1
    assert found[series("helios_event_loop_lag_seconds_count")] == 1
    assert found[series("helios_queue_wait_seconds_sum", outcome="granted")] == 1.5
    assert found[series("helios_queue_wait_seconds_count", outcome="queue_timeout")] == 1
    assert found[series("helios_queue_requests", priority="high")] == 0
    assert found[series("helios_journal_entries_total")] == 1
    assert found[series("helios_journal_lost_total")] == 3
    assert found[series("helios_models")] == 2
    assert found[series("helios_store_bytes", kind="logical")] == 1400
    assert found[series("helios_store_bytes", kind="physical")] == 700  # the two models share their blob
    assert found[series("helios_fetched_bytes_total", source="hub")] == 5000
    assert found[series("helios_fetched_bytes_total", source="peer")] == 300


async def test_engines_metrics_pass_through_told_apart_by_replica(it: World) -> None:
    it.engine.text = engine_text("tiny")
    it.node.engines["other"] = MemoryEngine(text=engine_text("other"))
    found = await values(it)
    for name in ("tiny", "other"):
        assert found[series("vllm:generation_tokens_total", model_name=name, replica=f"r-{name}")] == 3


async def test_an_engines_metrics_are_collected_beside_the_event_loop(it: World) -> None:
    class Slow(MemoryEngine):
        def metrics(self) -> str:
            threads.append(threading.current_thread())
            return ""

    threads: list[threading.Thread] = []
    it.node.engines["tiny"] = Slow()
    await scrape(it)
    assert threads and threading.main_thread() not in threads


async def test_promtool_finds_nothing_wrong(it: World, promtool: Path) -> None:
    it.engine.text = engine_text("tiny")
    text = (await scrape(it)).encode()
    checked = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, check=False)
    complaints = checked.stderr.decode().splitlines()
    # vLLM's own names have colons, and stay as they are.
    assert [line for line in complaints if not line.startswith("vllm:")] == []
    assert "error while linting" not in checked.stderr.decode()
