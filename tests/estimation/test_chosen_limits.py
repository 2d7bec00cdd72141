"""Limits are made smaller where that makes a model fit, in a fixed order, and never those of the operator."""

from typing import Any

import pytest

from heliosd.core.hardware import DeviceKind
from heliosd.core.units import GiB
from heliosd.estimation.chosen_limits import LEAST_LENGTH, within
from heliosd.estimation.estimate import Estimate, Place, Wishes, estimate
from tests.estimation.test_estimate import LLAMA_8B, PROFILE, known

SHORT = {**LLAMA_8B, "max_position_embeddings": 8192}
"""One full request takes 1 GiB of KV cache."""
USUAL = Wishes()
WIDE = {**SHORT, "intermediate_size": 2_000_000, "num_hidden_layers": 1}
"""A step of 8192 tokens takes more than its weights."""


def asked(config: dict[str, Any], device_gib: float, wishes: Wishes = USUAL) -> tuple[Estimate, int]:
    """The estimate with limits chosen for a device, and what may be used of that."""
    capacity = int(device_gib * GiB)
    room = int(capacity * 0.98)

    def predict(tried: Wishes, room_bytes: int | None) -> Estimate:
        at = Place(DeviceKind.CUDA, capacity, "a card", room_bytes)
        return estimate(known(config), PROFILE, tried, at)

    return within(room, wishes, known(config), predict), room


def plain(config: dict[str, Any], device_gib: float, wishes: Wishes = USUAL) -> Estimate:
    return estimate(known(config), PROFILE, wishes, Place(DeviceKind.CUDA, int(device_gib * GiB), "a card"))


def test_what_fits_is_left_as_it_is() -> None:
    found, _ = asked(SHORT, 80)
    assert found == plain(SHORT, 80)


def test_first_the_kv_cache_becomes_smaller() -> None:
    found, room = asked(SHORT, 20)
    assert plain(SHORT, 20).per_device.total_bytes > room
    assert found.per_device.total_bytes <= room
    assert (found.max_model_len, found.max_num_seqs) == (8192, 256)
    assert found.notes[-1].startswith("KV cache 4.0 GiB -> 3.1 GiB: with the usual limits it would need ")


def test_then_fewer_batch_sizes_are_captured() -> None:
    found, room = asked(SHORT, 17.7)
    assert found.per_device.total_bytes <= room
    assert (found.max_num_seqs, found.max_model_len) == (256, 8192)
    assert found.notes[-1].startswith("CUDA graphs of 51 batch sizes -> 26 up to 512 and KV cache 4.0 GiB -> 1.1 GiB: ")


def test_then_fewer_sequences_are_worked_on() -> None:
    """Their graphs are the operator's choice here."""
    theirs = {"performance_mode": "balanced"}
    found, room = asked(SHORT, 17.7, Wishes(engine_args=theirs))
    assert found.per_device.total_bytes <= room
    assert found.max_model_len == 8192
    assert found.max_num_seqs < 256
    assert f"max_num_seqs 256 -> {found.max_num_seqs}" in found.notes[-1]
    more = Wishes(engine_args=theirs, max_num_seqs=2 * found.max_num_seqs)
    assert plain(SHORT, 17.7, more).per_device.total_bytes - plain(SHORT, 17.7, more).per_device.kv_cache_bytes > (
        room - found.kv_least_bytes
    ), "twice as many would not have left room for one request"


def test_then_steps_become_shorter() -> None:
    found, room = asked(WIDE, 75)
    assert found.per_device.total_bytes <= room
    assert found.launch is not None
    assert found.launch.max_num_batched_tokens in (2048, 4096)
    assert f"max_num_batched_tokens 8192 -> {found.launch.max_num_batched_tokens}" in found.notes[-1]
    assert found.max_model_len == 8192


def test_requests_become_shorter_at_last_and_the_note_has_the_arithmetic() -> None:
    found, room = asked(LLAMA_8B, 19)
    assert found.per_device.total_bytes <= room
    assert LEAST_LENGTH <= found.max_model_len < 131_072
    assert found.max_num_seqs == 256, "no fewer sequences than needed: they would not have been enough"
    assert f"max_model_len 131072 -> {found.max_model_len}: requests are limited" in found.notes[-1]
    assert "that of one full request would need 13.9 GiB more" in found.notes[-1]


def test_where_hardly_anything_is_left_requests_are_as_long_as_everything_else_allows() -> None:
    found, room = asked(LLAMA_8B, 17)
    assert found.per_device.total_bytes <= room
    assert found.max_num_seqs == 16
    assert found.max_model_len >= LEAST_LENGTH


def test_a_model_that_could_only_hold_a_line_is_refused_as_it_is() -> None:
    found, room = asked(LLAMA_8B, 16.4)
    assert found == plain(LLAMA_8B, 16.4)
    assert found.per_device.total_bytes > room


@pytest.mark.parametrize(
    "wishes",
    [
        Wishes(max_num_seqs=256, max_model_len=8192),
        Wishes(max_num_seqs=256, kv_cache_bytes=GiB),
        Wishes(max_num_seqs=256, max_model_len=8192, engine_args={"max-num-batched-tokens": 8192}),
    ],
)
def test_what_the_operator_set_is_never_changed(wishes: Wishes) -> None:
    found, room = asked(LLAMA_8B, 17, wishes)
    assert found.max_num_seqs == 256
    assert found.max_model_len == (wishes.max_model_len or found.max_model_len)
    assert found.per_device.total_bytes > room
    assert found.launch is not None
    assert found.launch.max_num_batched_tokens == wishes.engine_args.get("max-num-batched-tokens")
