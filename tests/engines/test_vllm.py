"""vLLM's surface through Helios with a real model: what clients of OpenAI and Anthropic rely on. And its ends."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from heliosd.core.units import KiB, MiB
from heliosd.engines.engine import Engine, Pressure
from heliosd.engines.meter import Meter
from heliosd.engines.vllm import VllmKind, Warmth
from heliosd.errors import EngineFailed
from tests.engines.answers import QUESTION, Answer, alive, ask, chat, request, spec, until, zygote_of

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="session")]

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def smol(vllm_kind: VllmKind, smol_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Engine]:
    """SmolLM2 in float32: in bfloat16 its first token here is a tie that rounding decides."""
    logs = tmp_path_factory.mktemp("smol")
    engine = await vllm_kind.start(
        spec(smol_dir, logs, "smol", kv_cache_bytes=128 * MiB, max_model_len=2048, dtype="float32")
    )
    yield engine
    await engine.stop()


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def embedder(
    vllm_kind: VllmKind, smol_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Engine]:
    logs = tmp_path_factory.mktemp("embedder")
    options = {"runner": "pooling", "convert": "embed"}
    engine = await vllm_kind.start(
        spec(smol_dir, logs, "embedder", kv_cache_bytes=64 * MiB, dtype="float32", engine_args=options)
    )
    yield engine
    await engine.stop()


async def test_it_knows_the_capital_of_france(smol: Engine) -> None:
    answer = await chat(smol)
    assert "Paris" in answer.json["choices"][0]["message"]["content"]
    assert answer.json["id"] == "chatcmpl-t-1", "the ticket is not the request's id"


async def test_tools_can_be_named_and_required(smol: Engine) -> None:
    for choice in ({"type": "function", "function": {"name": "get_weather"}}, "required"):
        answer = await chat(smol, tools=[WEATHER], tool_choice=choice, max_tokens=100)
        (call,) = answer.json["choices"][0]["message"]["tool_calls"]
        assert call["function"]["name"] == "get_weather"
        assert isinstance(json.loads(call["function"]["arguments"])["city"], str)


async def test_tools_may_be_offered(smol: Engine) -> None:
    answer = await chat(smol, tools=[WEATHER], tool_choice="auto")
    assert answer.status == 200, answer.body


async def test_an_answer_follows_a_json_schema(smol: Engine) -> None:
    schema = {
        "type": "object",
        "properties": {
            "city": {"type": "string", "maxLength": 12},
            "n": {"type": "integer", "minimum": 0, "maximum": 9},
        },
        "required": ["city", "n"],
        "additionalProperties": False,
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    answer = await chat(smol, response_format=wanted, max_tokens=60)
    said = json.loads(answer.json["choices"][0]["message"]["content"])
    assert set(said) == {"city", "n"}


async def test_logprobs_come_with_every_token(smol: Engine) -> None:
    answer = await chat(smol, max_tokens=3, logprobs=True, top_logprobs=2)
    tokens = answer.json["choices"][0]["logprobs"]["content"]
    assert len(tokens) == 3
    assert all(len(token["top_logprobs"]) == 2 for token in tokens)


async def test_n_stop_and_seed(smol: Engine) -> None:
    two = await chat(smol, n=2, temperature=1.0, seed=7)
    assert len(two.json["choices"]) == 2
    again = await chat(smol, n=2, temperature=1.0, seed=7)
    assert [c["message"]["content"] for c in two.json["choices"]] == [
        c["message"]["content"] for c in again.json["choices"]
    ]
    stopped = await chat(smol, stop=["Paris"])
    assert stopped.json["choices"][0]["finish_reason"] == "stop"
    assert "Paris" not in stopped.json["choices"][0]["message"]["content"]


async def test_completions_echo_the_prompt(smol: Engine) -> None:
    body = {
        "model": "m",
        "prompt": "The capital of France is",
        "max_tokens": 3,
        "temperature": 0,
        "echo": True,
        "logprobs": 1,
    }
    choice = (await ask(smol, "/v1/completions", body)).json["choices"][0]
    assert choice["text"].startswith("The capital of France is Paris")
    assert choice["logprobs"]["tokens"]


async def test_responses_whole_and_streamed(smol: Engine) -> None:
    body = {"model": "m", "input": QUESTION[0]["content"], "max_output_tokens": 12, "temperature": 0}
    whole = await ask(smol, "/v1/responses", body)
    assert "Paris" in whole.json["output"][0]["content"][0]["text"]
    streamed = await ask(smol, "/v1/responses", {**body, "stream": True})
    assert b"event: response.completed" in streamed.body


async def test_anthropic_messages_whole_streamed_and_counted(smol: Engine) -> None:
    body = {"model": "m", "max_tokens": 12, "temperature": 0, "messages": QUESTION}
    whole = await ask(smol, "/v1/messages", body)
    assert whole.json["type"] == "message"
    assert "Paris" in whole.json["content"][0]["text"]
    streamed = await ask(smol, "/v1/messages", {**body, "stream": True})
    assert b"event: message_start" in streamed.body
    assert b"event: message_stop" in streamed.body
    counted = await ask(smol, "/v1/messages/count_tokens", {"model": "m", "messages": QUESTION})
    assert counted.json["input_tokens"] == whole.json["usage"]["input_tokens"]


async def test_tokenize_and_back(smol: Engine) -> None:
    tokens = (await ask(smol, "/tokenize", {"model": "m", "prompt": "Hello world"})).json["tokens"]
    assert (await ask(smol, "/detokenize", {"model": "m", "tokens": tokens})).json["prompt"] == "Hello world"


async def test_models_lists_the_served_name(smol: Engine) -> None:
    models = (await ask(smol, "/v1/models", method="GET")).json
    assert [model["id"] for model in models["data"]] == ["m"]


async def test_a_wrong_model_and_wrong_parameters_are_told_as_openai_tells_them(smol: Engine) -> None:
    unknown = await ask(smol, "/v1/chat/completions", {"model": "other", "messages": QUESTION})
    assert (unknown.status, unknown.json["error"]["code"]) == (404, 404)
    hot = await chat(smol, temperature=-3)
    assert hot.status == 400
    assert "temperature" in hot.json["error"]["message"]
    long = await chat(smol, messages=[{"role": "user", "content": "word " * 3000}])
    assert long.status == 400
    assert "maximum context length" in long.json["error"]["message"]


@pytest.mark.parametrize(
    "path",
    [
        "/sleep",
        "/collective_rpc",
        "/v1/load_lora_adapter",
        "/metrics",
        "/health",
        "/start_profile",
        "/server_info",
        "/docs",
    ],
)
async def test_what_is_for_administrators_is_not_served(smol: Engine, path: str) -> None:
    assert (await ask(smol, path, {})).status == 404
    assert (await ask(smol, path, method="GET")).status == 404


async def test_a_generating_model_has_no_embeddings(smol: Engine) -> None:
    assert (await ask(smol, "/v1/embeddings", {"model": "m", "input": "x"})).status == 404


async def test_embeddings_of_texts(embedder: Engine) -> None:
    answer = await ask(embedder, "/v1/embeddings", {"model": "m", "input": ["a cat", "a dog"]})
    first, second = (row["embedding"] for row in answer.json["data"])
    assert len(first) == len(second) == 576
    assert first != second
    assert "embed" in embedder.tasks
    scores = await ask(embedder, "/v1/score", {"model": "m", "queries": "a cat", "documents": ["a cat", "a tax law"]})
    same, other = (row["score"] for row in scores.json["data"])
    assert same > other


async def test_embeddings_and_several_answers_are_metered_as_vllm_counts_them(smol: Engine, embedder: Engine) -> None:
    asks = (
        (embedder, "/v1/embeddings", {"model": "m", "input": ["a cat", "a dog that barks"]}),
        (embedder, "/v1/score", {"model": "m", "queries": "a cat", "documents": ["a cat", "a tax law"]}),
        (smol, "/v1/chat/completions", {"model": "m", "messages": QUESTION, "n": 3, "max_tokens": 8}),
        (smol, "/v1/completions", {"model": "m", "prompt": ["a b", "c d e"], "max_tokens": 4}),
        (smol, "/v1/messages", {"model": "m", "messages": QUESTION, "max_tokens": 8}),
        (smol, "/v1/responses", {"model": "m", "input": "hello", "max_output_tokens": 8}),
        (smol, "/tokenize", {"model": "m", "prompt": "nothing of this counts"}),
    )
    for engine, path, body in asks:
        before, meter = engine.counted(), Meter()
        await engine.frontend.handle(replace(request(path, body), meter=meter), Answer())
        read = meter.read()
        assert meter.over
        await until(lambda e=engine, b=before, r=read: e.counted().minus(b) == r, 2)
        assert (sum(read) > 0) == (path != "/tokenize")


async def test_many_at_once_share_the_engine(smol: Engine) -> None:
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(chat(smol, max_tokens=8)) for _ in range(16)]
    assert {task.result().status for task in asked} == {200}


async def test_its_metrics_are_vllms_with_the_replica_and_do_not_mix(smol: Engine, embedder: Engine) -> None:
    await chat(smol)
    mine, others = smol.metrics(), embedder.metrics()
    assert re.search(r'^vllm:generation_tokens_total\{[^}]*replica="smol"\} [1-9]', mine, re.MULTILINE)
    assert 'model_name="m"' in mine
    assert 'engine="0"' in mine
    assert 'replica="smol"' not in others
    assert 'vllm:generation_tokens_total{engine="0",model_name="m",replica="embedder"} 0.0' in others


async def test_what_it_holds_is_what_was_measured(smol: Engine, smol_dir: Path) -> None:
    held = smol.footprint
    stored = (smol_dir / "model.safetensors").stat().st_size
    assert held.weights_bytes == pytest.approx(2 * stored, rel=0.02), "bfloat16 in the file, float32 in memory"
    assert 120 * MiB < held.kv_cache_bytes <= 128 * MiB
    assert 50 * MiB < held.overhead_bytes < 2048 * MiB


async def test_the_phases_cover_the_start(smol: Engine) -> None:
    assert list(smol.phases) == [
        "zygote", "collect", "launch", "configure", "prepare", "fork", "engine", "device", "weights", "first_run",
        "kv_cache", "warm_up", "serving", "frontend", "measure",
    ]  # fmt: skip
    assert all(seconds >= 0 for seconds in smol.phases.values())


async def test_a_start_in_a_process_made_ahead_is_told_and_answers_alike(
    vllm_kind: VllmKind, smol: Engine, smol_dir: Path, tmp_path: Path
) -> None:
    made = await vllm_kind.shells.make()
    options = {"kv_cache_bytes": 128 * MiB, "max_model_len": 2048, "dtype": "float32"}
    engine = await vllm_kind.start(spec(smol_dir, tmp_path, "shell", **options))
    assert engine.pids == {made.pid}
    assert vllm_kind.shells.waiting == 0
    assert "shell" in engine.phases
    assert "fork" not in engine.phases
    assert engine.footprint.overhead_bytes < smol.footprint.overhead_bytes + 128 * MiB
    question = {"max_tokens": 24, "logprobs": True}
    ours, theirs = [(await chat(each, **question)).json["choices"][0]["logprobs"] for each in (engine, smol)]
    assert [each["token"] for each in ours["content"]] == [each["token"] for each in theirs["content"]]
    assert [each["logprob"] for each in ours["content"]] == [each["logprob"] for each in theirs["content"]]
    fingerprints = {(await chat(each)).json["system_fingerprint"] for each in (engine, smol)}
    assert len(fingerprints) == 1
    await engine.stop()
    await until(lambda: not alive(made.pid), 3)


async def test_a_start_that_fails_or_is_cancelled_leaves_no_process_made_ahead_behind(
    vllm_kind: VllmKind, tiny_dir: Path, tmp_path: Path
) -> None:
    await vllm_kind.warm()
    made = await vllm_kind.shells.make()
    with pytest.raises(EngineFailed):  # before there is a process
        await vllm_kind.start(spec(tiny_dir, tmp_path, engine_args={"max_model_len": 10**9}))
    assert vllm_kind.shells.pids == {made.pid}, "it was not used, and waits again"
    with pytest.raises(EngineFailed) as failed:  # in it
        await vllm_kind.start(spec(tiny_dir, tmp_path, kv_cache_bytes=64 * 1024))
    assert "Traceback" in (failed.value.cause or "")
    assert vllm_kind.shells.pids == frozenset()
    await until(lambda: not alive(made.pid), 3)
    for after_s in (0.0, 0.05, 0.2, 0.4):
        made = await vllm_kind.shells.make()
        try:
            engine = await asyncio.wait_for(vllm_kind.start(spec(tiny_dir, tmp_path)), after_s)
        except TimeoutError:
            assert vllm_kind.shells.pids == {made.pid} or not alive(made.pid)
        else:
            await engine.stop()
        vllm_kind.shells.give_up()
        await until(partial(_ended, made.pid), 3)


def _ended(pid: int) -> bool:
    return not alive(pid)


async def test_a_process_that_ends_where_vllm_looks_at_none_ends_its_start(
    vllm_kind: VllmKind, tiny_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the engine has said that it is ready, vLLM waits ten minutes for its last word, also from the dead."""
    await vllm_kind.warm()
    from vllm.v1.engine import utils

    in_the_second_wait = asyncio.Event()
    loop = asyncio.get_running_loop()

    def ready(number: int, *told: Any) -> None:
        os.kill(told[-1].engine_manager.processes[0].pid, number)
        loop.call_soon_threadsafe(in_the_second_wait.set)

    monkeypatch.setattr(utils, "wait_for_engine_startup", partial(ready, signal.SIGKILL))
    with pytest.raises(EngineFailed) as failed:
        await vllm_kind.start(spec(tiny_dir, tmp_path))
    assert "SIGKILL" in failed.value.message
    # Stopped, it never says its last word, and is killed because the start is given up.
    monkeypatch.setattr(utils, "wait_for_engine_startup", partial(ready, signal.SIGSTOP))
    in_the_second_wait.clear()
    async with asyncio.TaskGroup() as tasks:
        starting = tasks.create_task(vllm_kind.start(spec(tiny_dir, tmp_path)))
        await in_the_second_wait.wait()
        starting.cancel()
    assert starting.cancelled()


async def test_what_compiles_does_not_begin_in_a_process_made_ahead(
    vllm_kind: VllmKind, tiny_dir: Path, tmp_path: Path
) -> None:
    """There torch was told already to compile nothing; and who forks workers must not have used OpenMP."""
    made = await vllm_kind.shells.make()
    engine = await vllm_kind.start(spec(tiny_dir, tmp_path, engine_args={"distributed_executor_backend": "mp"}))
    assert made.pid not in engine.pids
    assert vllm_kind.shells.pids == {made.pid}
    assert (await chat(engine)).status == 200
    await engine.stop()
    vllm_kind.shells.give_up()


async def test_bad_arguments_are_refused_with_the_nearest(vllm_kind: VllmKind, tiny_dir: Path, tmp_path: Path) -> None:
    for args, says in (
        ({"quantisation": "awq"}, "did you mean 'quantization'"),
        ({"kv_cache_memory_bytes": 1}, "must not set kv_cache_memory_bytes: Helios sets it from kv_cache"),
        ({"max_model_len": 10**9}, "max_model_len"),
    ):
        with pytest.raises(EngineFailed) as failed:
            await vllm_kind.start(spec(tiny_dir, tmp_path, engine_args=args))
        assert says in f"{failed.value.message} {failed.value.cause}"


async def test_too_little_memory_for_one_request_is_told_with_the_arithmetic(
    vllm_kind: VllmKind, tiny_dir: Path, tmp_path: Path
) -> None:
    with pytest.raises(EngineFailed) as failed:
        await vllm_kind.start(spec(tiny_dir, tmp_path, kv_cache_bytes=64 * 1024))
    assert "KV cache" in failed.value.message
    assert "Traceback" in (failed.value.cause or "")
    assert "Traceback" in (tmp_path / "r1.log").read_text(), "the log is not the child's own"


async def test_a_start_can_be_cancelled_at_any_moment(vllm_kind: VllmKind, smol_dir: Path, tmp_path: Path) -> None:
    import psutil

    await vllm_kind.warm()
    me = psutil.Process()
    before = {child.pid for child in me.children(recursive=True)}
    called_off = 0
    for after_s in (0.0, 0.1, 0.4, 0.6, 0.8):
        try:
            engine = await asyncio.wait_for(vllm_kind.start(spec(smol_dir, tmp_path, max_num_seqs=4)), after_s)
        except TimeoutError:
            called_off += 1
        else:
            await engine.stop()  # it was faster
        left = {child.pid for child in me.children(recursive=True)} - before
        assert not any(alive(pid) for pid in left), f"cancelled after {after_s} s, it left a process"
    assert called_off


async def test_a_dead_zygote_is_replaced(vllm_kind: VllmKind, tiny_dir: Path, tmp_path: Path) -> None:
    engine = await vllm_kind.start(spec(tiny_dir, tmp_path))
    pid = zygote_of(engine)
    os.kill(pid, signal.SIGKILL)
    assert "SIGKILL" in await asyncio.wait_for(engine.wait_dead(), 3), "an engine outlived its zygote"
    await engine.stop()
    again = await vllm_kind.start(replace(spec(tiny_dir, tmp_path)))
    assert (await chat(again)).status == 200
    assert zygote_of(again) != pid
    assert vllm_kind.state is Warmth.WARM
    await again.stop()


async def test_a_killed_daemon_leaves_nothing_behind(tiny_dir: Path, tmp_path: Path) -> None:
    program = """
import asyncio, sys
from pathlib import Path
from heliosd.engines.vllm import VllmKind
from tests.engines.answers import spec, zygote_of

async def main():
    kind = VllmKind(Path(sys.argv[2]))
    engine = await kind.start(spec(Path(sys.argv[1]), Path(sys.argv[2])))
    print(zygote_of(engine), *engine.pids, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""
    daemon = subprocess.Popen(
        [sys.executable, "-c", program, str(tiny_dir), str(tmp_path)],
        stdout=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert daemon.stdout is not None
    pids = [int(pid) for pid in (await asyncio.to_thread(daemon.stdout.readline)).split()]
    assert len(pids) == 2
    daemon.kill()
    daemon.wait()
    await until(lambda: not any(alive(pid) for pid in pids), 3)
    await until(lambda: not list(tmp_path.glob("helios-*")), 3)


async def test_on_the_host_there_is_no_sleep_and_it_says_so(smol: Engine) -> None:
    assert smol.sleep_levels == frozenset()
    with pytest.raises(EngineFailed, match="it was started without vLLM's sleep mode, on host; stop it instead"):
        await smol.sleep(1)


async def test_sequences_it_had_to_put_back_are_counted(vllm_kind: VllmKind, tiny_dir: Path, tmp_path: Path) -> None:
    """A cache for 640 tokens, and two sequences of more than 450."""
    engine = await vllm_kind.start(spec(tiny_dir, tmp_path, "small", kv_cache_bytes=6 * 32 * KiB))
    told: list[Pressure] = []
    engine.on_pressure(told.append)
    async with asyncio.TaskGroup() as group:
        answers = [group.create_task(chat(engine, max_tokens=450, ignore_eos=True)) for _ in range(2)]
    assert [answer.result().json["usage"]["completion_tokens"] for answer in answers] == [450, 450]
    await until(lambda: bool(told) and told[-1] == engine.pressure() and told[-1].running == 0, 5)
    assert told[-1].preemptions >= 1
    assert max(pressure.kv_used_ratio for pressure in told) > 0.8
    await engine.stop()
