"""The sizes that decide activations and tables, read leniently."""

from typing import Any

import pytest

from heliosd.estimation.dimensions import Dimensions, dimensions
from heliosd.estimation.fields import Fields
from tests.estimation.logged_models import DEEPSEEK_LITE, GEMMA_27B, LLAMA_8B, MIXTRAL, QWEN_06B


def of(config: dict[str, Any]) -> Dimensions:
    return dimensions(Fields(config))


def test_a_plain_decoder() -> None:
    sizes = of(LLAMA_8B)
    assert (sizes.layers, sizes.hidden, sizes.vocabulary, sizes.intermediate) == (32, 4096, 128256, 14336)
    assert (sizes.heads, sizes.kv_heads, sizes.head_dim, sizes.rotary_dimensions) == (32, 8, 128, 128)
    assert (sizes.experts, sizes.latent, sizes.recurrent, sizes.pooling, sizes.tower) == (0, False, False, False, None)
    assert of(QWEN_06B).head_dim == 128, "explicit, not hidden / heads"


def test_experts() -> None:
    mixtral, deepseek = of(MIXTRAL), of(DEEPSEEK_LITE)
    assert (mixtral.experts, mixtral.experts_per_token, mixtral.moe_intermediate) == (8, 2, 14336)
    assert (deepseek.experts, deepseek.experts_per_token, deepseek.moe_intermediate) == (64, 6, 1408)
    assert deepseek.intermediate == 10944, "its first layer is dense"


def test_latent_attention_rotates_its_rope_part_alone() -> None:
    sizes = of(DEEPSEEK_LITE)
    assert (sizes.latent, sizes.latent_width, sizes.rotary_dimensions) == (True, 256, 64)


def test_a_model_that_sees() -> None:
    sizes = of(GEMMA_27B)
    assert sizes.tower is not None
    assert sizes.tower.item_tokens == 256
    assert sizes.tower.patches_per_token == 16, "64 x 64 patches become 256 tokens"
    assert (sizes.positions, sizes.rotary_stretch, sizes.rotary_local) == (131072, 8.0, True)


@pytest.mark.parametrize(
    ("name", "pooling"),
    [("Qwen3ForCausalLM", False), ("Qwen3Model", True), ("GPT2LMHeadModel", False),
     ("LlamaForSequenceClassification", True)],
)  # fmt: skip
def test_what_is_served_for_embeddings_and_scores(name: str, pooling: bool) -> None:
    assert of({**LLAMA_8B, "architectures": [name]}).pooling is pooling


def test_partial_rotation_and_none() -> None:
    assert of({**LLAMA_8B, "partial_rotary_factor": 0.5}).rotary_dimensions == 64
    assert of({"model_type": "gpt2"}).rotary_dimensions == 0


def test_silence_is_zero() -> None:
    sizes = of({"model_type": "no-such-model"})
    assert (sizes.layers, sizes.hidden, sizes.vocabulary, sizes.head_dim, sizes.positions) == (0, 0, 0, 0, 0)
