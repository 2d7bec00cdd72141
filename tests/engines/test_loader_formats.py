"""Which load format is chosen."""

import pytest

from heliosd.core.storage_speed import Speed
from heliosd.engines.loader_formats import STREAMERS, load_format

MODEL = ("config.json", "model.safetensors")
ALL = frozenset(STREAMERS.values())
OURS = Speed("helios", 2e9, 8e9)


def fast(method: str, cold: float = 5e9) -> Speed:
    return Speed(method, cold, 1e9)


@pytest.mark.parametrize("on_cuda", [True, False])
def test_models_without_safetensors_are_left_to_vllm(on_cuda: bool) -> None:
    assert load_format(("config.json", "pytorch_model.bin"), on_cuda, ALL, [OURS]) == "auto"


def test_safetensors_are_ours() -> None:
    assert load_format(MODEL, False, frozenset(), []) == "helios"
    assert load_format(("model.safetensors.recipe",), False, frozenset(), []) == "helios"


def test_a_streamer_must_be_installed_and_measured_and_clearly_faster_and_for_a_gpu() -> None:
    measured = [OURS, fast("runai_streamer"), fast("instanttensor", 6e9), Speed("read", 9e9, 9e9)]
    assert load_format(MODEL, True, ALL, measured) == "instanttensor"
    assert load_format(MODEL, True, frozenset({"runai_model_streamer"}), measured) == "runai_streamer"
    assert load_format(MODEL, False, ALL, measured) == "helios"
    assert load_format(MODEL, True, frozenset(), measured) == "helios"
    assert load_format(MODEL, True, ALL, []) == "helios"
    assert load_format(MODEL, True, ALL, [fast("instanttensor")]) == "helios", "ours was not measured"
    assert load_format(MODEL, True, ALL, [OURS, fast("instanttensor", 2.1e9)]) == "helios", "within the noise"


def test_no_streamer_reads_recipes() -> None:
    assert load_format((*MODEL, "b.safetensors.recipe"), True, ALL, [OURS, fast("instanttensor")]) == "helios"
