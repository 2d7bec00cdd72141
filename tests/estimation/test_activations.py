"""The activation peak: the sampler's logits or the widest layer, and what outlives both."""

from dataclasses import replace
from typing import Any

import pytest

from heliosd.core.units import GiB
from heliosd.estimation.activations import ActivationPeak, activation_peak
from heliosd.estimation.constants import era
from heliosd.estimation.launch import Launch
from heliosd.estimation.model import read_model
from heliosd.estimation.resolve import resolve
from tests.estimation.logged_models import LLAMA_8B, MIXTRAL, QWEN_06B, QWEN_7B

H100 = Launch(version=(0, 19, 0), device_name="NVIDIA H100 80GB HBM3")


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
