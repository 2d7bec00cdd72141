"""A configuration is read once, and what is none is refused by name."""

from typing import Any

import pytest

from heliosd.errors import BadRequest
from heliosd.estimation.fields import Fields
from heliosd.estimation.model import loaded_dtype, read_model
from tests.estimation.logged_models import AWQ, LLAMA_8B, QWEN_06B


def test_what_is_read() -> None:
    model = read_model(LLAMA_8B)
    assert model.layout is not None
    assert model.layout.parameters == 8_030_261_248
    assert (model.dtype, model.quantization.linear, model.notes) == ("bfloat16", None, ())
    tied = read_model(QWEN_06B).layout
    assert tied is not None
    assert tied.parameters == 596_049_920, "the head is the embedding"


def test_a_checkpoint_in_float32_is_loaded_in_half() -> None:
    assert loaded_dtype(Fields({"torch_dtype": "torch.float32"})) == "bfloat16"
    assert loaded_dtype(Fields({"torch_dtype": "float16"})) == "float16"
    assert loaded_dtype(Fields({"dtype": "auto"})) == "bfloat16"
    assert loaded_dtype(Fields({"text_config": {"dtype": "float16"}, "dtype": "bfloat16"})) == "float16"


def test_the_operators_wish_is_for_plain_checkpoints() -> None:
    assert read_model(LLAMA_8B, "fp8").quantization.name == "online fp8"
    assert read_model({**LLAMA_8B, "quantization_config": AWQ}, "fp8").quantization.name.startswith("awq")


@pytest.mark.parametrize("config", [{}, [], None, "x", 7])
def test_what_is_no_configuration(config: Any) -> None:
    with pytest.raises(BadRequest, match="cannot read the configuration") as caught:
        read_model(config)
    assert caught.value.code == "bad_config"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0"),
        ({"num_hidden_layers": 10**12}, "layers is more than any model has"),
        ({"num_hidden_layers": 5000}, "5000 layers is more than any model has"),
        ({"hidden_size": -1}, "hidden_size is '-1'"),
        ({"vocab_size": [32000]}, "vocab_size"),
        ({"num_attention_heads": 31}, "31 heads cannot share 8"),
        ({"num_key_value_heads": 7}, "32 heads cannot share 7"),
    ],
)
def test_contradictions_are_named(change: dict[str, Any], said: str) -> None:
    with pytest.raises(BadRequest, match=said) as caught:
        read_model({**LLAMA_8B, **change})
    assert caught.value.code == "bad_config"
    assert str(caught.value).startswith("cannot read the configuration")


def test_an_unknown_architecture_is_taken_for_a_plain_decoder_and_says_so() -> None:
    strange = {**LLAMA_8B, "model_type": "no-such-model"}
    layout = read_model(strange).layout
    assert layout is not None
    assert layout.parameters == 8_030_261_248
    assert layout.guessed == ("layers of no-such-model",)
    nothing = read_model({"model_type": "no-such-model", "hidden_size": 64})
    assert nothing.layout is None
    assert "no-such-model" in nothing.notes[0]
