"""What a launch leaves open is the engine's choice for this release, card and model."""

from typing import Any

from heliosd.core.units import GiB
from heliosd.estimation.engine_sampler import SamplerPath
from heliosd.estimation.launch import Launch
from heliosd.estimation.model import read_model
from heliosd.estimation.resolve import UNKNOWN_LENGTH, Resolved, resolve
from tests.estimation.logged_models import GEMMA_27B, LLAMA_8B

H100 = Launch(version=(0, 19, 0), device_name="NVIDIA H100 80GB HBM3")


def of(config: dict[str, Any], launch: Launch = H100) -> Resolved:
    return resolve(read_model(config), launch)


def test_a_large_card_takes_large_batches() -> None:
    found = of(LLAMA_8B)
    assert (found.defaults.max_num_seqs, found.defaults.max_num_batched_tokens) == (1024, 8192)
    small = of(LLAMA_8B, Launch(version=(0, 19, 0), device_name="NVIDIA A10"))
    assert (small.defaults.max_num_seqs, small.defaults.max_num_batched_tokens) == (256, 2048)


def test_what_was_said_is_kept() -> None:
    said = Launch(max_num_seqs=7, max_num_batched_tokens=333, max_model_len=444, dtype="float32")
    found = of(LLAMA_8B, said)
    assert (found.defaults.max_num_seqs, found.defaults.max_num_batched_tokens) == (7, 333)
    assert (found.launch.max_num_seqs, found.launch.max_num_batched_tokens) == (7, 333)
    assert (found.model_len, found.dtype, found.element_bytes) == (444, "float32", 4)


def test_the_length_is_the_models_then_a_guess() -> None:
    assert of(LLAMA_8B).model_len == 131_072
    assert of({**LLAMA_8B, "model_type": "no-such-model", "max_position_embeddings": None}).model_len == UNKNOWN_LENGTH


def test_the_sampler_of_the_release() -> None:
    assert of(LLAMA_8B).sampler is SamplerPath.TRITON
    assert of(LLAMA_8B, Launch(version=(0, 11, 0), device_bytes=80 * GiB)).sampler is SamplerPath.SORT
    assert of({**LLAMA_8B, "architectures": ["LlamaModel"]}).sampler is SamplerPath.NONE


def test_the_card_is_known_by_name_or_by_memory() -> None:
    assert of(GEMMA_27B).card.capability == (9, 0)
    assert of(GEMMA_27B, Launch(device_bytes=24 * GiB)).card.total_bytes == 24 * GiB
