"""Engine arguments that are not the operator's."""

import pytest

from heliosd.core.booked_arguments import refusal


def test_what_helios_sets_is_refused_with_where_to_set_it() -> None:
    assert "Helios sets it from max_model_len" in (refusal("max_model_len") or "")
    assert "must not set kv-cache-memory-bytes: Helios sets it from kv_cache" in (
        refusal("kv-cache-memory-bytes") or ""
    )
    assert "Helios sets it from pipeline_parallel" in (refusal("pipeline-parallel-size") or "")


@pytest.mark.parametrize(
    "name",
    [
        "num_gpu_blocks_override",
        "kv_cache_dtype",
        "speculative_config",
        "data-parallel-size",
    ],
)
def test_what_is_not_booked_yet_is_refused_and_says_so(name: str) -> None:
    assert "does not book that yet" in (refusal(name) or "")


def test_anything_else_is_the_operators() -> None:
    assert refusal("enforce_eager") is None
