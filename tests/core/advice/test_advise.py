"""Each rule says what it should and no more, and what is carried out is said no more and never fits worse."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliosd.core.advice.advise import RULES, advise
from heliosd.core.advice.facts import BudgetFacts, Change, DeviceFacts, Facts, ModelFacts, PrefetchFacts
from heliosd.core.advice.long_context import proposed as shorter_for
from heliosd.core.advice.many_sequences import proposed as narrower_for
from heliosd.core.advice.recommendation import Recommendation
from heliosd.core.units import GiB, MiB

MONTH = 30 * 24
BUSY = ModelFacts(
    "org/a",
    stored_bytes=16 * GiB,
    age_hours=2 * MONTH,
    requests=1000,
    silent_hours=1.0,
    most_at_once=3,
    longest_tokens=900,
    need_bytes=30 * GiB,
    max_model_len=131072,
    max_num_seqs=256,
    load_s=12.0,
    most_replicas=1,
    pin_hours=MONTH,
    texts_only=True,
)
UNASKED = replace(BUSY, requests=0, silent_hours=None, most_at_once=0, longest_tokens=0)


def facts(*models: ModelFacts, hours: int = MONTH, **others: object) -> Facts:
    return replace(Facts(hours=hours, window_hours=MONTH, models=models), **others)  # type: ignore[arg-type]


def found(given: Facts) -> dict[str, Recommendation]:
    return {each.rule: each for each in advise(given).found}


def test_nothing_is_said_without_history():
    said = advise(facts(replace(UNASKED, pinned=1), hours=5))
    assert said.found == ()
    assert len(said.quiet) == len(RULES)
    assert said.quiet[0].why == "not enough history: 5 hours of 168"


def test_a_pin_that_nobody_asks_for():
    (pin,) = advise(facts(replace(UNASKED, pinned=2), gib_hour_price=0.05)).found
    assert pin.id == "unused_pin:org/a" and pin.frees_bytes == 60 * GiB
    assert pin.calls[0].method == "DELETE" and pin.calls[0].path == "/helios/v1/pins/org/a"
    assert pin.money_per_month == pytest.approx(60 * 0.05 * 730)
    assert ("a start takes", "12.0 s") in pin.evidence
    assert "unused_pin" not in found(facts(replace(UNASKED, pinned=2, pin_hours=100.0)))
    assert "unused_pin" not in found(facts(replace(BUSY, pinned=2)))


def test_a_context_nobody_uses():
    assert shorter_for(BUSY) == 4096
    asked = replace(BUSY, shorter=Change(4096, 22 * GiB))
    said = found(facts(asked))["long_context"]
    assert (said.frees_bytes, said.settings[0].key, said.settings[0].after) == (
        8 * GiB,
        'models."org/a".max_model_len',
        4096,
    )
    assert shorter_for(replace(BUSY, texts_only=False)) is None
    assert shorter_for(replace(BUSY, requests=499)) is None
    assert shorter_for(replace(BUSY, longest_tokens=20_000)) is None  # within a quarter: it stays
    assert shorter_for(replace(BUSY, longest_tokens=3000)) == 16384
    assert "long_context" not in found(facts(replace(asked, shorter=Change(4096, 30 * GiB - 1))))


def test_sequences_nobody_needs():
    assert narrower_for(BUSY) == 16
    said = found(facts(replace(BUSY, narrower=Change(16, 28 * GiB), most_replicas=2)))["many_sequences"]
    assert said.frees_bytes == 4 * GiB and said.settings[0].after == 16
    assert narrower_for(replace(BUSY, most_at_once=40)) is None


def test_a_precision_that_frees_room_is_for_a_person_to_decide():
    said = found(facts(replace(BUSY, quantized=Change("fp8", 18 * GiB))))["precision"]
    assert said.frees_bytes == 12 * GiB and not said.calls and not said.settings
    assert "compare its answers first" in said.by_hand


def test_replicas_to_merge_and_to_split():
    merge = found(facts(replace(BUSY, pinned=3, max_replicas=3, most_replicas=3)))["merge_replicas"]
    assert merge.calls[0].body == {"replicas": 1} and merge.frees_bytes == 60 * GiB
    crowd = replace(BUSY, most_at_once=600)
    split = found(facts(crowd, free_bytes=100 * GiB))["split_replicas"]
    assert split.settings[0].after == 3
    assert "split_replicas" not in found(facts(crowd, free_bytes=10 * GiB))
    assert not {"merge_replicas", "split_replicas"} & found(facts(replace(BUSY, pinned=1), free_bytes=100 * GiB)).keys()


def test_a_slice_would_do():
    slices = {"1g.10gb": 9 * GiB, "3g.40gb": 39 * GiB}
    card = DeviceFacts("g0", "H100", 79 * GiB, 20 * GiB, slices)
    said = found(facts(devices=(card,)))["mig_profile"]
    assert "3g.40gb" in said.title and said.frees_bytes == 40 * GiB and said.by_hand
    assert "mig_profile" not in found(facts(devices=(replace(card, peak_bytes=38 * GiB),)))
    assert "mig_profile" not in found(facts(devices=(replace(card, peak_bytes=0),)))


def test_budgets_that_are_reached():
    full = BudgetFacts("pool.host_memory", "sleeping models", 64 * GiB, 62 * GiB)
    (said,) = advise(facts(budgets=(full,))).found
    assert said.settings[0].key == "pool.host_memory" and said.settings[0].after == f"{96 * 1024}MiB"
    assert not advise(facts(budgets=(replace(full, budget_bytes=96 * GiB),))).found, "once it is carried out"
    assert not advise(facts(budgets=(replace(full, peak_bytes=30 * GiB),))).found


def test_a_model_nobody_asks_for():
    said = found(facts(UNASKED))["never_asked"]
    assert said.frees_bytes == 16 * GiB and not said.calls and "heliosctl rm org/a" in said.by_hand
    assert found(facts(replace(UNASKED, disk_tier=True)))["never_asked"].calls[0].body == {"tier": "disk"}
    for spared in ({"age_hours": 100.0}, {"pinned": 1}, {"serves_others": True}, {"stored_bytes": MiB}):
        assert "never_asked" not in found(facts(replace(UNASKED, **spared))), spared  # type: ignore[arg-type]


def test_starts_ahead_in_vain():
    vain = PrefetchFacts(hits=2, misses=48, wasted_byte_s=3600.0 * 100 * GiB, hours=100.0, load_s=10.0)
    said = found(facts(prefetch=vain))["vain_prefetch"]
    assert said.frees_bytes == GiB and said.saves_s_per_day == pytest.approx(-4.8)
    assert "vain_prefetch" not in found(facts(prefetch=replace(vain, hits=20)))
    assert "vain_prefetch" not in found(facts(prefetch=replace(vain, misses=20)))


def test_the_most_worth_comes_first_and_what_is_put_off_is_apart():
    given = facts(UNASKED, replace(UNASKED, model="org/b", pinned=1), devices=())
    assert [each.id for each in advise(given).found] == ["unused_pin:org/b", "never_asked:org/a"]
    said = advise(given, {"unused_pin:org/b": 1.0})
    assert [each.id for each in said.found] == ["never_asked:org/a"]
    assert [each.id for each in said.put_off] == ["unused_pin:org/b"]


# ---- carrying it out ---------------------------------------------------------


def carried_out(given: Facts, said: Recommendation) -> Facts:
    """The facts as they are once the calls and settings of a recommendation are carried out, and nothing else."""
    models = {each.model: each for each in given.models}
    for call in said.calls:
        kind, _, model = call.path.removeprefix("/helios/v1/").partition("/")
        if kind == "pins":
            pinned = 0 if call.method == "DELETE" else call.body["replicas"]  # type: ignore[index]
            models[model] = replace(models[model], pinned=pinned)
        else:
            model = model.removeprefix("models/")
            models[model] = replace(models[model], disk_tier=False, stored_bytes=0)
    for setting in said.settings:
        if setting.key.startswith("models."):
            _, model, key = setting.key.split('"')
            each, name = models[model], key.removeprefix(".")
            for change in (each.shorter, each.narrower):
                if change and name in ("max_model_len", "max_num_seqs") and change.value == setting.after:
                    each = replace(each, need_bytes=change.need_bytes)
            models[model] = replace(each, **{name: setting.after})  # type: ignore[arg-type]
    return replace(given, models=tuple(models.values()))


def held(given: Facts) -> int:
    return sum(each.need_bytes * max(1, each.pinned, each.min_replicas) for each in given.models)


_MODELS = st.lists(
    st.builds(
        lambda requests, once, tokens, pinned, least, length, seqs, need, share: replace(
            BUSY,
            requests=requests,
            silent_hours=1.0 if requests else None,
            most_at_once=once if requests else 0,
            longest_tokens=tokens if requests else 0,
            pinned=pinned,
            min_replicas=least,
            max_replicas=max(1, least),
            max_model_len=length,
            max_num_seqs=seqs,
            need_bytes=need * GiB,
            shorter=Change(4096, int(need * GiB * share)),
            narrower=Change(16, int(need * GiB * share)),
        ),
        st.sampled_from([0, 60, 5000]),
        st.integers(1, 400),
        st.integers(1, 40_000),
        st.integers(0, 4),
        st.integers(0, 3),
        st.sampled_from([4096, 32768, 131072]),
        st.sampled_from([1, 8, 64, 256]),
        st.integers(1, 60),
        st.floats(0.3, 1.0),
    ),
    max_size=5,
)


@given(_MODELS, st.integers(0, 200))
def test_what_is_carried_out_vanishes_and_fits_no_worse(models: list[ModelFacts], free: int):
    given_models = tuple(replace(each, model=f"org/m{at}") for at, each in enumerate(models))
    before = facts(*given_models, free_bytes=free * GiB)
    for said in advise(before).found:
        if not said.calls and not said.settings:
            assert said.by_hand
            continue
        after = carried_out(before, said)
        assert said.id not in {each.id for each in advise(after).found}, said
        assert held(after) <= held(before), "what is kept ready takes no more; others start in free room alone"
