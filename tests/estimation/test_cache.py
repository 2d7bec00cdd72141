"""From a model and a launch to the pages of its KV cache."""

from dataclasses import replace

import pytest

from heliosd.core.units import GiB
from heliosd.estimation.cache import cache_launch, cache_of
from heliosd.estimation.kv_kinds import Keeps
from heliosd.estimation.kv_pages import KvPages
from heliosd.estimation.kv_specs import kv_specs
from heliosd.estimation.launch import Launch, Platform
from heliosd.estimation.model import read_model
from heliosd.estimation.resolve import resolve
from tests.estimation.logged_models import DEEPSEEK_LITE, GEMMA_27B, GLM_DSA, LLAMA_8B, QWEN_7B, Config

H100 = Launch(version=(0, 19, 0), device_name="NVIDIA H100 80GB HBM3", max_model_len=8192)


def pages(config: Config, launch: Launch = H100) -> KvPages:
    model = read_model(config)
    return cache_of(model, launch, resolve(model, launch))


def test_grouped_queries() -> None:
    found = pages(LLAMA_8B)
    assert found.block_bytes == 16 * 2 * 32 * 8 * 128 * 2, "16 tokens, keys and values, layers, heads, width, bytes"
    assert found.tokens_in(10 * GiB) == 10 * GiB // found.block_bytes * 16


def test_ranks_share_heads_until_each_has_one() -> None:
    four = pages(QWEN_7B, replace(H100, tensor_parallel=4)).block_bytes
    assert four == pages(QWEN_7B).block_bytes // 4
    assert pages(QWEN_7B, replace(H100, tensor_parallel=28)).block_bytes == four, "four heads"


def test_as_printed() -> None:
    """64.60 GiB hold 529,200 tokens of Llama-3.1-8B; the log rounds the bytes. Qwen2.5-7B on four: 5,043,280."""
    assert pages(LLAMA_8B).tokens_in(int(64.6 * GiB)) == pytest.approx(529_200, rel=0.001)
    four = pages(QWEN_7B, replace(H100, tensor_parallel=4))
    assert four.tokens_in(int(67.34 * GiB)) == pytest.approx(5_043_280, rel=0.001)
    assert pages(DEEPSEEK_LITE, replace(H100, tensor_parallel=2)).tokens_in(int(56.45 * GiB)) == pytest.approx(
        1_948_752, rel=0.001
    )


def test_latent_attention_is_the_same_on_every_rank() -> None:
    assert pages(DEEPSEEK_LITE).block_bytes == 16 * 27 * 576 * 2
    assert pages(DEEPSEEK_LITE, replace(H100, tensor_parallel=8)).block_bytes == pages(DEEPSEEK_LITE).block_bytes


def test_windows_make_groups() -> None:
    found = pages(GEMMA_27B)
    assert len(found.groups) == 7, "10 full layers, and 52 with a window in six groups of at most 10"
    assert pages(GEMMA_27B, replace(H100, version=(0, 8, 2), v0=True)).groups[0].layers == 62, "all alike before"


def test_what_the_launch_decides() -> None:
    assert pages(LLAMA_8B, replace(H100, kv_cache_dtype="fp8")).block_bytes == pages(LLAMA_8B).block_bytes // 2
    model = read_model(LLAMA_8B)
    asked = replace(H100, platform=Platform.CPU, block_size=None)
    told = cache_launch(model, asked, resolve(model, asked))
    assert (told.platform, told.max_model_len, told.dtype) == ("cpu", 8192, "bfloat16")
    assert pages(LLAMA_8B, asked).block_tokens == 128


def test_a_checkpoints_own_draft_layers_cache_too() -> None:
    """One multi-token layer beside 78; a drafter of its own is another model's cache."""
    alone = pages(GLM_DSA, replace(H100, version=(0, 26, 0)))
    drafting = pages(GLM_DSA, replace(H100, version=(0, 26, 0), speculative_tokens=3))
    assert drafting.block_bytes * 78 == alone.block_bytes * 79
    assert pages(LLAMA_8B, replace(H100, speculative_tokens=3)).block_bytes == pages(LLAMA_8B).block_bytes


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "qwen3_next"},
        {**QWEN_7B, "model_type": "mimo", "architectures": ["MiMoForCausalLM"], "num_nextn_predict_layers": 2},
        {
            "model_type": "nemotron_h",
            "num_nextn_predict_layers": 1,
            "architectures": ["NemotronHForCausalLM"],
            "num_hidden_layers": 4,
            "hybrid_override_pattern": "M-M*",
        },
        {"model_type": "deepseek_v3"},
        {**GLM_DSA, "index_topk_freq": 4},
    ],
    ids=lambda config: str(config["model_type"]),
)
def test_draft_layers_are_counted_whatever_they_are_called(config: Config) -> None:
    model = read_model(config)
    launch = replace(H100, version=(0, 26, 0), speculative_tokens=2)
    asked = cache_launch(model, launch, resolve(model, launch))
    steps = config.get("num_nextn_predict_layers", 1)
    assert asked.draft_layers == steps
    layers = {index for spec in kv_specs(model.fields, asked) if spec.keeps is Keeps.FULL for index in spec.layers}
    assert {index for index in layers if index >= model.sizes.layers} == set(
        range(model.sizes.layers, model.sizes.layers + steps)
    )
    if config["model_type"] == "glm_moe_dsa":
        indexers = [spec for spec in kv_specs(model.fields, asked) if spec.role == "indexer"]
        assert max(max(spec.layers) for spec in indexers) == model.sizes.layers, "the draft has one of its own"


def test_fp8_of_sparse_attention_is_packed_but_on_b200() -> None:
    asked = replace(H100, version=(0, 26, 0), kv_cache_dtype="fp8")
    hopper, blackwell = pages(GLM_DSA, asked), pages(GLM_DSA, replace(asked, device_name="NVIDIA B200"))
    assert hopper.block_bytes // hopper.block_tokens == 78 * (656 + 132)
    assert blackwell.block_bytes // blackwell.block_tokens == 78 * (576 + 132)


def test_bytes_for_tokens_and_back() -> None:
    for config in (LLAMA_8B, GEMMA_27B, DEEPSEEK_LITE):
        found = pages(config)
        needed = found.bytes_for(100_000)
        assert found.tokens_in(needed) >= 100_000
        assert found.tokens_in(needed - found.block_bytes) < 100_000


def test_encoders_keep_nothing() -> None:
    found = pages({"model_type": "bert", "architectures": ["BertModel"]})
    assert (found.block_bytes, found.tokens_in(GiB), found.bytes_for(1000)) == (0, 0, 0)
