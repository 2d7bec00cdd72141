"""vLLM in two pipeline stages on two GPUs: each holds its part, and the answers are those of one GPU.

Run by `make test-gpu` on a machine with two NVIDIA GPUs and `pip install '.[cuda]'`.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from heliosd.core.hardware import Device, DeviceKind
from heliosd.core.names import DeviceId
from heliosd.core.units import GiB, MiB
from heliosd.engines.vllm import VllmKind
from tests.engines.answers import chat, spec

pytestmark = [pytest.mark.gpu, pytest.mark.asyncio(loop_scope="session")]

CACHE_BYTES = GiB


@pytest.fixture(scope="module")
def gpus() -> tuple[Device, Device]:
    pynvml = pytest.importorskip("pynvml")
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        pytest.skip("no NVIDIA driver here")
    try:
        if pynvml.nvmlDeviceGetCount() < 2:
            pytest.skip("two GPUs are needed")
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(2)]
        first, second = (
            Device(
                DeviceId(pynvml.nvmlDeviceGetUUID(handle)),
                DeviceKind.CUDA,
                f"GPU {index}",
                pynvml.nvmlDeviceGetMemoryInfo(handle).total,
                index=index,
            )
            for index, handle in enumerate(handles)
        )
    finally:
        pynvml.nvmlShutdown()
    return first, second


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def kind(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[VllmKind]:
    made = VllmKind(tmp_path_factory.mktemp("vllm"), DeviceKind.CUDA)
    yield made
    await made.close()


async def test_two_stages_answer_as_one_and_each_holds_its_part(
    kind: VllmKind, gpus: tuple[Device, Device], smol_dir: Path, tmp_path: Path
) -> None:
    alone = await kind.start(spec(smol_dir, tmp_path, "r1", devices=gpus[:1], kv_cache_bytes=CACHE_BYTES))
    expected, whole = (await chat(alone)).json["choices"][0]["message"]["content"], alone.footprint
    await alone.stop()
    staged = await kind.start(
        spec(smol_dir, tmp_path, "r2", devices=gpus, pipeline_parallel=2, kv_cache_bytes=CACHE_BYTES)
    )
    assert (await chat(staged)).json["choices"][0]["message"]["content"] == expected
    held = staged.footprint
    assert held.weights_bytes < 0.8 * whole.weights_bytes, "of SmolLM2 a fifth is the table of tokens, which both hold"
    assert CACHE_BYTES - 64 * MiB < held.kv_cache_bytes <= CACHE_BYTES
    assert len(staged.pids) >= 2
    await staged.stop()
