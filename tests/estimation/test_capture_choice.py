"""Batch sizes that are captured as CUDA graphs: by how many requests are expected, and by the bytes that are left."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliosd.core.hardware import DeviceKind
from heliosd.core.units import GiB, MiB
from heliosd.estimation.capture_choice import CAPTURES, SMALL, capture_sizes, for_use, usual_sizes
from heliosd.estimation.chosen_limits import within
from heliosd.estimation.estimate import Estimate, Place, Wishes, estimate
from heliosd.estimation.launch import CURRENT
from tests.estimation.test_estimate import LLAMA_8B, PROFILE, known

USUAL = (1, 2, 4, *range(8, 256, 8), *range(256, 513, 16))
CARD = Place(DeviceKind.CUDA, 80 * GiB, "a card")
SHORT = {**LLAMA_8B, "max_position_embeddings": 8192}


def predicted(wishes: Wishes, config: dict[str, Any] = LLAMA_8B, at: Place = CARD) -> Estimate:
    return estimate(known(config), PROFILE, wishes, at)


def test_up_to_twice_the_requests_that_are_expected_and_all_where_that_is_more_than_the_engine_would() -> None:
    assert capture_sizes(USUAL, 1, MiB) == (1, 2)
    assert capture_sizes(USUAL, 8, MiB) == (1, 2, 4, 8, 16)
    assert capture_sizes(USUAL, 9, MiB) == (1, 2, 4, 8, 16, 24), "the next size holds them"
    assert capture_sizes(USUAL, 256, MiB) == capture_sizes(USUAL, 9999, MiB) == USUAL
    assert capture_sizes((), 8, MiB) == ()


@given(st.integers(1, 600), st.integers(1, 64), st.integers(-10, 60 * 64))
def test_never_more_than_fits_and_the_small_ones_first(at_once: int, each: int, left: int) -> None:
    chosen = capture_sizes(USUAL, at_once, each, left)
    every = capture_sizes(USUAL, at_once, each)
    assert len(chosen) * each <= max(0, left)
    assert set(chosen) <= set(every)
    assert list(chosen) == sorted(set(chosen))
    small = [size for size in every if size in SMALL]
    assert list(chosen[: len(small)]) == small[: len(chosen)]
    assert len(chosen) == min(len(every), max(0, left) // each), "and as many as fit"
    if len(chosen) > len(small):
        assert chosen[-1] == every[-1], "the largest, so that steps of any size have a graph"


def test_a_model_that_works_on_few_requests_gets_few_graphs_and_the_estimate_counts_just_those() -> None:
    wishes, why = for_use(known(LLAMA_8B), Wishes(), CARD, CURRENT, 16)
    assert wishes.engine_args == {CAPTURES: [1, 2, 4, 8, 16, 24, 32]}
    assert why.startswith("CUDA graphs of 7 batch sizes up to 32 instead of 51 up to 512: at most 16 requests at once")
    less, usual = predicted(wishes), predicted(Wishes())
    assert less.launch is not None and less.launch.capture_sizes == (1, 2, 4, 8, 16, 24, 32)
    assert less.accounts[0].graphs.likely_bytes == pytest.approx(usual.accounts[0].graphs.likely_bytes * 7 / 51, abs=1)
    assert "at 7 batch sizes up to 32" in less.accounts[0].graphs.why


@pytest.mark.parametrize(
    "engine_args",
    [
        {"cudagraph-capture-sizes": [1, 2]},
        {"max_cudagraph_capture_size": 64},
        {"compilation_config": {"cudagraph_capture_sizes": [1, 2]}},
        {"enforce_eager": True},
    ],
)
def test_what_the_operator_set_is_left_alone_and_counted(engine_args: dict[str, Any]) -> None:
    wishes = Wishes(engine_args=engine_args)
    assert for_use(known(LLAMA_8B), wishes, CARD, CURRENT, 16) == (wishes, "")
    assert predicted(wishes).accounts[0].graphs.likely_bytes < predicted(Wishes()).accounts[0].graphs.likely_bytes


def test_nothing_is_chosen_where_nobody_knows_where_nothing_is_captured_and_where_all_would_be() -> None:
    host = Place(DeviceKind.HOST, 80 * GiB)
    assert for_use(known(LLAMA_8B), Wishes(), CARD, CURRENT, None) == (Wishes(), "")
    assert for_use(known(LLAMA_8B), Wishes(), CARD, CURRENT, 256) == (Wishes(), "")
    assert for_use(known(LLAMA_8B), Wishes(), host, CURRENT, 16) == (Wishes(), "")
    assert usual_sizes(known(LLAMA_8B), Wishes(), host, CURRENT) == ()
    assert for_use(known({"architectures": ["Nobody"]}), Wishes(), host, CURRENT, 16) == (Wishes(), "")


def test_where_memory_is_short_graphs_go_before_requests_do() -> None:
    """With one longest request's KV cache just too little is left: by less than most graphs take."""
    usual = predicted(Wishes(), SHORT, Place(DeviceKind.CUDA, 18 * GiB, "a card"))
    least = usual.per_device.total_bytes - usual.per_device.kv_cache_bytes + usual.kv_least_bytes
    capacity = int((least - usual.accounts[0].graphs.likely_bytes // 2) / 0.98)
    room = int(capacity * 0.98)

    def predict(tried: Wishes, room_bytes: int | None) -> Estimate:
        return predicted(tried, SHORT, Place(DeviceKind.CUDA, capacity, "a card", room_bytes))

    found = within(room, Wishes(), known(SHORT), predict)
    assert found.per_device.total_bytes <= room
    assert (found.max_num_seqs, found.max_model_len) == (256, 8192)
    assert found.launch is not None and found.launch.capture_sizes[:4] == SMALL
    count, largest = len(found.launch.capture_sizes), found.launch.capture_sizes[-1]
    assert f"CUDA graphs of 51 batch sizes -> {count} up to {largest}" in found.notes[-1]
