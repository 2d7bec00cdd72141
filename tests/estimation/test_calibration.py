"""What was measured corrects the law, and what is booked with it is hardly ever too little."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from heliosd.core.units import GiB, MiB
from heliosd.estimation.account import Term
from heliosd.estimation.calibration import Calibration, Residual, apply, explain
from heliosd.estimation.loads import Asked, Level, Load
from heliosd.estimation.ridge import features
from tests.estimation.fleet import Fleet, heavy, normal, play, skewed, term_of

ASKED = Asked("vllm 0.32.0", "LlamaForCausalLM", "cuda", "NVIDIA H100 80GB HBM3", 1, '{"seqs":256}', "rev")
LAW = {"weights": 10 * GiB, "kv_cache": 4 * GiB, "overhead": 2 * GiB}
SAID = {term: term_of(size, 0.05) for term, size in LAW.items()}


def load(asked: Asked, law: Mapping[str, int] = LAW, **share: float) -> Load:
    """One that took `1 + share` of the law's bytes."""
    return Load(asked, law, {term: round(size * (1 + share.get(term, 0.0))) for term, size in law.items()})


def others(count: int, share: float, asked: Asked = ASKED, first: int = 0) -> list[Load]:
    """Loads of as many other revisions whose weights are off by `share`."""
    return [load(replace(asked, revision=f"r{first + index}"), weights=share) for index in range(count)]


def calibrate(loads: Sequence[Load], asked: Asked, law: Mapping[str, Term]) -> dict[str, Residual]:
    return Calibration(loads).residuals(asked, law)


def off(residual: Residual) -> float:
    """As a share of the law's weights."""
    return residual.likely_bytes / LAW["weights"]


def test_without_loads_the_law_has_the_word() -> None:
    residuals = calibrate([], ASKED, SAID)
    for term, said in SAID.items():
        corrected = apply(said, residuals[term])
        assert (corrected.low_bytes, corrected.likely_bytes, corrected.high_bytes) == (
            said.low_bytes,
            said.likely_bytes,
            said.high_bytes,
        )
        assert residuals[term].loads == 0
        assert "no start like it" in corrected.why


# ---- the same thing again ----------------------------------------------------


def test_what_the_same_revision_took_rules_over_all_others() -> None:
    loads = [*others(30, -0.05), load(ASKED, weights=0.02, overhead=0.3)]
    residuals = calibrate(loads, ASKED, SAID)
    assert residuals["weights"].level is Level.REVISION
    assert apply(SAID["weights"], residuals["weights"]).likely_bytes == round(10 * GiB * 1.02)
    assert apply(SAID["overhead"], residuals["overhead"]).likely_bytes == round(2 * GiB * 1.3)


def test_the_largest_of_the_last_five_rules() -> None:
    shares = (0.2, 0.01, 0.05, 0.03, 0.02, 0.01)
    residuals = calibrate([load(ASKED, overhead=share) for share in shares], ASKED, SAID)
    overhead = residuals["overhead"]
    assert overhead.likely_bytes == round(2 * GiB * 1.05) - 2 * GiB
    assert overhead.loads == 5
    assert overhead.high_bytes >= overhead.likely_bytes
    assert overhead.low_bytes == round(2 * GiB * 1.01) - 2 * GiB


def test_what_was_measured_counts_in_bytes_whatever_the_law_said_then() -> None:
    then = replace(load(ASKED), law={}, measured={"weights": 11 * GiB, "kv_cache": 4 * GiB, "overhead": 3 * GiB})
    residuals = calibrate([then], ASKED, SAID)
    assert apply(SAID["weights"], residuals["weights"]).likely_bytes == 11 * GiB
    assert residuals["kv_cache"].loads == 0, "its size is given: bytes without the law of then say nothing"


def test_the_kv_cache_follows_what_is_given() -> None:
    then = load(ASKED, kv_cache=-0.001)
    twice = {**SAID, "kv_cache": term_of(8 * GiB, 0.0)}
    residual = calibrate([then], ASKED, twice)["kv_cache"]
    assert residual.likely_bytes == pytest.approx(-0.001 * 8 * GiB, abs=4)


@pytest.mark.parametrize("position", range(5))
@pytest.mark.parametrize("factor", [0.0, 0.1, 10.0, 1000.0])
def test_one_absurd_measurement_of_the_same_thing_moves_nothing(position: int, factor: float) -> None:
    took = [2.00, 2.01, 2.02, 2.01, 2.00]
    sane = calibrate([load(ASKED, overhead=size / 2 - 1) for size in took if size != took[position]], ASKED, SAID)
    took[position] *= factor
    loads = [load(ASKED, overhead=size / 2 - 1) for size in took]
    moved = calibrate(loads, ASKED, SAID)["overhead"]
    assert abs(moved.likely_bytes - sane["overhead"].likely_bytes) <= 0.021 * GiB
    if factor > 1:
        assert moved.high_bytes < 0.2 * GiB


@pytest.mark.parametrize(
    "other",
    [
        replace(ASKED, revision="other"),
        replace(ASKED, arguments="{}"),
        replace(ASKED, engine="vllm 0.33.0"),
        replace(ASKED, device_kind="host"),
        replace(ASKED, device_name="NVIDIA L4"),
    ],
)
def test_the_same_thing_is_the_same_in_everything(other: Asked) -> None:
    assert calibrate([load(other, weights=0.1)], ASKED, SAID)["weights"].level is not Level.REVISION


# ---- things that are alike ---------------------------------------------------


@pytest.mark.parametrize(
    ("other", "level"),
    [
        (ASKED, Level.SETTINGS),
        (replace(ASKED, arguments="{}"), Level.ARCHITECTURE),
        (replace(ASKED, device_name="NVIDIA L4"), Level.ARCHITECTURE),
        (replace(ASKED, tensor_parallel=2), Level.ARCHITECTURE),
        (replace(ASKED, architecture="GemmaForCausalLM"), Level.VERSION),
        (replace(ASKED, engine="vllm 0.31.0"), Level.ENGINE),
        (replace(ASKED, engine="other 0.32.0"), None),
        (replace(ASKED, device_kind="host"), None),
    ],
)
def test_the_narrowest_group_with_loads_is_asked(other: Asked, level: Level | None) -> None:
    residual = calibrate(others(10, 0.1, other), ASKED, SAID)["weights"]
    assert residual.level is level
    assert off(residual) == pytest.approx(0.0 if level is None else 0.1, abs=0.01)


def test_a_narrow_group_wins_over_a_wide_one() -> None:
    wide = others(50, 0.2, replace(ASKED, architecture="GemmaForCausalLM"), first=100)
    residual = calibrate([*wide, *others(20, 0.02)], ASKED, SAID)["weights"]
    assert off(residual) == pytest.approx(0.02, abs=0.01)
    assert residual.loads == 70


def test_few_loads_move_little_and_many_much() -> None:
    moved = [off(calibrate(others(count, 0.1), ASKED, SAID)["weights"]) for count in (1, 2, 5, 50)]
    assert moved == sorted(moved)
    assert moved[0] == pytest.approx(0.05)
    assert moved[-1] == pytest.approx(0.1, rel=0.03)


def test_the_interval_narrows_as_loads_agree() -> None:
    widths = []
    for count in (1, 5, 20, 100):
        residual = calibrate(others(count, 0.01), ASKED, SAID)["weights"]
        widths.append(residual.high_bytes - residual.likely_bytes)
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < 0.01 * LAW["weights"] < widths[0]


def test_one_load_that_contradicts_the_law_is_within_the_interval() -> None:
    residual = calibrate(others(1, 0.4), ASKED, SAID)["weights"]
    assert residual.high_bytes > 0.4 * LAW["weights"]


def test_weights_are_corrected_by_a_share_and_overhead_hardly_by_size() -> None:
    small = {"weights": GiB, "kv_cache": GiB, "overhead": 512 * MiB}
    took = {"weights": GiB + GiB // 10, "kv_cache": GiB, "overhead": 812 * MiB}
    loads = [Load(replace(ASKED, revision=f"r{index}"), small, took) for index in range(30)]
    residuals = calibrate(loads, ASKED, SAID)
    assert residuals["weights"].likely_bytes == pytest.approx(GiB, rel=0.05)
    assert 300 * MiB * 0.95 < residuals["overhead"].likely_bytes < 2 * 300 * MiB


@example([0.046875, 0.046875, -0.015625, -0.015625], 0, -0.99)
@given(
    st.lists(st.floats(-0.02, 0.05), min_size=4, max_size=4),
    st.integers(0, 4),
    st.sampled_from([-0.99, -0.5, 1.0, 9.0, 999.0]),
)
def test_one_absurd_measurement_of_five_does_not_move_a_group(sane: list[float], place: int, absurd: float) -> None:
    def residual(shares: Sequence[float]) -> Residual:
        loads = [load(replace(ASKED, revision=f"r{index}"), weights=share) for index, share in enumerate(shares)]
        return calibrate(loads, ASKED, SAID)["weights"]

    with_it = [*sane[:place], absurd, *sane[place:]]
    # By no more than two sane ones may be apart.
    assert abs(off(residual(with_it)) - off(residual(sane))) < 0.07
    assert residual(with_it).high_bytes < 0.7 * LAW["weights"]


def test_one_start_that_took_less_is_no_reason_to_book_more() -> None:
    corrected = apply(SAID["weights"], calibrate(others(1, -0.8), ASKED, SAID)["weights"])
    assert corrected.likely_bytes < SAID["weights"].likely_bytes
    assert corrected.high_bytes <= SAID["weights"].high_bytes


def test_a_report_that_failed_is_no_measurement() -> None:
    failed = [replace(load(replace(ASKED, revision=f"r{index}")), measured=dict.fromkeys(LAW, 0)) for index in range(9)]
    assert calibrate(failed, ASKED, SAID)["weights"].loads == 0
    assert calibrate([replace(failed[0], asked=ASKED)], ASKED, SAID)["weights"].loads == 0


def test_nothing_is_ever_corrected_below_zero() -> None:
    loads = others(10, -0.999)
    corrected = apply(SAID["weights"], calibrate(loads, ASKED, SAID)["weights"])
    assert 0 <= corrected.low_bytes <= corrected.likely_bytes <= corrected.high_bytes


# ---- the rule of the upper end -----------------------------------------------

FLEETS = {
    "the law is honest": Fleet(),
    "with heavy tails": Fleet(draw=heavy),
    "with long upper tails": Fleet(draw=skewed),
    "some measurements are absurd": Fleet(absurd=0.02),
    "the law says a fifth too little": Fleet(bias=0.2, warm_up=10),
    "the law says a fifth too much": Fleet(bias=-0.2),
    "the law is too sure of itself": Fleet(spread=0.04, margin=0.05, warm_up=20),
    "no model comes twice": Fleet(fresh=True),
    "no model comes twice, with heavy tails": Fleet(draw=heavy, fresh=True),
    "no model comes twice and the law says a fifth too little": Fleet(bias=0.2, fresh=True, warm_up=10),
    "no model comes twice and some measurements are absurd": Fleet(absurd=0.02, fresh=True),
}


@pytest.mark.parametrize("fleet", FLEETS.values(), ids=FLEETS.keys())
def test_at_most_one_load_of_a_hundred_takes_more_than_was_booked(fleet: Fleet) -> None:
    outcome = play(fleet, seeds=4)
    assert outcome.under_share <= 0.01, outcome
    assert outcome.excess < 0.13, outcome


def test_learning_is_what_keeps_the_promise() -> None:
    outcome = play(Fleet(bias=0.2, draw=normal, warm_up=10), seeds=2)
    assert outcome.under_by_law > 0.95 * outcome.loads


# ---- a learned model ---------------------------------------------------------


def shaped(index: int, wrong: float | None = None) -> tuple[Asked, Load]:
    """A model whose weights are off by as much as its layers and hidden size say, or by `wrong`."""
    layers, hidden = 16 + 8 * (index % 9), 1024 * (1 + index * 7 % 8)
    found = features(
        weights_bytes=GiB * (1 + index % 13),
        layers=layers,
        hidden=hidden,
        vocabulary=32_000 * (1 + index % 5),
        sequences=256,
        batched_tokens=8192,
        tensor_parallel=1,
        version=(0, 32, 0),
    )
    share = 0.001 * layers + 0.02 * hidden / 8192 if wrong is None else wrong
    asked = replace(ASKED, revision=f"s{index}", features=found, arguments=str(index))
    return asked, load(asked, weights=share)


def test_the_learned_model_is_used_where_it_wins_on_revisions_it_has_not_seen() -> None:
    calibration = Calibration([shaped(index)[1] for index in range(60)])
    asked, truth = shaped(70)
    residual = calibration.residuals(asked, SAID)["weights"]
    true = truth.measured["weights"] - truth.law["weights"]
    assert residual.learned
    assert residual.likely_bytes == pytest.approx(true, abs=0.003 * LAW["weights"])
    assert residual.likely_bytes < residual.high_bytes < true + 0.02 * LAW["weights"]
    assert "so it is used" in explain(SAID["weights"], residual)


def test_noise_is_left_to_the_groups() -> None:
    shares = [0.01 * ((index * 37) % 11) for index in range(60)]
    calibration = Calibration([shaped(index, wrong=share)[1] for index, share in enumerate(shares)])
    residual = calibration.residuals(shaped(70)[0], SAID)["weights"]
    assert not residual.learned
    assert residual.contest is not None
    assert "so it is not used" in explain(SAID["weights"], residual)


def test_a_few_loads_are_no_contest() -> None:
    residual = Calibration([shaped(index)[1] for index in range(39)]).residuals(shaped(70)[0], SAID)["weights"]
    assert residual.contest is None
    assert not residual.learned
    again = [shaped(index % 11)[1] for index in range(60)]
    assert Calibration(again).residuals(shaped(70)[0], SAID)["weights"].contest is None, "too few revisions"


def test_it_does_not_guess_beyond_what_it_has_seen() -> None:
    calibration = Calibration([shaped(index)[1] for index in range(60)])
    asked, _ = shaped(70)
    for changed in ({"layers": 500.0}, {"era": 33.0}):
        beyond = replace(asked, features={**asked.features, **changed})
        assert not calibration.residuals(beyond, SAID)["weights"].learned
    assert not calibration.residuals(replace(asked, features={}), SAID)["weights"].learned


def test_what_was_measured_rules_over_the_learned_model_too() -> None:
    loads = [shaped(index)[1] for index in range(60)]
    asked, _ = shaped(70)
    residual = Calibration([*loads, load(asked, weights=0.5)]).residuals(asked, SAID)["weights"]
    assert residual.level is Level.REVISION
    assert off(residual) == pytest.approx(0.5)


def test_the_same_loads_give_the_same_answer() -> None:
    loads = [shaped(index)[1] for index in range(60)]
    asked, _ = shaped(70)
    once = Calibration(loads)
    assert once.residuals(asked, SAID) == once.residuals(asked, SAID) == Calibration(loads).residuals(asked, SAID)


def test_words_say_how_many_starts_of_what() -> None:
    residual = calibrate(others(3, 0.1), ASKED, SAID)["weights"]
    assert "3 starts" in explain(SAID["weights"], residual)
    own = calibrate([load(ASKED, weights=0.1)], ASKED, SAID)["weights"]
    assert "measured here" in explain(SAID["weights"], own)
    assert "11.0 GiB" in explain(SAID["weights"], own)
