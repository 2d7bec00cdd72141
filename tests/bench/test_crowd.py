"""The crowd's judgement: what counts as answered, refused and lost, and what engines hold. And its models."""

import asyncio
import json
import random
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from safetensors import safe_open

from tests.bench.crowd import Crowd
from tests.bench.crowd_clients import Asking, End, Outcome, ask
from tests.bench.crowd_memory import Sample, Watch, drift, kill_one, look
from tests.bench.crowd_models import tiny_adapter, tiny_llama

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def _event(text: str) -> bytes:
    return f"data: {text}\n\n".encode()


_WORD = _event(json.dumps({"choices": [{"delta": {"content": "word"}}]}))
_ERROR = json.dumps({"error": {"message": "cannot answer", "code": "engine_failed"}})


def _stream(*pieces: bytes, cut: bool = False) -> Handler:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for piece in pieces:
            await response.write(piece)
        if cut:
            assert request.transport is not None
            request.transport.abort()
        return response

    return answer


def _whole(status: int, text: str) -> Handler:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status, text=text)

    return answer


async def _hang(_: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


@asynccontextmanager
async def _serving(handler: Handler) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_post("/v1/chat/completions", handler)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def _asked(handler: Handler, *, stream: bool, leaves: bool = False, limit_s: float = 30) -> Outcome:
    asking = Asking("m", max_tokens=4, stream=stream, leaves=leaves, began=time.monotonic())
    async with _serving(handler) as url, aiohttp.ClientSession() as session:
        return await ask(session, url, asking, "tell", random.Random(1), limit_s)


@pytest.mark.parametrize(
    ("handler", "stream", "end", "why"),
    [
        (_whole(200, '{"choices": [{}]}'), False, End.ANSWERED, ""),
        (_whole(200, '{"choices": []}'), False, End.LOST, "200 without an answer"),
        (_whole(502, _ERROR), False, End.REFUSED, "engine_failed"),
        (_whole(503, _ERROR), True, End.REFUSED, "engine_failed"),
        (_whole(500, '{"error": {"message": "oh", "code": 500}}'), False, End.LOST, "status 500 without a code"),
        (_whole(502, "Bad Gateway"), False, End.LOST, "no JSON object"),
        (_stream(b": waiting\n\n", _WORD, _event("[DONE]")), True, End.ANSWERED, ""),
        (_stream(_event("[DONE]")), True, End.LOST, "a stream without an answer"),
        (_stream(_WORD), True, End.LOST, "the stream ended without"),
        (_stream(_WORD, cut=True), True, End.LOST, "cut off"),
        (_stream(_WORD, _event(_ERROR)), True, End.REFUSED, "engine_failed"),
        (_stream(_WORD, _event('{"error": "oh"}')), True, End.LOST, "status 200 without a code"),
    ],
)
async def test_how_a_request_ends(handler: Handler, stream: bool, end: End, why: str) -> None:
    outcome = await _asked(handler, stream=stream)
    assert (outcome.end, outcome.why[: len(why)]) == (end, why)


async def test_no_answer_at_all_is_lost() -> None:
    outcome = await _asked(_hang, stream=False, limit_s=0.01)
    assert (outcome.end, outcome.why) == (End.LOST, "no end after 0 s")


async def test_who_leaves_half_way_has_lost_nothing() -> None:
    assert (await _asked(_stream(*[_WORD] * 4), stream=True, leaves=True)).end is End.LEFT
    assert (await _asked(_hang, stream=False, leaves=True)).end is End.LEFT


def test_the_result_counts_ends_and_compares_the_ledger() -> None:
    watch = Watch(budget_bytes=100)
    for held in (90, 110, 95):
        watch.saw(Sample(0.0, {"r1": held - 10, "r2": 10}, {}, 30))
    outcomes = [Outcome("m", end, 1.0) for end in (End.ANSWERED, End.ANSWERED, End.REFUSED, End.LEFT)]
    crowd = Crowd(watch, outcomes, ledger_bytes=97, held_bytes=100)
    assert crowd.result() == {
        "answered": 2,
        "refused": 1,
        "lost": 0,
        "budget_exceeded": 1,
        "ledger_drift": 0.03,
    }
    assert watch.peak_with_zygote_bytes == 140
    assert (drift(0, 0), drift(5, 0)) == (0.0, 1.0)


def test_engines_are_told_by_their_logs_and_killed(tmp_path: Path) -> None:
    """A daemon with a zygote, an engine of it that is ready, and a child that is none of these."""
    child = "import sys; sys.stdin.read()"
    program = f"""
import subprocess, sys
for name in ("zygote.log", "r7.log", "other.log"):
    subprocess.Popen([sys.executable, "-c", {child!r}], stdout=open({str(tmp_path)!r} + "/" + name, "w"))
print("running", flush=True)
sys.stdin.read()
"""
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as daemon:
        assert daemon.stdout is not None
        daemon.stdout.readline()
        sample = look(daemon.pid)
        assert list(sample.engines) == ["r7"]
        assert sample.engine_bytes == sample.engines["r7"] > 0 < sample.zygote_bytes
        assert kill_one(daemon.pid, random.Random(1)) == "r7"
        daemon.communicate()
    assert kill_one(daemon.pid, random.Random(1)) is None


def test_tiny_models_differ_in_their_weights_alone(tmp_path: Path) -> None:
    tokenizer = tmp_path / "tokenizer"
    tokenizer.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
        (tokenizer / name).write_text("{}")
    one, two = (tiny_llama(tmp_path / str(seed), tokenizer, seed) for seed in (1, 2))
    assert (one / "config.json").read_bytes() == (two / "config.json").read_bytes()
    assert (one / "model.safetensors").stat().st_size == (two / "model.safetensors").stat().st_size
    assert (one / "model.safetensors").read_bytes() != (two / "model.safetensors").read_bytes()


def test_an_adapter_is_laid_out_as_peft_does(tmp_path: Path) -> None:
    adapter = tiny_adapter(tmp_path / "adapter", "crowd/tiny-01", seed=1)
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert (config["peft_type"], config["r"], config["target_modules"]) == ("LORA", 4, ["q_proj", "v_proj"])
    name = "base_model.model.model.layers.1.self_attn.v_proj.lora_"
    with safe_open(adapter / "adapter_model.safetensors", "np") as weights:
        assert len(weights.keys()) == 8
        assert weights.get_slice(f"{name}A.weight").get_shape() == [4, 64]
        assert weights.get_slice(f"{name}B.weight").get_shape() == [32, 4]
