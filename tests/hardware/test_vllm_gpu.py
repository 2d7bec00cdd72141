"""vLLM on a real GPU: exact memory, two engines on one device, sleep and wake, and everything given back at the end.

Run by `make test-gpu` on a machine with an NVIDIA GPU and `pip install '.[cuda]'`.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from heliosd.core.hardware import Device, DeviceKind
from heliosd.core.oom import out_of_memory
from heliosd.core.units import GiB, MiB
from heliosd.engines.vllm import VllmKind
from heliosd.errors import EngineFailed
from tests.engines.answers import alive, chat, spec, until
from tests.hardware.conftest import used_bytes

pytestmark = [pytest.mark.gpu, pytest.mark.asyncio(loop_scope="session")]

CACHE_BYTES = 2 * GiB
SLACK_BYTES = 64 * MiB


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def kind(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[VllmKind]:
    made = VllmKind(tmp_path_factory.mktemp("vllm"), DeviceKind.CUDA)
    yield made
    await made.close()


async def test_the_zygote_does_not_touch_the_gpu(kind: VllmKind, nvml: object) -> None:
    before = used_bytes(nvml)
    await kind.warm()
    assert used_bytes(nvml) - before < SLACK_BYTES
    handle = nvml.nvmlDeviceGetHandleByIndex(0)  # type: ignore[attr-defined]
    users = {process.pid for process in nvml.nvmlDeviceGetComputeRunningProcesses(handle)}  # type: ignore[attr-defined]
    assert not users & {child.pid for child in psutil.Process().children()}


async def test_a_process_made_ahead_takes_nothing_of_the_gpu_and_becomes_an_engine(
    kind: VllmKind, gpu: Device, nvml: object, smol_dir: Path, tmp_path: Path
) -> None:
    await kind.warm()
    before = used_bytes(nvml)
    made = await kind.shells.make()
    assert used_bytes(nvml) - before < SLACK_BYTES
    engine = await kind.start(spec(smol_dir, tmp_path, devices=(gpu,), kv_cache_bytes=CACHE_BYTES))
    assert engine.pids == {made.pid}
    assert "shell" in engine.phases
    assert "Paris" in (await chat(engine)).json["choices"][0]["message"]["content"]
    await engine.stop()
    await until(lambda: used_bytes(nvml) - before < SLACK_BYTES, 10)


async def test_it_answers_and_holds_exactly_the_cache_it_was_given(
    kind: VllmKind, gpu: Device, nvml: object, smol_dir: Path, tmp_path: Path
) -> None:
    before = used_bytes(nvml)
    engine = await kind.start(spec(smol_dir, tmp_path, devices=(gpu,), kv_cache_bytes=CACHE_BYTES))
    assert "Paris" in (await chat(engine)).json["choices"][0]["message"]["content"]
    held = engine.footprint
    assert CACHE_BYTES - SLACK_BYTES < held.kv_cache_bytes <= CACHE_BYTES
    assert held.weights_bytes == pytest.approx((smol_dir / "model.safetensors").stat().st_size, rel=0.05)
    assert held.total_bytes == pytest.approx(used_bytes(nvml) - before, rel=0.1)
    await engine.stop()


async def test_two_engines_share_a_gpu_and_start_at_once(
    kind: VllmKind, gpu: Device, smol_dir: Path, tmp_path: Path
) -> None:
    async with asyncio.TaskGroup() as group:
        starts = [
            group.create_task(kind.start(spec(smol_dir, tmp_path, name, devices=(gpu,), kv_cache_bytes=CACHE_BYTES)))
            for name in ("r1", "r2")
        ]
    engines = [start.result() for start in starts]
    async with asyncio.TaskGroup() as group:
        answers = [group.create_task(chat(engine)) for engine in engines]
    assert all("Paris" in answer.result().json["choices"][0]["message"]["content"] for answer in answers)
    for engine in engines:
        assert CACHE_BYTES - SLACK_BYTES < engine.footprint.kv_cache_bytes <= CACHE_BYTES
        await engine.stop()


async def test_stop_gives_all_memory_back(
    kind: VllmKind, gpu: Device, nvml: object, smol_dir: Path, tmp_path: Path
) -> None:
    before = used_bytes(nvml)
    engine = await kind.start(spec(smol_dir, tmp_path, devices=(gpu,), kv_cache_bytes=CACHE_BYTES))
    pids = engine.pids
    assert used_bytes(nvml) - before > CACHE_BYTES
    await engine.stop()
    assert not any(alive(pid) for pid in pids)
    await until(lambda: used_bytes(nvml) - before < SLACK_BYTES, 5)


@pytest.mark.parametrize("level", [1, 2])
async def test_asleep_it_gives_its_memory_back_and_awake_it_answers_as_before(
    kind: VllmKind, gpu: Device, nvml: object, smol_dir: Path, tmp_path: Path, level: int
) -> None:
    engine = await kind.start(spec(smol_dir, tmp_path, devices=(gpu,), kv_cache_bytes=CACHE_BYTES, sleep=True))
    assert engine.sleep_levels == {1, 2}
    before, awake, used_awake = await chat(engine), engine.footprint, used_bytes(nvml)
    for _ in range(2):  # the second time nothing is new to the allocators
        slept = await engine.sleep(level)
        freed = used_awake - used_bytes(nvml)
        assert freed > awake.weights_bytes + awake.kv_cache_bytes - SLACK_BYTES
        assert slept.residue.total_bytes == pytest.approx(awake.total_bytes - freed, abs=SLACK_BYTES)
        if level == 1:
            assert awake.weights_bytes <= slept.host_bytes < 3 * awake.weights_bytes
        else:
            assert slept.host_bytes < awake.weights_bytes / 2
        with pytest.raises(EngineFailed, match="sleeps"):
            await chat(engine)
        woken = await engine.wake()
        assert woken.total_bytes == pytest.approx(awake.total_bytes, abs=SLACK_BYTES)
        assert used_bytes(nvml) == pytest.approx(used_awake, abs=SLACK_BYTES)
        assert (await chat(engine)).json["choices"] == before.json["choices"]
    await engine.stop()


async def test_a_sleepers_memory_serves_another_and_its_own_share_is_told_apart(
    kind: VllmKind, gpu: Device, smol_dir: Path, tmp_path: Path
) -> None:
    first = await kind.start(spec(smol_dir, tmp_path, "r1", devices=(gpu,), kv_cache_bytes=CACHE_BYTES, sleep=True))
    awake = first.footprint
    second = await kind.start(spec(smol_dir, tmp_path, "r2", devices=(gpu,), kv_cache_bytes=CACHE_BYTES, sleep=True))
    slept = await first.sleep(2)
    assert slept.residue.total_bytes < awake.total_bytes - CACHE_BYTES
    assert "Paris" in (await chat(second)).json["choices"][0]["message"]["content"]
    await second.sleep(1)
    assert (await first.wake()).total_bytes == pytest.approx(awake.total_bytes, abs=SLACK_BYTES)
    assert "Paris" in (await chat(first)).json["choices"][0]["message"]["content"]
    await first.stop()
    await second.stop()


async def test_a_wake_without_memory_says_that_it_is_out_of_memory(
    kind: VllmKind, gpu: Device, nvml: object, smol_dir: Path, tmp_path: Path
) -> None:
    first = await kind.start(spec(smol_dir, tmp_path, "r1", devices=(gpu,), kv_cache_bytes=8 * GiB, sleep=True))
    await first.sleep(2)
    rest = gpu.capacity_bytes - used_bytes(nvml) - 4 * GiB
    second = await kind.start(spec(smol_dir, tmp_path, "r2", devices=(gpu,), kv_cache_bytes=rest))
    with pytest.raises(EngineFailed, match="cannot wake m") as failed:
        await first.wake()
    assert out_of_memory(failed.value.cause or "") is not None
    await first.stop()
    assert (await chat(second)).status == 200
    await second.stop()
