"""Options that really fit, in order of price; changes that really help, and none cheaper that would have."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heliosd.core.units import GiB
from heliosd.errors import BadRequest
from heliosd.estimation.account import account
from heliosd.estimation.cache import cache_of
from heliosd.estimation.catalogue import CARDS, SLICES, Gpu, gpu, priced
from heliosd.estimation.fit import room_of
from heliosd.estimation.launch import Launch
from heliosd.estimation.model import Model
from heliosd.estimation.nearest import LEAST_CONTEXT, Turn, nearest_changes
from heliosd.estimation.offers import Impossible, Offer, Offers, Wish
from heliosd.estimation.precision import Precision, at_precision, possible
from heliosd.estimation.recommend import recommend
from heliosd.estimation.resolve import resolve
from tests.effort import examples
from tests.estimation.planned_models import MODELS

FEW = tuple(gpu(name) for name in ("4090", "l4", "t4", "a100 40gb", "h100", "h100 nvl", "h200", "b200", "mi300x"))
NAMES = st.sampled_from(sorted(MODELS))
WISHES = st.tuples(st.sampled_from([512, 4096, 8192, 32768, 40960]), st.sampled_from([1, 8, 32, 256]))


def needs(model: Model, launch: Launch, context: int, concurrency: int) -> int:
    """By `account` and the cache alone, on the device that needs most."""
    served = replace(launch, max_model_len=context, max_num_seqs=concurrency)
    fixed = max(each.booked_bytes for each in account(model, served))
    return fixed + cache_of(model, served, resolve(model, served)).bytes_for_requests(concurrency, context)


@settings(max_examples=examples(12), deadline=None)
@given(NAMES, WISHES)
def test_an_option_fits_with_everything_it_promises(name: str, wish: tuple[int, int]) -> None:
    model, (context, concurrency) = MODELS[name], wish
    found = recommend(model, context=context, concurrency=concurrency, cards=FEW)
    for option in found.options:
        launch, room = option.offer.launch, room_of(option.offer.gpu.usable_bytes)
        assert launch.world_size == option.offer.devices
        assert needs(model, launch, context, concurrency) <= room
        assert needs(model, launch, option.longest_context, concurrency) <= room
        assert needs(model, launch, context, option.most_concurrency) <= room
    prices = [each.usd_per_hour for each in found.options]
    assert prices == sorted(prices)


@settings(max_examples=examples(12), deadline=None)
@given(NAMES, WISHES)
def test_a_missed_card_has_no_option_and_no_room(name: str, wish: tuple[int, int]) -> None:
    model, (context, concurrency) = MODELS[name], wish
    found = recommend(model, context=context, concurrency=concurrency, cards=FEW)
    served = {each.offer.gpu.name for each in found.options}
    missed = {each.offer.gpu.name for each in found.misses}
    assert served | missed == {each.name for each in FEW}
    assert not served & missed
    for miss in found.misses:
        if isinstance(miss.offer, Offer):
            assert needs(model, miss.offer.launch, context, concurrency) > room_of(miss.offer.gpu.usable_bytes)
        assert miss.sentence


@settings(max_examples=examples(40), deadline=None)
@given(NAMES, WISHES, st.sampled_from([*FEW, *SLICES]), st.sampled_from([1, 2, 4]))
def test_a_change_fits_and_no_cheaper_kind_would_have(
    name: str, wish: tuple[int, int], card: Gpu, devices: int
) -> None:
    model, (context, concurrency) = MODELS[name], wish
    devices = 1 if card.slice_of else devices
    changes = nearest_changes(model, card, devices, context=context, concurrency=concurrency, others=FEW)
    offers, asked = Offers(model), Wish(context, concurrency)
    as_it_is = offers.at(card, devices, asked)
    if isinstance(as_it_is, Offer) and as_it_is.fit.fits:
        assert changes == ()
        return
    turns = [each.turn for each in changes]
    assert turns == [each for each in Turn if each in turns], "cheapest kind first, each once"
    for change in changes:
        launch = change.offer.launch
        made = at_precision(model, change.offer.precision)
        assert launch.max_model_len is not None
        assert launch.max_num_seqs is not None
        needed = needs(made, launch, launch.max_model_len, launch.max_num_seqs)
        assert needed == change.after_bytes <= room_of(change.offer.gpu.usable_bytes)
        assert change.sentence.startswith("fits ")
    smallest = {
        Turn.SHORTER_CONTEXT: Wish(min(context, LEAST_CONTEXT), concurrency),
        Turn.FEWER_SEQUENCES: Wish(context, 1),
        Turn.FP8_CACHE: Wish(context, concurrency, "fp8"),
    }
    for turn, extreme in smallest.items():
        tried = offers.at(card, devices, extreme)
        if turn not in turns and isinstance(tried, Offer) and isinstance(as_it_is, Offer):
            assert not tried.fit.fits or tried.parallel != as_it_is.parallel, turn
    if Turn.LOWER_PRECISION not in turns:
        for precision in possible(model)[1:]:
            tried = offers.at(card, devices, replace(asked, precision=precision))
            assert isinstance(tried, Impossible) or not tried.fit.fits or precision.bits >= 16, precision
    if Turn.MORE_DEVICES not in turns and not card.slice_of:
        for count in (2, 4, 8):
            tried = offers.at(card, count, asked)
            assert count <= devices or isinstance(tried, Impossible) or not tried.fit.fits


def test_one_card_too_small_for_the_weights_needs_narrower_ones() -> None:
    changes = nearest_changes(MODELS["Llama-3.1-70B"], gpu("h100"), 1, context=8192, concurrency=1)
    assert changes[0].turn is Turn.LOWER_PRECISION
    assert changes[0].offer.precision is Precision.FP8
    assert changes[0].offer.launch.quantization == "fp8"
    assert "fp8 weights instead of bf16 (quantized while loading)" in changes[0].sentence
    assert changes[0].before_bytes is not None
    assert changes[0].before_bytes > 130 * GiB > 75 * GiB > changes[0].after_bytes
    assert [each.turn for each in changes] == [Turn.LOWER_PRECISION, Turn.MORE_DEVICES, Turn.OTHER_CARD]
    assert changes[1].offer.name == "2 x H100"


def test_a_card_short_of_cache_is_helped_by_a_shorter_context_first() -> None:
    changes = nearest_changes(MODELS["Llama-3.1-8B"], gpu("4090"), 1, context=32768, concurrency=2)
    assert [each.turn for each in changes[:4]] == [
        Turn.SHORTER_CONTEXT, Turn.FEWER_SEQUENCES, Turn.FP8_CACHE, Turn.LOWER_PRECISION,
    ]  # fmt: skip
    assert "tokens of context instead of 32,768" in changes[0].sentence
    assert "with 1 at once instead of 2" in changes[1].sentence


def test_the_weights_of_a_quantized_checkpoint_only_get_narrower() -> None:
    changes = nearest_changes(MODELS["DeepSeek-V3"], gpu("h200"), 4, context=8192, concurrency=8)
    lower = next(each for each in changes if each.turn is Turn.LOWER_PRECISION)
    assert lower.offer.precision.bits == 4
    assert "quantized ahead" in lower.sentence


def test_a_card_that_cannot_run_the_weights_says_so() -> None:
    found = recommend(MODELS["gpt-oss-120b"], context=8192, concurrency=8, cards=("v100", "h100"))
    assert found.options[0].offer.name == "H100"
    assert found.misses[0].offer == Impossible(gpu("v100"), 8, "V100-16 cannot run fp4 weights")
    assert found.misses[0].nearest is not None
    assert found.misses[0].nearest.turn is Turn.OTHER_CARD
    assert found.misses[0].sentence.startswith("8 x V100-16: V100-16 cannot run fp4 weights; fits on H100")


def test_older_cards_serve_bfloat16_as_float16() -> None:
    found = recommend(MODELS["Llama-3.1-8B"], context=4096, concurrency=4, cards=("v100 32gb", "a100"), counts=(1,))
    assert {each.offer.gpu.name: each.offer.launch.dtype for each in found.options} == {
        "V100-32": "float16", "A100-80": None,
    }  # fmt: skip


def test_slices_serve_alone() -> None:
    found = recommend(MODELS["Llama-3.1-8B"], context=4096, concurrency=4, cards=SLICES)
    assert {each.offer.devices for each in found.options} == {1}
    assert all(each.offer.launch.device_bytes == each.offer.gpu.usable_bytes for each in found.options)
    refusal = Offers(MODELS["Llama-3.1-8B"]).at(SLICES[0], 2, Wish(4096, 4))
    assert isinstance(refusal, Impossible)


def test_tensor_ranks_keep_to_links_and_tiles() -> None:
    nvl = recommend(MODELS["Llama-3.1-70B"], context=8192, concurrency=8, cards=("h100 nvl",), counts=(4,))
    assert [str(each.offer.parallel) for each in nvl.options] == ["TP2 PP2"]
    tiles = recommend(MODELS["Qwen3-30B-A3B-FP8"], context=8192, concurrency=8, cards=("h100",), counts=(8,))
    assert [str(each.offer.parallel) for each in tiles.options] == ["TP8 EP"]


def test_operators_prices_decide_the_order() -> None:
    model = MODELS["Llama-3.1-8B"]
    cards = ("h100", "l40s")
    assert recommend(model, context=8192, concurrency=4, cards=cards, counts=(1,)).options[0].offer.name == "L40S"
    own = [gpu(each, priced({"h100": 0.5})) for each in cards]
    assert recommend(model, context=8192, concurrency=4, cards=own, counts=(1,)).options[0].offer.name == "H100"


@pytest.mark.parametrize(
    ("context", "concurrency", "counts", "words"),
    [
        (0, 1, (1,), "no context"),
        (4096, 0, (1,), "no concurrency"),
        (4096, 1, (), "without a number of devices"),
        (4096, 1, (0,), "without a number of devices"),
        (131073, 1, (1,), "positions for 131,072"),
    ],
)
def test_wishes_that_no_card_serves(context: int, concurrency: int, counts: tuple[int, ...], words: str) -> None:
    with pytest.raises(BadRequest, match="cannot") as raised:
        recommend(MODELS["Llama-3.1-8B"], context=context, concurrency=concurrency, counts=counts)
    assert words in raised.value.message


def test_the_whole_catalogue_has_an_answer_for_every_model() -> None:
    for model in MODELS.values():
        found = recommend(model, context=8192, concurrency=8)
        assert found.options
        assert all(each.nearest is not None for each in found.misses)
        assert len(found.misses) + len({each.offer.gpu.name for each in found.options}) == len(CARDS) + len(SLICES)
