"""What is decided around vLLM: which tool parser, whose metrics; and that a changed vLLM is refused by name."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from heliosd.core.hardware import DeviceKind
from heliosd.engines.vllm import VllmKind
from heliosd.errors import EngineFailed
from heliosd.estimation.capture_choice import CAPTURES
from tests.engines.answers import HOST, spec

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="session")]


@pytest.fixture(autouse=True)
async def _imported(vllm_kind: VllmKind) -> None:
    await vllm_kind.warm()


async def test_the_tool_parser_follows_the_chat_template() -> None:
    from heliosd.engines.adapter_openai import tool_parser_for

    assert tool_parser_for("{{ '<tool_call>' }}") == "hermes"
    assert tool_parser_for("<tool_call>\n<function=name>") == "qwen3_coder"
    assert tool_parser_for("[AVAILABLE_TOOLS] [TOOL_CALLS]") == "mistral"
    assert tool_parser_for("<|python_tag|>") == "llama3_json"
    assert tool_parser_for("says nothing of tools") == "hermes"
    assert tool_parser_for(None) == "hermes"


async def test_two_registries_do_not_share_and_each_series_is_marked() -> None:
    from prometheus_client import Counter

    from heliosd.engines.adapter import Registry

    first, second = Registry(), Registry()
    for registry, count in ((first, 1), (second, 2)):
        Counter("vllm:tokens", "Tokens.", ["model_name"], registry=registry).labels("m").inc(count)
    assert 'vllm:tokens_total{model_name="m",replica="r1"} 1.0' in first.text(replica="r1")
    assert 'vllm:tokens_total{model_name="m",replica="r2"} 2.0' in second.text(replica="r2")


async def test_the_configuration_is_exact_and_the_environment_untouched(tiny_dir: Path, tmp_path: Path) -> None:
    import os

    from heliosd.engines import adapter

    before = dict(os.environ)
    config = adapter.engine_config(spec(tiny_dir, tmp_path, kv_cache_bytes=12345678, max_num_seqs=5))
    assert config.cache_config.kv_cache_memory_bytes == 12345678
    assert config.scheduler_config.max_num_seqs == 5
    assert config.model_config.enforce_eager
    assert config.parallel_config.distributed_executor_backend == "uni"
    assert config.parallel_config.worker_cls == "heliosd.engines.worker.CPUWorker"
    assert dict(os.environ) == before


async def test_on_a_gpu_no_share_of_it_is_demanded_and_sleep_is_the_operators_to_refuse(
    tiny_dir: Path, tmp_path: Path
) -> None:
    """vLLM starts only where as much is free as its share of the device, even when it is told the cache's size."""
    from heliosd.engines import adapter

    card = replace(HOST, kind=DeviceKind.MIG)  # a GPU without a slice is chosen by a number that the CPU's vLLM refuses
    config = adapter.engine_config(spec(tiny_dir, tmp_path, devices=(card,)))
    assert config.cache_config.gpu_memory_utilization == 0.01
    assert not config.model_config.enable_sleep_mode
    with pytest.raises(ValueError, match="Sleep mode is not supported on current platform"):
        adapter.engine_config(spec(tiny_dir, tmp_path, devices=(card,), sleep=True))
    refused = {"enable_sleep_mode": False}
    config = adapter.engine_config(spec(tiny_dir, tmp_path, devices=(card,), sleep=True, engine_args=refused))
    assert not config.model_config.enable_sleep_mode


async def test_the_devices_of_a_pipeline_are_dealt_out_to_its_stages(tiny_dir: Path, tmp_path: Path) -> None:
    from heliosd.engines import adapter

    cards = tuple(replace(HOST, kind=DeviceKind.MIG) for _ in range(4))
    config = adapter.engine_config(spec(tiny_dir, tmp_path, devices=cards, pipeline_parallel=2))
    parallel = config.parallel_config
    assert (parallel.tensor_parallel_size, parallel.pipeline_parallel_size, parallel.world_size) == (2, 2, 4)
    config = adapter.engine_config(spec(tiny_dir, tmp_path, devices=cards[:2]))
    assert (config.parallel_config.tensor_parallel_size, config.parallel_config.pipeline_parallel_size) == (2, 1)


async def test_chosen_batch_sizes_become_those_of_the_compilation(tiny_dir: Path, tmp_path: Path) -> None:
    """The CPU's vLLM captures nothing, but it knows the argument, and whose it is."""
    from vllm.config import CompilationConfig

    from heliosd.engines import adapter

    assert hasattr(CompilationConfig(), CAPTURES)
    card = replace(HOST, kind=DeviceKind.MIG)
    adapter.engine_config(spec(tiny_dir, tmp_path, devices=(card,), engine_args={CAPTURES: [1, 2, 4]}))
    twice = {CAPTURES: [1, 2], "compilation_config": {CAPTURES: [4]}}
    with pytest.raises(ValueError, match="mutually exclusive"):
        adapter.engine_config(spec(tiny_dir, tmp_path, devices=(card,), engine_args=twice))


async def test_what_helios_decides_cannot_be_set_otherwise(tiny_dir: Path, tmp_path: Path) -> None:
    from heliosd.engines import adapter

    with pytest.raises(
        EngineFailed, match=r"must not set model: .*; must not set device_ids: .*from pipeline_parallel, "
    ):
        adapter.engine_config(
            spec(tiny_dir, tmp_path, engine_args={"model": "x", "device_ids": [0], "pipeline-parallel-size": 2})
        )
    assert HOST.kind == "host"


def _tokenizer() -> None:
    from heliosd.engines.preload import tokenizer_on_demand

    tokenizer_on_demand()


def _install() -> None:
    from heliosd.engines.adapter import install

    install()


def _attention() -> None:
    from heliosd.engines.preload import attention_without_amx

    attention_without_amx()


def _metrics() -> None:
    from heliosd.engines.adapter import Registry, _metrics_logger

    _metrics_logger(Registry())


@pytest.mark.parametrize(
    ("moved", "use"),
    [
        ("vllm.v1.structured_output.cached_tokenizer_from_config", _tokenizer),
        ("vllm.v1.engine.utils.get_mp_context", _install),
        ("vllm.v1.attention.backends.cpu_attn._get_attn_isa", _attention),
        ("vllm.v1.metrics.loggers.PrometheusStatLogger._perf_metrics_cls", _metrics),
    ],
)
async def test_a_vllm_that_has_moved_something_is_refused_by_its_name(
    moved: str, use: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(moved)
    with pytest.raises(RuntimeError, match="is not as Helios knows it"):
        use()
