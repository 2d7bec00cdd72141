"""The activation peak: the sampler's logits or the widest layer, and what outlives both."""

from dataclasses import replace
from typing import Any

import pytest

from heliosd.core.units import GiB, MiB
from heliosd.estimation.activations import ActivationPeak, activation_peak
from heliosd.estimation.constants import era
from heliosd.estimation.launch import Launch
from heliosd.estimation.model import read_model
from heliosd.estimation.resolve import resolve
from tests.estimation.logged_models import GEMMA_27B, GLM_DSA, LLAMA_8B, MIXTRAL, QWEN_06B, QWEN_7B, QWEN_AUDIO

H100 = Launch(version=(0, 19, 0), device_name="NVIDIA H100 80GB HBM3")

B200_LONG = Launch(
    version=(0, 26, 0), device_name="NVIDIA B200", tensor_parallel=4, expert_parallel=True, max_model_len=819_200,
    max_num_batched_tokens=8192, kv_cache_dtype="fp8_e4m3",
)  # fmt: skip


def peak(config: dict[str, Any], launch: Launch = H100) -> ActivationPeak:
    model = read_model(config)
    return activation_peak(model, resolve(model, launch), era(launch.version, v0=launch.v0))


@pytest.mark.parametrize(
    ("config", "launch", "printed"),
    [
        (LLAMA_8B, H100, 1.89),
        (QWEN_7B, replace(H100, tensor_parallel=4), 2.21),
        (LLAMA_8B, replace(H100, version=(0, 11, 0)), 4.76),
        (QWEN_06B, replace(H100, version=(0, 11, 0)), 5.56),
        (MIXTRAL, replace(H100, tensor_parallel=2, max_model_len=8192), 1.21),
        (GLM_DSA, B200_LONG, 6.31),
        (QWEN_AUDIO, replace(H100, version=(0, 9, 1), v0=True, dtype="float16", max_model_len=1024), 0.51),
    ],
)
def test_as_printed(config: dict[str, Any], launch: Launch, printed: float) -> None:
    assert peak(config, launch).total_bytes / GiB == pytest.approx(printed, rel=0.02)


def test_the_sampler_decides_for_a_large_vocabulary() -> None:
    """Logits in half precision and float32 with two masks: 14 bytes for each of 1,024 x 128,256, and scratch rows."""
    found = peak(LLAMA_8B)
    assert found.sampler_bytes > found.layer_bytes
    assert found.sampler_bytes >= 14 * 1024 * 128_256
    assert "sampler of 1024 sequences over 128256 tokens" in found.why


def test_the_layer_decides_for_few_sequences() -> None:
    found = peak(LLAMA_8B, replace(H100, max_num_seqs=1))
    assert found.layer_bytes > found.sampler_bytes
    assert "widest layer" in found.why


def test_it_does_not_shrink_with_ranks_nor_grow_with_length() -> None:
    assert peak(LLAMA_8B, replace(H100, tensor_parallel=4)).sampler_bytes == peak(LLAMA_8B).sampler_bytes
    assert peak(LLAMA_8B, replace(H100, max_model_len=2048)).total_bytes == peak(LLAMA_8B).total_bytes


def test_pooling_samples_nothing() -> None:
    assert peak({**LLAMA_8B, "architectures": ["LlamaModel"]}).sampler_bytes == 0


def test_the_experts_workspace_stays_since_0_13() -> None:
    lasting = peak(MIXTRAL).lasting_bytes - peak(LLAMA_8B).lasting_bytes
    assert lasting == 8192 * 2 * (14336 + 2 * 14336) * 2
    assert (
        peak(MIXTRAL, replace(H100, version=(0, 11, 0))).lasting_bytes
        == peak(LLAMA_8B, replace(H100, version=(0, 11, 0))).lasting_bytes
    )


def test_sparse_attention_gathers_keys_as_long_as_the_model() -> None:
    """40 rows of 132 bytes for each token of the length, and a mebibyte; in 0.32 two fifths of it beyond 256 Ki."""
    short = peak(GLM_DSA, replace(B200_LONG, max_model_len=8192))
    long = peak(GLM_DSA, B200_LONG)
    assert long.lasting_bytes - short.lasting_bytes == (819_200 - 8192) * 40 * 132
    assert "keys that the indexer gathers of 819200 tokens" in long.why
    newest = peak(GLM_DSA, replace(B200_LONG, version=(0, 32, 0)))
    assert newest.lasting_bytes == 819_200 * 16 * 132 + MiB + CHOSEN


def test_packed_rows_are_unpacked_into_half_precision() -> None:
    """Hopper reads packed rows where a B200 reads plain fp8: five times the length, 1,152 bytes each, and the queries
    of 16 heads."""
    on_h100 = replace(B200_LONG, device_name="NVIDIA H100 80GB HBM3")
    queries = 8192 * 16 * 1152
    found = peak(GLM_DSA, on_h100).lasting_bytes - matrix_bytes(on_h100)
    assert found == 819_200 * 5 * 1152 + queries + CHOSEN
    plain = peak(GLM_DSA, replace(on_h100, kv_cache_dtype="auto")).lasting_bytes - matrix_bytes(on_h100)
    assert plain == 819_200 * 40 * 132 + MiB + queries + CHOSEN, "the queries' workspace stays beside the larger one"
    newest = replace(on_h100, version=(0, 32, 0), max_model_len=131_072)
    assert (
        peak(GLM_DSA, newest).lasting_bytes
        == 131_072 * 5 * 1152 + 8192 * (16 * 1152 + 64 * (1152 + 1024) + 16 * 1024) + CHOSEN
    )


def test_the_older_generation_profiled_as_many_prompts_as_images_fit() -> None:
    """4,096 tokens of 256 an image: 16 prompts of one image, 4 of four."""
    launch = Launch(version=(0, 8, 2), v0=True, max_model_len=4096, max_num_batched_tokens=4096)
    sampled = [peak(GEMMA_27B, replace(launch, images_per_prompt=each)).sampler_bytes for each in (1, 4)]
    assert sampled[0] > 2 * sampled[1]
    assert peak(GEMMA_27B, replace(launch, language_only=True)).sampler_bytes > 10 * sampled[0], (
        "256 sequences of words"
    )


CHOSEN = 8192 * 2048 * 4
"""Which 2,048 tokens each token of a step attends to."""


def matrix_bytes(launch: Launch) -> int:
    return peak(LLAMA_8B, launch).lasting_bytes
