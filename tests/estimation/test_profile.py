"""Facts from configurations as the families write them."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heliosd.estimation.headers import Header, Tensor
from heliosd.estimation.profile import read_profile
from tests.effort import examples

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "dtype": "bfloat16",
    "head_dim": 64,
    "hidden_size": 576,
    "max_position_embeddings": 8192,
    "num_attention_heads": 9,
    "num_hidden_layers": 30,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
}
HEADER = Header((Tensor("a", "F16", (4,), 0, 8), Tensor("b", "F32", (3,), 8, 20)), {})


def test_a_plain_configuration() -> None:
    profile = read_profile(LLAMA, [HEADER, HEADER])
    assert profile.architecture == "LlamaForCausalLM"
    assert (profile.layers, profile.kv_heads, profile.head_dim) == (30, 3, 64)
    assert (profile.hidden_size, profile.vocab_size, profile.max_model_len) == (576, 49152, 8192)
    assert (profile.weights_bytes, profile.parameters, profile.dtype) == (40, 14, "bfloat16")
    assert not profile.remote_code
    assert not profile.pickled


def test_fallbacks() -> None:
    config = {"hidden_size": 512, "num_attention_heads": 8, "torch_dtype": "auto"}
    profile = read_profile(config, [HEADER], pickled=True)
    assert (profile.head_dim, profile.kv_heads) == (64, 8)
    assert profile.dtype == "float32"  # what most bytes are
    assert profile.pickled
    assert read_profile({}, []).parameters is None


@pytest.mark.parametrize(
    ("config", "facts"),
    [
        ({"n_embd": 768, "n_head": 12, "n_layer": 6, "n_positions": 1024}, (6, 12, 64, 1024)),
        ({"hidden_size": 4544, "num_attention_heads": 71, "multi_query": True, "n_layer": 32}, (32, 1, 64, None)),
        ({"text_config": LLAMA, "vision_config": {"num_hidden_layers": 99}}, (30, 3, 64, 8192)),
        ({"thinker_config": {"text_config": LLAMA}}, (30, 3, 64, 8192)),
        ({"text_config": {"hidden_size": 64}, "num_hidden_layers": 7}, (7, None, None, None)),
        (LLAMA | {"num_key_value_heads": [1, 2, 4]}, (30, 4, 64, 8192)),
        ({"hybrid_override_pattern": "M*ME", "num_attention_heads": 4}, (4, 4, None, None)),
    ],
)
def test_the_names_that_families_use(config: dict[str, Any], facts: tuple[int | None, ...]) -> None:
    profile = read_profile(config, [])
    assert (profile.layers, profile.kv_heads, profile.head_dim, profile.max_model_len) == facts


def test_code_that_comes_with_the_model_is_noticed() -> None:
    assert read_profile({"auto_map": {"AutoModel": "modeling.Model"}}, []).remote_code


ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
NAMES = [*LLAMA, "torch_dtype", "text_config", "llm_config", "multi_query", "auto_map", "n_embd", "layer_types"]


@settings(max_examples=examples(80), deadline=None)
@given(st.dictionaries(st.sampled_from(NAMES), ODD, max_size=8))
def test_no_configuration_makes_it_raise(config: dict[str, Any]) -> None:
    profile = read_profile(config, [HEADER])
    for value in (profile.layers, profile.kv_heads, profile.head_dim, profile.hidden_size, profile.max_model_len):
        assert value is None or (type(value) is int and value > 0)
    json.dumps(profile.dtype)
