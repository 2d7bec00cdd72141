"""Ridge regression against what is known of it."""

import random

import pytest

from heliosd.estimation.ridge import PENALTY, features, fit


def rows(count: int) -> list[dict[str, float]]:
    chance = random.Random(3)
    return [{"a": chance.uniform(0, 10), "b": chance.uniform(100, 900), "c": 7.0} for _ in range(count)]


def test_a_line_is_found_among_many_rows() -> None:
    found = rows(400)
    model, held_out = fit(found, [3 + 2 * row["a"] - 0.01 * row["b"] for row in found], range(400))
    asked = {"a": 4.0, "b": 500.0, "c": 7.0}
    assert model.predict(asked) == pytest.approx(3 + 8 - 5, rel=0.02)
    for row, guess in zip(found, held_out, strict=True):
        assert guess == pytest.approx(3 + 2 * row["a"] - 0.01 * row["b"], abs=0.3)


def test_one_feature_shrinks_by_the_penalty() -> None:
    found = [{"x": value} for value in (-1.0, 1.0)]
    model, _ = fit(found, [-1.0, 1.0], [0, 1])
    assert model.predict({"x": 1.0}) == pytest.approx(2 / (2 + PENALTY))


def test_a_held_out_group_is_predicted_as_if_it_had_never_been() -> None:
    found = rows(30)
    targets = [row["a"] ** 2 for row in found]
    groups = [index // 3 for index in range(30)]
    _, held_out = fit(found, targets, groups)
    changed = [target if group != 4 else 1e6 for target, group in zip(targets, groups, strict=True)]
    _, again = fit(found, changed, groups)
    for index, group in enumerate(groups):
        same = again[index] == pytest.approx(held_out[index], rel=1e-6)
        assert same is (group == 4)


def test_it_knows_what_it_has_seen() -> None:
    model, _ = fit(rows(30), [0.0] * 30, range(30))
    assert model.knows({"a": 5.0, "b": 300.0, "c": 7.0})
    for other in ({"a": 50.0}, {"c": 8.0}):
        assert not model.knows({"a": 5.0, "b": 300.0, "c": 7.0, **other})
    assert not model.knows({"a": 5.0})


def test_features_are_of_similar_size() -> None:
    found = features(
        weights_bytes=2**34,
        layers=80,
        hidden=8192,
        vocabulary=128_256,
        sequences=1024,
        batched_tokens=8192,
        tensor_parallel=8,
        version=(0, 32, 1),
    )
    assert found["log_weights"] == pytest.approx(34)
    assert found["logits_gib"] == pytest.approx(128_256 / 2**18)
    assert found["tokens_gib"] == 0.125
    assert found["era"] == 32
    assert len(found) <= 8
