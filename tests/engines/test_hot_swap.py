"""A running engine becomes another model of the same shape: it answers as if it had been started afresh."""

import asyncio
import json
import shutil
from pathlib import Path

import pytest
import torch

from heliosd.core.timeline import Span
from heliosd.engines.engine import Engine, LaunchSpec
from heliosd.engines.hot_swap import Expected
from heliosd.engines.vllm import VllmKind
from heliosd.errors import EngineFailed
from tests.bench.crowd_models import tiny_llama
from tests.engines.answers import alive, ask, chat, spec

WORDS = {"max_tokens": 12, "temperature": 0}


class Model(torch.nn.Module):
    """What a model's parameters look like to whoever compares: one with a row of padding, one made of two tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.packed_modules_mapping = {"gate_up_proj": ["gate_proj", "up_proj"]}
        self.table = torch.nn.Linear(3, 5, bias=False)
        self.layer = torch.nn.ModuleDict({"gate_up_proj": torch.nn.Linear(3, 4, bias=False)})


def _model_and_files() -> tuple[Model, dict[str, torch.Tensor]]:
    model = Model()
    both = model.layer["gate_up_proj"].weight.data
    files = {
        "table.weight": model.table.weight.data[:4].clone(),
        "layer.gate_proj.weight": both[:2].clone(),
        "layer.up_proj.weight": both[2:].clone(),
    }
    return model, files


def test_all_that_is_equal_is_found_equal() -> None:
    model, files = _model_and_files()
    found = Expected(model, files.items()).rest(model)
    assert (found.differs, found.unknown_bytes) == (None, 0)
    assert found.equal_bytes == sum(each.nbytes for each in files.values())


@pytest.mark.parametrize("name", ["table.weight", "layer.gate_proj.weight", "layer.up_proj.weight"])
def test_one_number_that_differs_is_found(name: str) -> None:
    model, files = _model_and_files()
    files[name][-1, -1] += 1
    assert Expected(model, files.items()).rest(model).differs in (name, "layer.gate_up_proj.weight")


def test_what_is_emptied_later_was_compared_before() -> None:
    model, files = _model_and_files()
    expected = Expected(model, files.items())
    expected.look("table.weight", model.table.weight)
    model.table.weight.data = torch.zeros(0)
    assert (expected.rest(model).differs, expected.found.unknown_bytes) == (None, 0)


def test_what_has_no_counterpart_is_counted() -> None:
    model, files = _model_and_files()
    del files["layer.up_proj.weight"]
    files["other.weight"] = torch.zeros(10)
    found = Expected(model, files.items()).rest(model)
    assert found.unknown_bytes == files["other.weight"].nbytes + files["layer.gate_proj.weight"].nbytes


@pytest.fixture(scope="module")
def twins(smol_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two models of one shape; the second has another chat template and another end."""
    folder = tmp_path_factory.mktemp("twins")
    first, second = (tiny_llama(folder / f"twin-{seed}", smol_dir, seed) for seed in (1, 2))
    (second / "chat_template.jinja").unlink(missing_ok=True)
    told = json.loads((second / "tokenizer_config.json").read_text())
    told["chat_template"] = "{% for m in messages %}{{ m['content'] }} and so on{% endfor %}"
    (second / "tokenizer_config.json").write_text(json.dumps(told))
    return first, second


def spans(of: LaunchSpec) -> tuple[Span, ...]:
    return of.clock.timeline().spans


async def _says(engine: Engine, model: str) -> tuple[str, int]:
    answer = await chat(engine, model=model, **WORDS)
    assert answer.status == 200, answer.body
    return answer.json["choices"][0]["message"]["content"], answer.json["usage"]["prompt_tokens"]


@pytest.mark.slow
@pytest.mark.asyncio(loop_scope="session")
async def test_it_answers_like_a_fresh_engine_and_back(
    vllm_kind: VllmKind, twins: tuple[Path, Path], tmp_path: Path
) -> None:
    one, two = (spec(folder, tmp_path, name, served_names=(name,)) for folder, name in zip(twins, "ab", strict=True))
    fresh = await vllm_kind.start(two)
    wanted = await _says(fresh, "b")
    await fresh.stop()
    first: Engine = await vllm_kind.start(one)
    before, pids = await _says(first, "a"), first.pids
    assert first.swaps
    assert before != wanted
    second = await vllm_kind.take_over(first, two)
    assert second.pids == pids, "another process"
    assert await _says(second, "b") == wanted
    assert (await chat(second, model="a", **WORDS)).status == 404, "it still answers to its old name"
    phases = list(second.phases)
    assert {"configure", "tokenizer", "frontend", "weights", "check"} <= set(phases)
    assert phases.index("weights") < phases.index("check")
    read = next(span for span in spans(two) if span.phase == "read")
    assert (read.within, read.took_s > 0) == ("weights", True)
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    wish = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    assert (await chat(second, model="b", response_format=wish, max_tokens=4)).status == 200
    assert 'model_name="b"' in second.metrics()
    assert 'model_name="a"' not in second.metrics()
    back = await vllm_kind.take_over(second, one)
    assert await _says(back, "a") == before
    await back.stop()
    assert not any(map(alive, pids))


@pytest.mark.slow
@pytest.mark.asyncio(loop_scope="session")
async def test_weights_that_cannot_be_read_end_the_engine(
    vllm_kind: VllmKind, twins: tuple[Path, Path], tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(twins[1], broken)
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:4000])
    engine: Engine = await vllm_kind.start(spec(twins[0], tmp_path, "c"))
    pids = engine.pids
    with pytest.raises(EngineFailed, match="cannot make a running engine"):
        await vllm_kind.take_over(engine, spec(broken, tmp_path, "d"))
    assert not any(map(alive, pids))


@pytest.mark.slow
@pytest.mark.asyncio(loop_scope="session")
async def test_called_off_it_leaves_no_process(vllm_kind: VllmKind, twins: tuple[Path, Path], tmp_path: Path) -> None:
    engine: Engine = await vllm_kind.start(spec(twins[0], tmp_path, "e"))
    pids = engine.pids
    async with asyncio.TaskGroup() as group:
        swapping = group.create_task(vllm_kind.take_over(engine, spec(twins[1], tmp_path, "f")))
        await asyncio.sleep(0)
        swapping.cancel()
    assert not any(map(alive, pids))


@pytest.mark.slow
@pytest.mark.asyncio(loop_scope="session")
async def test_an_embedder_does_not_swap(vllm_kind: VllmKind, twins: tuple[Path, Path], tmp_path: Path) -> None:
    options = {"runner": "pooling", "convert": "embed"}
    engine: Engine = await vllm_kind.start(spec(twins[0], tmp_path, "g", engine_args=options))
    assert not engine.swaps
    assert (await ask(engine, "/v1/models", method="GET")).status == 200
    await engine.stop()
