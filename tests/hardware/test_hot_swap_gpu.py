"""A running engine on a real GPU becomes another model of the same shape, in the same memory.

Run by `make test-gpu`.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from heliosd.core.hardware import Device, DeviceKind
from heliosd.core.units import MiB
from heliosd.engines.vllm import VllmKind
from tests.bench.twin import twin
from tests.engines.answers import chat, spec
from tests.hardware.conftest import used_bytes
from tests.hardware.test_vllm_gpu import CACHE_BYTES

pytestmark = [pytest.mark.gpu, pytest.mark.asyncio(loop_scope="session")]

SLACK_BYTES = 256 * MiB
"""What PyTorch's allocator keeps of the layers that passed through it."""


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def kind(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[VllmKind]:
    made = VllmKind(tmp_path_factory.mktemp("vllm"), DeviceKind.CUDA)
    yield made
    await made.close()


async def test_it_answers_like_a_fresh_engine_in_the_same_memory(
    kind: VllmKind,
    gpu: Device,
    nvml: object,
    smol_dir: Path,
    tmp_path: Path,
) -> None:
    folders = {"a": smol_dir, "b": twin(smol_dir, tmp_path / "twin")}
    specs = {
        name: spec(folder, tmp_path, name, served_names=(name,), devices=(gpu,), kv_cache_bytes=CACHE_BYTES)
        for name, folder in folders.items()
    }
    fresh = await kind.start(specs["b"])
    wanted = (await chat(fresh, model="b", temperature=0)).json["choices"]
    await fresh.stop()
    first = await kind.start(specs["a"])
    before, held = (await chat(first, model="a", temperature=0)).json["choices"], used_bytes(nvml)
    assert first.swaps
    assert before != wanted
    second = await kind.take_over(first, specs["b"])
    assert (await chat(second, model="b", temperature=0)).json["choices"] == wanted
    assert abs(used_bytes(nvml) - held) < SLACK_BYTES
    await second.stop()
