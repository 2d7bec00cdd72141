"""The estimate against a real GPU: what heliosd would book before anything loads, and what the engine then holds.

Run by `make test-gpu`. The laws were proven on the logs of other people's GPUs (`python -m tests.bench.truth`); this is
the first start on the machine at hand.
"""

import json
from pathlib import Path

import pytest

from heliosd.core.hardware import Device, DeviceKind
from heliosd.core.profile import ModelProfile
from heliosd.core.units import GiB
from heliosd.engines.vllm import VllmKind
from heliosd.estimation.estimate import Place, Wishes, estimate
from heliosd.estimation.known import known_from
from heliosd.store.inspection import read_header
from tests.engines.answers import chat, spec

pytestmark = [pytest.mark.gpu, pytest.mark.asyncio]

CACHE_BYTES = 2 * GiB


async def test_a_first_start_takes_what_was_predicted(smol_dir: Path, tmp_path: Path, gpu: Device) -> None:
    config = json.loads((smol_dir / "config.json").read_text(encoding="utf-8"))
    known = known_from(config, [read_header(smol_dir / "model.safetensors", "model.safetensors")])
    profile = ModelProfile("LlamaForCausalLM", 0, *(None,) * 8)
    predicted = estimate(
        known,
        profile,
        Wishes(kv_cache_bytes=CACHE_BYTES, max_num_seqs=32),
        Place(DeviceKind.CUDA, gpu.capacity_bytes, gpu.name),
    )
    kind = VllmKind(tmp_path / "vllm", DeviceKind.CUDA)
    try:
        engine = await kind.start(spec(smol_dir, tmp_path, devices=(gpu,), kv_cache_bytes=CACHE_BYTES))
        await chat(engine)
        held = engine.footprint
        await engine.stop()
    finally:
        await kind.close()
    assert predicted.basis is not None
    assert held.weights_bytes == pytest.approx(predicted.per_device.weights_bytes, rel=0.05)
    assert held.total_bytes == pytest.approx(predicted.basis.likely.total_bytes, rel=0.05)
    assert held.total_bytes <= predicted.per_device.total_bytes * 1.01, "more than was booked"
