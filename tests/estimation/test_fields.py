"""Fields are found under any name, explicit before the class's default, and absurd ones are refused by name."""

from typing import Any

import pytest

from heliosd.errors import BadRequest
from heliosd.estimation.fields import LARGEST, Fields, class_defaults


def test_explicit_wins_under_any_name_then_the_class() -> None:
    assert Fields({"model_type": "llama", "n_embd": 7}).whole("hidden_size", "n_embd") == 7
    assert Fields({"model_type": "llama"}).whole("hidden_size") == class_defaults()["llama"]["hidden_size"]
    assert Fields({"model_type": "llama", "hidden_size": None}).whole("hidden_size") > 0, "null is silence"


def test_what_is_missing_is_named() -> None:
    with pytest.raises(BadRequest, match="does not say num_hidden_layers") as caught:
        Fields({}).whole("num_hidden_layers", "n_layer")
    assert (caught.value.code, caught.value.param) == ("bad_config", "num_hidden_layers")


@pytest.mark.parametrize("value", [-1, True, "12", 1.5, float("inf"), float("nan"), [4], {}, LARGEST, 10**400])
def test_what_is_no_size_is_refused(value: Any) -> None:
    with pytest.raises(BadRequest, match="not a sensible whole number") as caught:
        Fields({"hidden_size": value}).whole("hidden_size")
    assert caught.value.code == "bad_config"
    assert len(str(caught.value)) < 200, "however long the number is"


def test_a_whole_float_is_a_number() -> None:
    assert Fields({"hidden_size": 4096.0}).whole("hidden_size") == 4096
    assert Fields({"hidden_size": 0}).whole("hidden_size") == 0


def test_given_is_about_the_configuration_alone() -> None:
    fields = Fields({"model_type": "llama", "head_dim": None})
    assert fields.given("head_dim")
    assert not fields.given("hidden_size")
    assert fields.explicit("hidden_size") is None


def test_the_language_part_is_as_deep_as_it_is_nested() -> None:
    nested = Fields({"thinker_config": {"text_config": {"hidden_size": 64}}, "hidden_size": 1})
    assert nested.language().whole("hidden_size") == 64
    flat = Fields({"hidden_size": 1})
    assert flat.language() is flat
    assert nested.language() is nested.language(), "looked for once"


def test_sizes_at_the_top_of_a_class_that_nests_them() -> None:
    text = Fields({"model_type": "gemma3", "hidden_size": 2560, "num_hidden_layers": 34}).language()
    assert (text.whole("hidden_size"), text.model_type) == (2560, "gemma3_text")


def test_a_change_leaves_the_original() -> None:
    before = Fields({"model_type": "llama", "hidden_size": 64})
    assert before.changed(hidden_size=32).whole("hidden_size") == 32
    assert before.whole("hidden_size") == 64


def test_parts_and_lists_that_are_something_else_are_empty() -> None:
    fields = Fields({"layer_types": "full", "vision_config": [1]})
    assert fields.items("layer_types") == []
    assert fields.part("vision_config") is None
