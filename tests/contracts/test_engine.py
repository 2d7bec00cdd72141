"""What every kind of engine promises the pool: over simulated engines, and over real vLLM with a tiny model."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from heliosd.core.hardware import DeviceKind
from heliosd.engines.engine import Engine, EngineKind, LaunchSpec, Pressure
from heliosd.engines.meter import Meter
from heliosd.engines.simulated import Behaviour, SimulatedEngine, SimulatedKind
from heliosd.errors import EngineFailed
from tests.engines.account import Account
from tests.engines.answers import HOST, QUESTION, Answer, alive, ask, chat, request, spec, until


@dataclass
class Subject:
    """A kind of engine, and what the tests must know about it."""

    kind: EngineKind
    spec: LaunchSpec
    kill: Callable[[Engine], None]
    broken: LaunchSpec
    """Cannot start."""
    broken_says: str


_BEHAVIOUR = Behaviour(load_s=0.01, tokens_per_s=200, weights_bytes=1000, sleep_s=0.01, wake_s=0.01)


def _sigkill(engine: Engine) -> None:
    for pid in engine.pids:
        os.kill(pid, signal.SIGKILL)


def _crash(engine: Engine) -> None:
    assert isinstance(engine, SimulatedEngine)
    engine.die("killed by SIGKILL")


pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.fixture(params=["simulated", pytest.param("vllm", marks=pytest.mark.slow)], scope="module")
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    logs = tmp_path_factory.mktemp("logs")
    if request.param == "simulated":
        device = replace(HOST, kind=DeviceKind.SIMULATED)
        made = spec(logs, logs, devices=(device,), sleep=True)
        kind: EngineKind = SimulatedKind(Account(), _BEHAVIOUR)
        broken = replace(made, engine_args={"refuses": "the weights are corrupt"})
        return Subject(kind, made, _crash, broken, "the weights are corrupt")
    tiny: Path = request.getfixturevalue("tiny_dir")
    kind = request.getfixturevalue("vllm_kind")
    made = spec(tiny, logs, sleep=True)
    broken_dir = tmp_path_factory.mktemp("broken")
    for file in tiny.iterdir():
        target = broken_dir / file.name
        target.write_bytes(file.read_bytes()[:5000] if file.suffix == ".safetensors" else file.read_bytes())
    broken = replace(made, directory=broken_dir)
    return Subject(kind, made, _sigkill, broken, "Traceback")


@pytest_asyncio.fixture(loop_scope="session")
async def engine(subject: Subject) -> AsyncIterator[Engine]:
    engine = await subject.kind.start(subject.spec)
    yield engine
    await engine.stop()


async def test_it_answers_a_chat(engine: Engine) -> None:
    answer = await chat(engine)
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("application/json")
    assert answer.json["choices"][0]["message"]["role"] == "assistant"
    assert answer.json["usage"]["completion_tokens"] >= 1


async def test_it_answers_the_same_to_the_same(engine: Engine) -> None:
    first, second = await chat(engine), await chat(engine)
    assert first.json["choices"] == second.json["choices"]


async def test_it_streams_a_chat(engine: Engine) -> None:
    whole = (await chat(engine)).json["choices"][0]["message"]["content"]
    answer = await chat(engine, stream=True)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.body.endswith(b"data: [DONE]\n\n")
    said = "".join(event["choices"][0]["delta"].get("content") or "" for event in answer.events)
    assert said == whole
    assert len(answer.chunks) > 2, "it came in one piece"


async def test_it_counts_tokens_of_a_stream_when_asked(engine: Engine) -> None:
    answer = await chat(engine, stream=True, ignore_eos=True, stream_options={"include_usage": True})
    assert answer.events[-1]["usage"]["completion_tokens"] == 16


async def test_what_requests_are_metered_at_adds_up_to_its_own_counters(engine: Engine) -> None:
    body = {"model": "m", "messages": QUESTION, "max_tokens": 40, "stream": True, "ignore_eos": True}
    meters, broken_off = [Meter(), Meter()], Answer()
    await engine.frontend.handle(replace(request("/v1/chat/completions", body), meter=meters[0]), Answer())
    async with asyncio.TaskGroup() as group:
        asked = replace(request("/v1/chat/completions", {**body, "max_tokens": 400}), meter=meters[1])
        task = group.create_task(engine.frontend.handle(asked, broken_off))
        await broken_off.begun.wait()
        task.cancel()
    await engine.frontend.handle(replace(request("/v1/no/such/path", body), meter=Meter()), Answer())
    whole, part = (meter.read() for meter in meters)
    assert whole.completion == 40 and whole.prompt == part.prompt > 0
    assert 1 <= part.completion < 400, "what was broken off counts as far as it came"
    assert all(meter.over for meter in meters)
    await until(lambda: engine.counted() == whole.plus(part), 2)


async def test_it_completes_a_text(engine: Engine) -> None:
    answer = await ask(engine, "/v1/completions", {"model": "m", "prompt": "Once upon", "max_tokens": 4})
    assert answer.json["object"] == "text_completion"
    assert isinstance(answer.json["choices"][0]["text"], str)


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/chat/completions", b"{not json", 400),
        ("/v1/chat/completions", b'{"model": "m"}', 400),
        ("/v1/no/such/path", b"{}", 404),
        (
            "/v1/chat/completions",
            b'{"model": "m", "messages": [{"role": "user", "content": "' + b"word " * 600 + b'"}]}',
            400,
        ),
    ],
    ids=["no json", "no messages", "no such path", "context too long"],
)
async def test_what_is_wrong_with_a_request_is_told_in_openai_shape(
    engine: Engine, path: str, body: bytes, status: int
) -> None:
    answer = await ask(engine, path, body)
    assert answer.status == status
    assert answer.json["error"]["message"]
    assert "type" in answer.json["error"]


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_goes_away_frees_its_sequence(engine: Engine, stream: bool) -> None:
    answer = Answer()
    body = {"model": "m", "messages": [{"role": "user", "content": "a"}], "max_tokens": 400, "stream": stream}
    async with asyncio.TaskGroup() as group:
        task = group.create_task(
            engine.frontend.handle(request("/v1/chat/completions", {**body, "ignore_eos": True}), answer)
        )
        await until(lambda: engine.unfinished() == 1, 5)  # type: ignore[attr-defined]
        if stream:
            await answer.begun.wait()
        task.cancel()
        await until(lambda: engine.unfinished() == 0, 5)  # type: ignore[attr-defined]
    assert task.cancelled()
    assert (await chat(engine)).status == 200


async def test_it_tells_what_it_holds_and_how_long_it_took(engine: Engine, subject: Subject) -> None:
    held = engine.footprint
    assert held.weights_bytes > 0
    assert 0 < held.kv_cache_bytes <= subject.spec.kv_cache_bytes
    assert held.overhead_bytes > 0
    assert engine.phases["weights"] > 0
    assert engine.max_model_len == 512
    assert "generate" in engine.tasks


async def test_it_sleeps_and_answers_as_before_when_it_woke(engine: Engine) -> None:
    before, awake = await chat(engine), engine.footprint
    for level in sorted(engine.sleep_levels):
        slept = await engine.sleep(level)
        assert slept.residue.total_bytes < awake.total_bytes
        assert (slept.host_bytes > 0) == (level == 1)
        with pytest.raises(EngineFailed, match=r"cannot answer: m sleeps"):
            await chat(engine)
        assert (await engine.wake()).total_bytes == pytest.approx(awake.total_bytes, rel=0.05)
        assert (await chat(engine)).json["choices"] == before.json["choices"]


async def test_a_level_it_cannot_sleep_at_is_refused_and_it_goes_on(engine: Engine) -> None:
    for level in {0, 1, 2, 3} - engine.sleep_levels:
        with pytest.raises(EngineFailed, match=f"cannot put m to sleep at level {level}: "):
            await engine.sleep(level)
    assert (await chat(engine)).status == 200


async def test_what_does_not_sleep_cannot_be_woken(engine: Engine) -> None:
    with pytest.raises(EngineFailed, match="cannot wake m: it is not asleep"):
        await engine.wake()


async def test_it_says_how_many_requests_it_works_on(engine: Engine) -> None:
    told: list[Pressure] = []
    engine.on_pressure(told.append)
    assert engine.pressure() == Pressure(0, 0, 0.0, 0)
    async with asyncio.TaskGroup() as group:
        asking = group.create_task(chat(engine, max_tokens=400, ignore_eos=True))
        await until(lambda: engine.pressure().kv_used_ratio > 0, 5)
        assert (engine.pressure().running, engine.pressure().waiting) == (1, 0)
        asking.cancel()
    await until(lambda: told[-1:] == [engine.pressure()] and told[-1].running == 0, 5)
    assert told[0].running + told[0].waiting == 1
    assert told[-1] == Pressure(0, 0, 0.0, 0)


async def test_stop_leaves_no_process_and_may_be_repeated(subject: Subject) -> None:
    engine = await subject.kind.start(subject.spec)
    pids = engine.pids
    await engine.stop()
    assert not any(alive(pid) for pid in pids)
    await engine.stop()


async def test_a_stopped_engine_did_not_die(subject: Subject) -> None:
    engine = await subject.kind.start(subject.spec)
    await engine.stop()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(engine.wait_dead(), 0.1)


async def test_a_killed_engine_is_noticed_with_its_cause(subject: Subject) -> None:
    engine = await subject.kind.start(subject.spec)
    subject.kill(engine)
    cause = await asyncio.wait_for(engine.wait_dead(), 3)
    assert "SIGKILL" in cause
    with pytest.raises(EngineFailed, match="SIGKILL"):
        await asyncio.wait_for(chat(engine), 3)
    await engine.stop()


async def test_a_request_that_waits_when_the_engine_dies_is_told_why(subject: Subject) -> None:
    engine = await subject.kind.start(subject.spec)
    asking = asyncio.ensure_future(chat(engine, max_tokens=400, ignore_eos=True))  # noqa: TID251
    await until(lambda: engine.unfinished() == 1, 5)  # type: ignore[attr-defined]
    subject.kill(engine)
    with pytest.raises(EngineFailed) as failed:
        await asyncio.wait_for(asking, 3)
    assert "SIGKILL" in (failed.value.cause or "")
    assert failed.value.message.startswith("cannot answer")
    await engine.stop()


async def test_a_stream_that_is_cut_by_death_ends_with_an_error_event(subject: Subject) -> None:
    engine = await subject.kind.start(subject.spec)
    answer = Answer()
    body = {"model": "m", "prompt": "a", "max_tokens": 400, "ignore_eos": True, "stream": True}
    asking = asyncio.ensure_future(  # noqa: TID251
        engine.frontend.handle(request("/v1/completions", body), answer)
    )
    await asyncio.wait_for(answer.begun.wait(), 5)
    subject.kill(engine)
    await asyncio.wait_for(asking, 3)
    error = next(event["error"] for event in answer.events if "error" in event)
    assert "SIGKILL" in error["message"]
    assert error["type"] == "engine_failed"
    await engine.stop()


async def test_after_a_death_the_next_engine_starts(subject: Subject) -> None:
    first = await subject.kind.start(subject.spec)
    subject.kill(first)
    await asyncio.wait_for(first.wait_dead(), 3)
    await first.stop()
    second = await subject.kind.start(subject.spec)
    assert (await chat(second)).status == 200
    await second.stop()


async def test_a_start_that_fails_says_why(subject: Subject) -> None:
    with pytest.raises(EngineFailed) as failed:
        await subject.kind.start(subject.broken)
    assert failed.value.message.startswith("cannot start m")
    assert subject.broken_says in (failed.value.cause or "")


async def test_a_cancelled_start_leaves_nothing(subject: Subject) -> None:
    await subject.kind.warm()
    before = _children()
    starting = asyncio.ensure_future(subject.kind.start(subject.spec))  # noqa: TID251
    await asyncio.sleep(0.005)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert _children() == before
    engine = await subject.kind.start(subject.spec)
    assert (await chat(engine)).status == 200
    await engine.stop()


async def test_two_engines_answer_at_once(subject: Subject) -> None:
    async with asyncio.TaskGroup() as group:
        starts = [group.create_task(subject.kind.start(_again(subject.spec, number))) for number in (1, 2)]
    first, second = (start.result() for start in starts)
    async with asyncio.TaskGroup() as group:
        answers = [group.create_task(chat(engine)) for engine in (first, second)]
    assert [answer.result().status for answer in answers] == [200, 200]
    await first.stop()
    assert (await chat(second)).status == 200
    await second.stop()


def _again(spec: LaunchSpec, number: int) -> LaunchSpec:
    name = f"r{number}"
    return replace(spec, replica=name, log_file=spec.log_file.with_name(f"{name}.log"))  # type: ignore[arg-type]


def _children() -> set[int]:
    return {child.pid for child in psutil.Process().children(recursive=True) if child.status() != "zombie"}
