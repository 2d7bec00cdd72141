"""The load format `helios` in real engines: the same weights as vLLM's own, shared between replicas, never written."""

import hashlib
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from heliosd.engines.engine import Engine
from heliosd.engines.vllm import VllmKind
from heliosd.errors import EngineFailed
from tests.engines.answers import chat, spec

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="session")]

NAME = "model.safetensors"


@pytest.fixture
def model(tiny_dir: Path, tmp_path: Path) -> Path:
    """Laid out as the store does: links to a blob that nobody may write."""
    folder = tmp_path / "revision"
    folder.mkdir()
    for path in tiny_dir.iterdir():
        (folder / path.name).symlink_to(path)
    (folder / NAME).unlink()
    blob = tmp_path / "blob"
    blob.write_bytes((tiny_dir / NAME).read_bytes())
    blob.chmod(0o444)
    (folder / NAME).symlink_to(blob)
    return folder


@asynccontextmanager
async def running(kind: VllmKind, folder: Path, name: str, **engine_args: Any) -> AsyncIterator[Engine]:
    engine = await kind.start(spec(folder, folder.parent, name, engine_args=engine_args))
    try:
        yield engine
    finally:
        await engine.stop()


async def asked(engine: Any, method: str, **kwargs: Any) -> Any:
    return (await engine._llm.collective_rpc(method, kwargs=kwargs))[0]


async def checksums(engine: Any) -> Any:
    return await asked(engine, "compute_weight_checksums")


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / NAME).read_bytes()).hexdigest()


def of_the_file(engine: Engine, file: Path, what: str) -> int:
    """Bytes of the engine's mappings of a file."""
    total, ours = 0, False
    for pid in engine.pids:
        for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
            first = line.split()[0]
            if not first.endswith(":"):
                ours = line.endswith(str(file.resolve()))
            elif ours and first == f"{what}:":
                total += int(line.split()[1]) * 1024
    return total


async def test_it_is_what_engines_use_and_it_loads_what_vllm_loads(vllm_kind: VllmKind, model: Path) -> None:
    async with running(vllm_kind, model, "theirs", load_format="auto") as engine:
        expected, answer = await checksums(engine), (await chat(engine)).json["choices"]
        assert (await asked(engine, "helios_measure"))["mapped_bytes"] == 0
        own = engine.footprint
    async with running(vllm_kind, model, "ours") as engine:
        assert engine._llm.vllm_config.load_config.load_format == "helios"  # type: ignore[attr-defined]
        assert await checksums(engine) == expected
        assert (await chat(engine)).json["choices"] == answer
        assert (await asked(engine, "helios_measure"))["mapped_bytes"] >= 49152 * 64 * 2, "the embedding was copied"
        assert engine.footprint.weights_bytes == own.weights_bytes


async def test_replicas_share_the_pages(vllm_kind: VllmKind, model: Path) -> None:
    async with running(vllm_kind, model, "one") as one:
        alone = of_the_file(one, model / NAME, "Pss")
        overhead = one.footprint.overhead_bytes
        async with running(vllm_kind, model, "two") as two:
            resident = [of_the_file(engine, model / NAME, "Rss") for engine in (one, two)]
            shared = [of_the_file(engine, model / NAME, "Pss") for engine in (one, two)]
            assert alone > 49152 * 64 * 2
            assert min(resident) > 49152 * 64 * 2
            assert sum(shared) == pytest.approx(max(resident), rel=0.02), "each has pages of its own"
            assert two.footprint.weights_bytes == one.footprint.weights_bytes
            assert two.footprint.overhead_bytes == pytest.approx(overhead, rel=0.1), "sharing was taken for thrift"


async def test_nothing_that_an_engine_does_reaches_the_store(vllm_kind: VllmKind, model: Path) -> None:
    before = digest(model)
    async with running(vllm_kind, model, "swap") as engine:
        expected = await checksums(engine)
        await asked(engine, "reload_weights")
        assert await checksums(engine) == expected
        assert (await chat(engine)).status == 200
    async with running(vllm_kind, model, "small", quantization="int8_per_channel_weight_only") as engine:
        assert (await chat(engine)).status == 200
    assert digest(model) == before


async def test_other_weights_can_be_read_into_a_mapped_model(vllm_kind: VllmKind, model: Path, tmp_path: Path) -> None:
    """As when one model's replica becomes another's: mapped pages become the engine's own."""
    other = tmp_path / "other"
    other.mkdir()
    for path in model.iterdir():
        (other / path.name).symlink_to(path.resolve())
    content = bytearray((model / NAME).read_bytes())
    content[-4096:] = bytes(4096)
    (other / NAME).unlink()
    (other / NAME).write_bytes(content)
    before = digest(model), digest(other)
    async with running(vllm_kind, other, "other") as engine:
        expected = await checksums(engine)
    async with running(vllm_kind, model, "both") as engine:
        assert await checksums(engine) != expected
        await asked(engine, "reload_weights", weights_path=str(other))
        assert await checksums(engine) == expected
    assert (digest(model), digest(other)) == before


async def test_a_recipe_gives_the_same_weights(vllm_kind: VllmKind, model: Path) -> None:
    async with running(vllm_kind, model, "whole") as engine:
        expected = await checksums(engine)
    content = (model / NAME).read_bytes()
    cuts = [0, 10, 5001, len(content) // 2, len(content)]
    parts = []
    for number, (begin, end) in enumerate(itertools.pairwise(cuts)):
        (model.parent / f"part{number}").write_bytes(b"?" * number + content[begin:end])
        parts.append({"path": f"../part{number}", "offset": number, "size_bytes": end - begin})
    (model / NAME).unlink()
    recipe = {"format": 1, "size_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest(), "parts": parts}
    (model / f"{NAME}.recipe").write_text(json.dumps(recipe))
    async with running(vllm_kind, model, "parts") as engine:
        assert await checksums(engine) == expected


async def test_a_damaged_file_is_refused_with_its_name(vllm_kind: VllmKind, model: Path) -> None:
    content = (model / NAME).read_bytes()
    (model / NAME).unlink()
    (model / NAME).write_bytes(content[:-1000])
    with pytest.raises(EngineFailed, match=r"cannot load model\.safetensors: the tensors end at"):
        async with running(vllm_kind, model, "cut"):
            pass
