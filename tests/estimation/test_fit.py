"""Whether it fits, what is left, the largest batch for a room: checked against `account` and the cache themselves."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heliosd.core.units import GiB
from heliosd.estimation.account import account
from heliosd.estimation.cache import cache_of
from heliosd.estimation.catalogue import CARDS, SLICES
from heliosd.estimation.fit import Fit, fit, room_of
from heliosd.estimation.launch import Launch
from heliosd.estimation.model import Model, read_model
from heliosd.estimation.resolve import resolve
from heliosd.estimation.sizing import (
    MOST_SEQUENCES,
    largest_batched_tokens,
    largest_model_len,
    largest_sequences,
)
from heliosd.estimation.trials import Trials
from tests.effort import examples
from tests.estimation.planned_models import LLAMA_8B, MODELS

H100_BYTES = int(79.18 * GiB)
H100 = Launch(device_name="NVIDIA H100 80GB HBM3", device_bytes=H100_BYTES)
LLAMA, LARGE = MODELS["Llama-3.1-8B"], MODELS["Llama-3.1-70B"]
NAMES = st.sampled_from(sorted(MODELS))
LENGTHS = st.sampled_from([1, 100, 1024, 8192, 32768, 40960])
RANKS = st.sampled_from([1, 2, 4, 8])
SEQUENCES = st.sampled_from([1, 8, 64, 256])


def booked(model: Model, launch: Launch) -> int:
    return max(each.booked_bytes for each in account(model, launch))


def test_the_arithmetic_is_in_the_verdict() -> None:
    found = fit(LLAMA, replace(H100, max_model_len=32768, max_num_seqs=8), H100_BYTES, concurrency=8)
    assert found.fits
    assert found.needed_kv_bytes == (8 * 32768 // 16 + 1) * 16 * 131072
    assert found.kv_bytes == found.room_bytes - found.fixed_bytes
    assert found.fixed_bytes == booked(LLAMA, replace(H100, max_model_len=32768, max_num_seqs=8))
    assert found.verdict == (
        f"needs {found.fixed_bytes / GiB:.1f} GiB ({found.stages[0].margin_bytes / GiB * 1024:.1f} MiB of it margin) + "
        f"32.0 GiB KV, 77.6 GiB there (79.2 GiB less the reserve): "
        f"{(found.room_bytes - found.needed_bytes) / GiB:.1f} GiB left"
    )


def test_too_much_says_by_how_much() -> None:
    found = fit(LARGE, replace(H100, max_model_len=8192), H100_BYTES)
    assert not found.fits
    assert found.kv_bytes == found.tokens == found.longest_context == found.concurrency == 0
    assert found.missing_bytes == found.needed_bytes - found.room_bytes
    assert f"{found.missing_bytes / GiB:.1f} GiB too much" in found.verdict


def test_given_kv_bytes_must_leave_room_and_hold_the_requests() -> None:
    launch = replace(H100, max_model_len=8192, max_num_seqs=4)
    assert fit(LLAMA, launch, H100_BYTES, kv_bytes=4 * GiB, concurrency=3).fits
    short = fit(LLAMA, launch, H100_BYTES, kv_bytes=4 * GiB, concurrency=4)
    assert not short.fits, "the engine keeps a block for itself"
    assert "fewer than the 4.0 GiB" in short.verdict
    assert not fit(LLAMA, launch, H100_BYTES, kv_bytes=70 * GiB).fits


def test_the_stage_that_needs_most_decides() -> None:
    launch = replace(H100, pipeline_parallel=2, max_model_len=8192)
    stages = account(LARGE, launch)
    found = fit(LARGE, launch, H100_BYTES)
    assert found.fixed_bytes == max(each.booked_bytes for each in stages)
    assert {each.kv_cache.likely_bytes for each in found.stages} == {found.kv_bytes}


def test_a_model_that_keeps_nothing_serves_its_sequences() -> None:
    bert = read_model(
        {
            "architectures": ["BertModel"], "model_type": "bert", "hidden_size": 768, "num_hidden_layers": 12,
            "num_attention_heads": 12, "intermediate_size": 3072, "vocab_size": 30522, "max_position_embeddings": 512,
        }
    )  # fmt: skip
    found = fit(bert, replace(H100, max_num_seqs=32), H100_BYTES, concurrency=32)
    assert (found.fits, found.needed_kv_bytes, found.concurrency) == (True, 0, 32)
    assert found.longest_context == 512


@given(NAMES, LENGTHS, st.integers(1, 64), RANKS)
def test_what_the_fit_promises_the_cache_holds(name: str, length: int, sequences: int, ranks: int) -> None:
    model = MODELS[name]
    launch = replace(H100, tensor_parallel=ranks, max_model_len=length, max_num_seqs=sequences)
    found = fit(model, launch, H100_BYTES, concurrency=sequences)
    cache = cache_of(model, launch, resolve(model, launch))
    assert found.fits == (booked(model, launch) + cache.bytes_for_requests(sequences, length) <= room_of(H100_BYTES))
    if found.fits:
        assert found.concurrency == sequences
        assert found.longest_context >= length
        assert cache.bytes_for_requests(1, found.longest_context) <= found.kv_bytes
        assert found.tokens == cache.tokens_in(found.kv_bytes)


@given(NAMES, st.tuples(LENGTHS, LENGTHS), st.tuples(SEQUENCES, SEQUENCES))
def test_longer_or_more_never_takes_less(name: str, lengths: tuple[int, int], sequences: tuple[int, int]) -> None:
    def at(length: int, count: int) -> Fit:
        launch = replace(H100, tensor_parallel=8, max_model_len=length, max_num_seqs=count)
        return fit(MODELS[name], launch, H100_BYTES, concurrency=count)

    less, more = at(min(lengths), min(sequences)), at(max(lengths), max(sequences))
    assert less.fixed_bytes <= more.fixed_bytes
    assert less.needed_kv_bytes <= more.needed_kv_bytes
    assert less.fits or not more.fits


@given(st.integers(1, 100), st.integers(1, 100))
def test_more_layers_never_take_less(one: int, other: int) -> None:
    def at(layers: int) -> Fit:
        return fit(read_model({**LLAMA_8B, "num_hidden_layers": layers}), replace(H100, max_model_len=8192), H100_BYTES)

    fewer, more = at(min(one, other)), at(max(one, other))
    assert fewer.fixed_bytes <= more.fixed_bytes
    assert fewer.needed_kv_bytes <= more.needed_kv_bytes
    assert fewer.tokens >= more.tokens


@settings(max_examples=examples(40))
@given(NAMES, LENGTHS, RANKS)
def test_the_largest_number_of_sequences_fits_and_one_more_does_not(name: str, length: int, ranks: int) -> None:
    model = MODELS[name]
    launch = replace(H100, tensor_parallel=ranks, max_model_len=length)
    found = largest_sequences(model, launch, H100_BYTES)

    def fits(count: int) -> bool:
        return fit(model, replace(launch, max_num_seqs=count), H100_BYTES, concurrency=count).fits

    if found is None:
        assert not fits(1)
        return
    assert found.fit.fits
    assert fits(found.value)
    assert found.launch.max_num_seqs == found.value
    assert found.value == MOST_SEQUENCES or not fits(found.value + 1)


@settings(max_examples=examples(40))
@given(NAMES, st.sampled_from([1, 16, 200]), RANKS)
def test_the_longest_model_fits_and_a_block_more_does_not(name: str, count: int, ranks: int) -> None:
    model = MODELS[name]
    launch = replace(H100, tensor_parallel=ranks, max_num_seqs=count)
    found = largest_model_len(model, launch, H100_BYTES, concurrency=count)

    def fits(length: int) -> bool:
        return fit(model, replace(launch, max_model_len=length), H100_BYTES, concurrency=count).fits

    if found is None:
        assert not fits(1)
        return
    assert fits(found.value)
    assert found.value == model.sizes.positions or not fits(found.value + 1)


def test_a_step_is_kept() -> None:
    launch = replace(H100, tensor_parallel=2)
    exact = largest_model_len(LARGE, launch, H100_BYTES, concurrency=2)
    stepped = largest_model_len(LARGE, launch, H100_BYTES, concurrency=2, step=256)
    assert exact is not None
    assert stepped is not None
    assert stepped.value == exact.value // 256 * 256 > 0


def test_batched_tokens_take_what_the_cache_leaves() -> None:
    launch = replace(H100, max_num_seqs=16, max_model_len=8192)
    roomy = largest_batched_tokens(LLAMA, launch, H100_BYTES, kv_bytes=50 * GiB)
    tight = largest_batched_tokens(LLAMA, launch, H100_BYTES, kv_bytes=60 * GiB)
    assert roomy is not None
    assert tight is not None
    assert 16 <= tight.value < roomy.value
    assert tight.fit.fits
    more = replace(launch, max_num_batched_tokens=tight.value + 16)
    assert not fit(LLAMA, more, H100_BYTES, kv_bytes=60 * GiB).fits
    assert largest_batched_tokens(LLAMA, launch, H100_BYTES, kv_bytes=70 * GiB) is None


def test_fewer_sequences_leave_gigabytes_where_the_sampler_copies_logits() -> None:
    launch = replace(H100, version=(0, 19, 0), max_model_len=4096, max_num_batched_tokens=2048)
    by_default = fit(LLAMA, launch, H100_BYTES)
    chosen = fit(LLAMA, replace(launch, max_num_seqs=16), H100_BYTES)
    assert by_default.max_num_seqs == 1024
    saved = by_default.fixed_bytes - chosen.fixed_bytes
    assert saved > GiB
    assert chosen.kv_bytes == by_default.kv_bytes + saved
    kept = largest_sequences(LLAMA, launch, H100_BYTES, kv_bytes=by_default.kv_bytes + GiB)
    assert kept is not None
    assert 16 <= kept.value < 1024


@pytest.mark.parametrize("name", sorted(MODELS))
def test_what_is_remembered_is_what_would_be_calculated(name: str) -> None:
    model, trials = MODELS[name], Trials(MODELS[name])
    for each in (*CARDS, *SLICES[:3]):
        for ranks, sequences, length, dtype in ((1, 8, 8192, "auto"), (4, 8, 4096, "fp8"), (4, 300, 40960, "auto")):
            launch = Launch(
                tensor_parallel=ranks, device_name=each.device_name, device_bytes=each.usable_bytes,
                platform=each.platform, max_num_seqs=sequences, max_model_len=length, kv_cache_dtype=dtype,
            )  # fmt: skip
            trial = trials.at(launch)
            assert trial.accounts == account(model, launch), each.name
            assert trial.cache == cache_of(model, launch, resolve(model, launch)), each.name
