"""On a GPU an engine captures just the batch sizes it was told, and its graphs take their share of the memory.

Run by `make test-gpu`.
"""

import asyncio
from pathlib import Path

import pytest

from heliosd.core.hardware import Device, DeviceKind
from heliosd.core.units import GiB
from heliosd.engines.engine import LaunchSpec
from heliosd.engines.vllm import VllmKind
from heliosd.estimation.capture_choice import CAPTURES
from tests.engines.answers import chat, spec

pytestmark = [pytest.mark.gpu, pytest.mark.asyncio]

FEW = [1, 2, 4, 8, 16]


async def started(kind: VllmKind, asked: LaunchSpec) -> tuple[int, float]:
    """Bytes besides weights and KV cache, and seconds of capturing."""
    engine = await kind.start(asked)
    assert (await chat(engine, max_tokens=4)).status == 200
    overhead_bytes = engine.footprint.overhead_bytes
    await engine.stop()
    spans = asked.clock.timeline().spans
    return overhead_bytes, sum(span.took_s for span in spans if span.phase == "capture")


async def test_few_sizes_take_less_memory_and_less_of_the_start(smol_dir: Path, tmp_path: Path, gpu: Device) -> None:
    kind = VllmKind(tmp_path / "vllm", DeviceKind.CUDA)
    options = {"devices": (gpu,), "kv_cache_bytes": 2 * GiB, "max_num_seqs": 256}
    try:
        await started(kind, spec(smol_dir, tmp_path, "warm", **options))  # what is compiled once, is there for both
        usual = spec(smol_dir, tmp_path, "usual", **options)
        few = spec(smol_dir, tmp_path, "few", engine_args={CAPTURES: FEW}, **options)
        usual_bytes, usual_s = await started(kind, usual)
        few_bytes, few_s = await started(kind, few)
    finally:
        await kind.close()
    print(f"five sizes: {few_bytes} bytes, {few_s:.2f} s; vLLM's own: {usual_bytes} bytes, {usual_s:.2f} s")
    assert few_bytes < usual_bytes
    log = await asyncio.to_thread(few.log_file.read_text, errors="replace")
    assert "max_cudagraph_capture_size': 16" in log or "cudagraph_capture_sizes': [1, 2, 4, 8, 16]" in log
