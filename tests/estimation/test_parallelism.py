"""How models divide over devices, as the engine's own checks have it; and that the parts add up."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliosd.errors import BadRequest
from heliosd.estimation.account import account
from heliosd.estimation.launch import Launch
from heliosd.estimation.model import Model, read_model
from heliosd.estimation.parallelism import Parallel, divisions, layouts, ranks, refused, replication, why_not
from tests.estimation.planned_models import LLAMA_8B, MODELS

H100 = Launch(device_name="NVIDIA H100 80GB HBM3")
NAMES = st.sampled_from(sorted(MODELS))


def llama(**changed: object) -> Model:
    return read_model({**LLAMA_8B, **changed})


def test_most_tensor_ranks_first_then_stages_then_replicas() -> None:
    assert [str(each) for each in layouts(MODELS["Llama-3.1-70B"], 4)] == [
        "TP4", "TP2 PP2", "PP4", "TP2 DP2", "PP2 DP2", "DP4",
    ]  # fmt: skip
    assert [str(each) for each in layouts(MODELS["Llama-3.1-70B"], 1)] == ["one device"]


def test_experts_can_be_dealt_out() -> None:
    assert [str(each) for each in layouts(MODELS["Qwen3-30B-A3B"], 2)] == ["TP2", "TP2 EP", "PP2", "DP2", "DP2 EP"]


@pytest.mark.parametrize(
    ("model", "parallel", "words"),
    [
        (llama(num_attention_heads=36, num_key_value_heads=9, head_dim=128), Parallel(8), "36 attention heads over 8"),
        (llama(num_attention_heads=36, num_key_value_heads=9, head_dim=128), Parallel(6), "9 KV heads over 6"),
        (llama(intermediate_size=14334), Parallel(4), "feed-forward of 14334 over 4"),
        (llama(num_attention_heads=42, num_key_value_heads=7, head_dim=128), Parallel(7), "padded to 128256"),
        (llama(num_hidden_layers=6), Parallel(pipeline=8), "8 stages one of 6 layers"),
        (llama(), Parallel(2, expert=True), "the model has none"),
        (MODELS["Qwen3-30B-A3B"], Parallel(data=256, expert=True), "128 experts out to 256"),
        (MODELS["Qwen3-30B-A3B-FP8"], Parallel(4), "tiles of 128: 4 ranks leave 192"),
    ],
)
def test_refusals_say_their_numbers(model: Model, parallel: Parallel, words: str) -> None:
    reason = why_not(model, parallel)
    assert reason is not None
    assert reason.startswith("cannot")
    assert words in reason


@pytest.mark.parametrize("devices", [0, -1, 10**12])
def test_absurd_numbers_of_devices_are_refused_at_once(devices: int) -> None:
    with pytest.raises(BadRequest, match="cannot divide a model over"):
        layouts(llama(), devices)


def test_what_the_engine_starts_is_not_refused() -> None:
    assert why_not(llama(), Parallel(16)) is None, "KV heads are repeated"
    assert why_not(llama(vocab_size=128003), Parallel(4)) is None, "the vocabulary is padded"
    assert why_not(MODELS["Qwen3-30B-A3B-FP8"], Parallel(4, expert=True)) is None
    assert why_not(MODELS["DeepSeek-V3"], Parallel(8, 2)) is None
    assert why_not(MODELS["gpt-oss-120b"], Parallel(8)) is None


def test_tensor_ranks_stay_within_a_fast_link() -> None:
    allowed = layouts(MODELS["Llama-3.1-70B"], 8, link_group=2)
    assert max(each.tensor for each in allowed) == 2
    assert "fast link" in refused(MODELS["Llama-3.1-70B"], 8, link_group=2)[0].reason
    assert max(each.tensor for each in layouts(MODELS["Llama-3.1-70B"], 8)) == 8


@given(NAMES, st.sampled_from([1, 2, 3, 4, 6, 8, 12, 16]))
def test_each_division_is_possible_or_refused(name: str, devices: int) -> None:
    model = MODELS[name]
    found = [*layouts(model, devices), *(each.parallel for each in refused(model, devices))]
    assert all(each.devices == devices for each in found)
    assert sorted(map(str, found)) == sorted(map(str, divisions(model, devices)))


@given(NAMES, st.sampled_from([1, 2, 4, 8, 16]), st.data())
def test_ranks_add_up_to_the_whole_and_what_is_repeated(name: str, devices: int, data: st.DataObject) -> None:
    model = MODELS[name]
    parallel = replace(data.draw(st.sampled_from(layouts(model, devices))), data=1)
    stated = replication(model, H100, parallel)
    assert stated is not None
    placed = sum(each.account.weights.likely_bytes for each in ranks(model, H100, parallel))
    assert stated.total_bytes == placed
    assert min(stated.whole_bytes, stated.kv_heads_bytes, stated.divided_bytes, stated.tables_bytes) >= 0
    assert placed >= account(model, H100)[0].weights.likely_bytes * 0.999


def test_kv_heads_are_repeated_beyond_their_number_only() -> None:
    repeated = [replication(MODELS["Qwen3-30B-A3B"], H100, Parallel(tensor)) for tensor in (2, 4, 8)]
    assert [each.kv_heads_bytes for each in repeated if each] == [0, 0, 48 * 2 * 4 * 128 * 2048 * 2]


@given(NAMES, st.sampled_from([2, 4, 8]), st.data())
def test_a_rank_never_holds_more_than_a_single_device(name: str, devices: int, data: st.DataObject) -> None:
    model = MODELS[name]
    whole = account(model, H100)[0].weights.likely_bytes
    for each in ranks(model, H100, data.draw(st.sampled_from(layouts(model, devices)))):
        assert each.account.weights.likely_bytes <= whole


def test_every_device_is_listed_with_its_stage() -> None:
    listed = ranks(MODELS["Llama-3.1-70B"], H100, Parallel(2, 2, 2), kv_bytes=1 << 30)
    assert [(each.data, each.stage, each.tensor) for each in listed] == [
        (0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 1), (1, 0, 0), (1, 0, 1), (1, 1, 0), (1, 1, 1),
    ]  # fmt: skip
    assert all(each.account.kv_cache.likely_bytes == 1 << 30 for each in listed)
    assert listed[0].account == listed[5].account != listed[2].account


@given(NAMES, st.integers(1, 8))
def test_stages_hold_all_layers(name: str, stages: int) -> None:
    model = MODELS[name]
    held = account(model, Parallel(pipeline=stages).launched(H100))
    assert len(held) == stages
    assert sum(each.weights.likely_bytes for each in held) >= account(model, H100)[0].weights.likely_bytes * 0.999
