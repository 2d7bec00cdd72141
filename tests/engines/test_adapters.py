"""LoRA adapters on real vLLM: each answers in its own way beside its base, and a bad one harms nobody."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from heliosd.core.adapters import AdapterRoom
from heliosd.engines.engine import Engine
from heliosd.engines.vllm import VllmKind
from heliosd.errors import EngineFailed
from heliosd.estimation.launch import Launch
from heliosd.estimation.model import read_model
from heliosd.estimation.weights import adapter_room
from tests.engines.answers import chat, spec
from tests.store.models import adapter_files, write_folder

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="session")]

ROOM = AdapterRoom(2, 16)


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def tiny(vllm_kind: VllmKind, tiny_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Engine]:
    logs = tmp_path_factory.mktemp("tiny")
    engine = await vllm_kind.start(spec(tiny_dir, logs, "lora", dtype="float32", engine_args=ROOM.engine_args))
    yield engine
    await engine.stop()


async def said(engine: Engine, model: str) -> str:
    answer = await chat(engine, model=model)
    assert answer.status == 200, answer.body
    assert answer.json["model"] == model
    return str(answer.json["choices"][0]["message"]["content"])


async def test_more_adapters_than_fit_at_once_all_answer_in_their_own_way(tiny: Engine, tmp_path: Path) -> None:
    base = await said(tiny, "m")
    names = [f"org/a{number}" for number in range(5)]
    for number, name in enumerate(names):
        await tiny.load_adapter(name, write_folder(tmp_path / str(number), adapter_files(seed=number)))
    alone = [await said(tiny, name) for name in names]
    assert len({base, *alone}) == 6
    async with asyncio.TaskGroup() as tasks:
        together = [tasks.create_task(said(tiny, name)) for name in ("m", *names)]
    assert [task.result() for task in together] == [base, *alone]
    assert await said(tiny, "m") == base, "an adapter was applied to who asked for none"


async def test_a_name_may_get_another_content(tiny: Engine, tmp_path: Path) -> None:
    await tiny.load_adapter("org/moving", write_folder(tmp_path / "1", adapter_files(seed=11)))
    first = await said(tiny, "org/moving")
    await tiny.load_adapter("org/moving", write_folder(tmp_path / "2", adapter_files(seed=12)))
    assert await said(tiny, "org/moving") != first
    await tiny.load_adapter("org/moving", tmp_path / "1")
    assert await said(tiny, "org/moving") == first


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"rank": 64}, "rank 64 is greater than max_lora_rank 16"),
        ({"use_dora": True}, "DoRA"),
        ({"target_modules": 7}, ""),
    ],
)
async def test_an_adapter_that_vllm_refuses_is_told_with_the_cause(
    tiny: Engine, tmp_path: Path, more: dict[str, object], says: str
) -> None:
    files = adapter_files(**{"seed": 1, **more})  # type: ignore[arg-type]
    if "target_modules" in more:
        files["adapter_model.safetensors"] = b"\x08" + bytes(7) + b"{}      "
        files["adapter_config.json"] = json.dumps({"peft_type": "LORA", "r": 8}).encode()
    with pytest.raises(EngineFailed, match=r"cannot use the adapter org/bad with m: ") as failed:
        await tiny.load_adapter("org/bad", write_folder(tmp_path / "bad", files))
    assert failed.value.code == "adapter_refused"
    assert says in (failed.value.cause or "")
    assert (await chat(tiny, model="org/bad")).status == 404
    assert await said(tiny, "m"), "the engine did not live on"


async def test_without_room_an_adapter_is_refused(vllm_kind: VllmKind, tiny_dir: Path, tmp_path: Path) -> None:
    engine = await vllm_kind.start(spec(tiny_dir, tmp_path))
    try:
        with pytest.raises(EngineFailed, match=r"cannot use the adapter org/a with m"):
            await engine.load_adapter("org/a", write_folder(tmp_path / "a", adapter_files()))
        assert (await chat(engine)).status == 200
    finally:
        await engine.stop()


async def test_the_room_is_measured_as_predicted(
    vllm_kind: VllmKind, tiny: Engine, tiny_dir: Path, tmp_path: Path
) -> None:
    model = read_model(json.loads((tiny_dir / "config.json").read_text()))
    assert model.layout is not None
    [room] = adapter_room(model.layout, Launch(max_loras=ROOM.at_once, max_lora_rank=ROOM.max_rank), "float32")
    bare = await vllm_kind.start(spec(tiny_dir, tmp_path, dtype="float32"))
    await bare.stop()
    assert tiny.footprint.weights_bytes - bare.footprint.weights_bytes == room


async def test_a_dead_engine_tells_what_it_died_of(vllm_kind: VllmKind, tiny_dir: Path, tmp_path: Path) -> None:
    import psutil

    engine = await vllm_kind.start(spec(tiny_dir, tmp_path, engine_args=ROOM.engine_args))
    for pid in engine.pids:
        psutil.Process(pid).kill()
    await engine.wait_dead()
    with pytest.raises(EngineFailed, match="SIGKILL"):
        await engine.load_adapter("org/a", write_folder(tmp_path / "a", adapter_files()))
    await engine.stop()


async def test_an_engine_that_dies_while_it_reads_an_adapter_keeps_nobody_waiting(
    vllm_kind: VllmKind, tiny_dir: Path, tmp_path: Path
) -> None:
    engine = await vllm_kind.start(spec(tiny_dir, tmp_path, "dying", dtype="float32", engine_args=ROOM.engine_args))
    folder = write_folder(tmp_path / "adapter", adapter_files(seed=1))
    for pid in engine.pids:
        os.kill(pid, signal.SIGSTOP)  # what it is asked now it never answers
    with pytest.raises(EngineFailed, match=r"cannot use the adapter org/late with m: .*SIGKILL"):
        asyncio.get_running_loop().call_soon(_kill, engine)
        async with asyncio.timeout(60):
            await engine.load_adapter("org/late", folder)
    await engine.stop()


def _kill(engine: Engine) -> None:
    for pid in engine.pids:
        os.kill(pid, signal.SIGKILL)
