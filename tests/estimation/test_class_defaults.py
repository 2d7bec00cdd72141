"""The shipped defaults are those of the installed `transformers`, and hold nothing that a class calculates."""

import json

import pytest

from heliosd.estimation.fields import class_defaults
from tests.estimation.class_defaults import TARGET, collect, render, useful


def test_noise_and_per_layer_lists_are_left_out() -> None:
    kept = useful(
        {
            "hidden_size": 8, "rms_norm_eps": 1e-6, "bos_token_id": 1, "layer_types": ["full_attention"] * 4,
            "tie_word_embeddings": True, "deepstack_visual_indexes": [1, 2], "sizes": list(range(40)),
        }
    )  # fmt: skip
    assert kept == {"hidden_size": 8, "tie_word_embeddings": True, "deepstack_visual_indexes": [1, 2]}


def test_what_a_class_derives_is_no_default() -> None:
    assert "head_dim" not in class_defaults()["llama"], "it follows from the hidden size and the heads"
    assert class_defaults()["gemma"]["head_dim"] == 256, "here it is the class's own"


@pytest.mark.slow
def test_they_are_those_of_the_installed_release() -> None:
    assert json.loads(render(collect())) == json.loads(TARGET.read_text(encoding="utf-8"))
