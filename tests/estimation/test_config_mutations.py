"""Broken configurations are answered or refused, never crash, and never take long."""

import json
import random
from pathlib import Path

import pytest

from heliosd.core.units import GiB
from heliosd.errors import BadRequest
from heliosd.estimation.account import account
from heliosd.estimation.cache import cache_of
from heliosd.estimation.fields import class_defaults
from heliosd.estimation.launch import Launch
from heliosd.estimation.model import read_model
from heliosd.estimation.resolve import resolve
from tests.bench.truth_rows import DIRECTORY
from tests.estimation.config_mutations import Config, mutated, nested
from tests.estimation.logged_models import AWQ, DEEPSEEK_LITE, GEMMA_27B, GPTQ, LLAMA_8B, MIXTRAL, QWEN_06B, QWEN_7B

LAUNCHES = (
    Launch(device_name="NVIDIA H100 80GB HBM3"),
    Launch(tensor_parallel=8, pipeline_parallel=3, kv_cache_dtype="fp8"),
    Launch(v0=True, version=(0, 6, 0), tensor_parallel=3),
    Launch(version=(0, 11, 0), expert_parallel=True, tensor_parallel=16, max_loras=2, speculative_tokens=3),
)
pytestmark = pytest.mark.timeout(60)
"""A search without end fails here, long before the limit of all tests."""


def bases() -> list[Config]:
    found = [LLAMA_8B, QWEN_7B, QWEN_06B, GEMMA_27B, MIXTRAL, DEEPSEEK_LITE]
    found += [{**LLAMA_8B, "quantization_config": AWQ}, {**MIXTRAL, "quantization_config": {**GPTQ, "ignore": ["mlp"]}}]
    found += [{"model_type": name, **values} for name, values in class_defaults().items()]
    real = [path for path in sorted((DIRECTORY / "configs").glob("*.json")) if path.stat().st_size < 100_000]
    return found + [json.loads(path.read_text(encoding="utf-8")) for path in real if isinstance(path, Path)]


def answered(config: Config, launch: Launch) -> bool:
    """Whether there was an estimate, and not a refusal. Anything but these two fails."""
    try:
        model = read_model(config)
        resolved = resolve(model, launch)
        for each in account(model, launch, kv_bytes=GiB, resolved=resolved):
            for name, term in each.terms:
                assert 0 <= term.low_bytes <= term.likely_bytes <= term.high_bytes, name
        pages = cache_of(model, launch, resolved)
        assert pages.bytes_for(1000) >= 0
        assert pages.tokens_in(7 * GiB) >= 0
        pages.max_concurrency(4096, GiB)
        found = True
    except BadRequest as error:
        assert error.code == "bad_config"
        assert str(error).startswith("cannot ")
        assert len(str(error)) < 400
        found = False
    return found


@pytest.mark.parametrize("seed", range(4))
def test_mutations(seed: int) -> None:
    chance, given = random.Random(seed), bases()
    results = [answered(mutated(chance.choice(given), chance), chance.choice(LAUNCHES)) for _ in range(400)]
    assert 0.4 < sum(results) / len(results) < 0.98, "some are answered, some refused"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 108))
def test_many_mutations(seed: int) -> None:
    chance, given = random.Random(seed), bases()
    for _ in range(3000):
        answered(mutated(chance.choice(given), chance), chance.choice(LAUNCHES))


@pytest.mark.parametrize(
    "change",
    [
        {"num_hidden_layers": 10**12}, {"num_hidden_layers": 0}, {"num_hidden_layers": -3}, {"num_attention_heads": 0},
        {"num_attention_heads": 33}, {"hidden_size": 10**13}, {"vocab_size": 0}, {"hidden_size": [4096]},
        {"intermediate_size": "wide"}, {"num_key_value_heads": 5}, {"hidden_size": None, "model_type": "no-such-model"},
    ],
)  # fmt: skip
def test_contradictions_are_refused(change: Config) -> None:
    config = {**LLAMA_8B, **change}
    if change.get("model_type"):
        assert answered(config, LAUNCHES[0]), "an unknown architecture is a guess, not an error"
    else:
        assert not answered(config, LAUNCHES[0])


@pytest.mark.parametrize("depth", [100, 900])
def test_deep_nesting(depth: int) -> None:
    answered({**LLAMA_8B, "quantization_config": nested(depth)}, LAUNCHES[0])
    answered({**GEMMA_27B, "text_config": nested(depth)}, LAUNCHES[0])
    answered(nested(depth), LAUNCHES[0])


def test_a_configuration_that_contains_itself() -> None:
    round_and_round: Config = dict(LLAMA_8B)
    round_and_round["text_config"] = round_and_round
    answered(round_and_round, LAUNCHES[0])
    circular: Config = {"quant_method": "awq"}
    circular["config_groups"] = circular
    answered({**LLAMA_8B, "quantization_config": circular}, LAUNCHES[0])


def test_expressions_that_would_search_for_ever() -> None:
    hostile = ["re:(a|a)*b", "re:(.*)*x", "re:(\\w+\\.?)+!", "re:" + ".*" * 30 + "x", "*" * 60 + "x", "re:" + "(" * 500]
    assert answered({**LLAMA_8B, "quantization_config": {**GPTQ, "ignore": hostile * 100}}, LAUNCHES[0])


def test_megabytes_of_module_names() -> None:
    names = {
        f"model.layers.{layer}.mlp.experts.{at}.w1": {"quant_algo": "NVFP4"} for layer in range(60) for at in range(300)
    }
    found = {"quant_method": "modelopt", "quantized_layers": names}
    assert answered({**MIXTRAL, "quantization_config": found}, LAUNCHES[0])


def test_sizes_that_multiply_beyond_all_memory() -> None:
    vast = {
        **LLAMA_8B,
        "hidden_size": 2**39,
        "intermediate_size": 2**39,
        "num_attention_heads": 2**20,
        "head_dim": 2**39,
    }
    assert not answered({**vast, "num_key_value_heads": 2**20}, LAUNCHES[0])
