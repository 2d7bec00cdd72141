"""Models that see and hear: published checkpoints' counts, parts that a configuration leaves out, ties and names."""

import itertools
import math
from collections.abc import Iterable
from typing import Any

import pytest

from heliosd.errors import BadRequest
from heliosd.estimation.families.multimodal import FAMILIES
from heliosd.estimation.families.registry import layout_of
from heliosd.estimation.families.vision import unknown_encoders
from heliosd.estimation.families.vision_inkling import scales
from heliosd.estimation.fields import Fields
from heliosd.estimation.layout import Kind, Layout

QWEN2_7B: dict[str, Any] = {
    "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
    "num_key_value_heads": 4,
}  # fmt: skip
QWEN3_VL_2B: dict[str, Any] = {
    "model_type": "qwen3_vl",
    "architectures": ["Qwen3VLForConditionalGeneration"],
    "tie_word_embeddings": True,
    "text_config": {"model_type": "qwen3_vl_text", "hidden_size": 2048, "intermediate_size": 6144, "head_dim": 128,
                    "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8,
                    "vocab_size": 151936},
    "vision_config": {"model_type": "qwen3_vl", "depth": 24, "hidden_size": 1024, "intermediate_size": 4096,
                      "num_heads": 16, "out_hidden_size": 2048, "patch_size": 16, "spatial_merge_size": 2,
                      "num_position_embeddings": 2304, "deepstack_visual_indexes": [5, 11, 17]},
}  # fmt: skip
INTERNVIT = {"model_type": "intern_vit_6b", "hidden_size": 1024, "num_hidden_layers": 24, "intermediate_size": 4096,
             "num_attention_heads": 16, "image_size": 448, "patch_size": 14, "qkv_bias": True}  # fmt: skip
GEMMA4_31B: dict[str, Any] = {
    "model_type": "gemma4", "hidden_size": 5376, "intermediate_size": 21504, "num_hidden_layers": 60,
    "num_attention_heads": 32, "num_key_value_heads": 16, "head_dim": 256, "num_global_key_value_heads": 4,
    "global_head_dim": 512, "attention_k_eq_v": True, "vocab_size": 262144, "tie_word_embeddings": True,
}  # fmt: skip

PUBLISHED: dict[str, tuple[int, dict[str, Any]]] = {
    "Qwen3-VL-2B-Instruct": (2_127_532_032, QWEN3_VL_2B),
    "Qwen2-VL-7B-Instruct": (
        8_291_375_616,
        {**QWEN2_7B, "model_type": "qwen2_vl", "vocab_size": 152064, "tie_word_embeddings": False,
         "vision_config": {"depth": 32, "embed_dim": 1280, "num_heads": 16, "hidden_size": 3584, "patch_size": 14}},
    ),
    "Qwen2.5-VL-7B-Instruct": (
        8_292_166_656,
        {**QWEN2_7B, "model_type": "qwen2_5_vl", "vocab_size": 152064, "tie_word_embeddings": False,
         "vision_config": {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16,
                           "in_chans": 3, "out_hidden_size": 3584, "patch_size": 14}},
    ),
    "Llama-3.2-11B-Vision-Instruct": (
        10_670_220_835,
        {"model_type": "mllama", "vision_config": {"model_type": "mllama_vision_model", "image_size": 560},
         "text_config": {"model_type": "mllama_text_model", "vocab_size": 128256, "num_hidden_layers": 40,
                         "cross_attention_layers": [3, 8, 13, 18, 23, 28, 33, 38]}},
    ),
    "Llama-4-Scout-17B-16E-Instruct": (
        108_641_793_536,
        {"model_type": "llama4", "hidden_size": 5120, "intermediate_size": 8192, "intermediate_size_mlp": 16384,
         "num_hidden_layers": 48, "num_attention_heads": 40, "num_key_value_heads": 8, "head_dim": 128,
         "num_local_experts": 16, "interleave_moe_layer_step": 1, "vocab_size": 202048,
         "tie_word_embeddings": False},
    ),
    "gemma-4-31B-it-unsloth-bnb-4bit": (31_273_086_512, GEMMA4_31B),
    "InternVL2_5-8B": (
        8_075_365_376,
        {"model_type": "internvl_chat", "architectures": ["InternVLChatModel"], "downsample_ratio": 0.5,
         "vision_config": INTERNVIT,
         "llm_config": {"model_type": "internlm2", "hidden_size": 4096, "num_hidden_layers": 32,
                        "intermediate_size": 14336, "num_attention_heads": 32, "num_key_value_heads": 8,
                        "vocab_size": 92553, "tie_word_embeddings": False}},
    ),
    "Phi-3.5-vision-instruct": (
        4_146_621_440,
        {"model_type": "phi3_v", "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 32,
         "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 32064, "tie_word_embeddings": False},
    ),
    "MiniCPM-V-2_6": (
        8_099_175_152,
        {**QWEN2_7B, "model_type": "minicpmv", "version": 2.6, "vocab_size": 151666, "query_num": 64,
         "drop_vision_last_layer": False,
         "vision_config": {"hidden_size": 1152, "image_size": 980, "intermediate_size": 4304,
                           "num_attention_heads": 16, "num_hidden_layers": 27, "patch_size": 14}},
    ),
    "dots.ocr": (
        3_039_179_264,
        {"model_type": "dots_ocr", "architectures": ["DotsOCRForCausalLM"], "hidden_size": 1536,
         "num_hidden_layers": 28, "intermediate_size": 8960, "num_attention_heads": 12, "num_key_value_heads": 2,
         "vocab_size": 151936, "tie_word_embeddings": False, "vision_config": {"embed_dim": 1536}},
    ),
    "DeepSeek-OCR": (
        3_336_106_240,
        {"model_type": "deepseek_vl_v2", "vision_config": {"width": {"clip-l-14-224": {}, "sam_vit_b": {}}},
         "language_config": {"model_type": "deepseek_v2", "hidden_size": 1280, "num_hidden_layers": 12,
                             "intermediate_size": 6848, "moe_intermediate_size": 896, "n_routed_experts": 64,
                             "n_shared_experts": 2, "first_k_dense_replace": 1, "num_attention_heads": 10,
                             "num_key_value_heads": 10, "use_mla": False, "kv_lora_rank": None, "v_head_dim": 0,
                             "vocab_size": 129280}},
    ),
    "whisper-large-v3-turbo": (
        808_878_080,
        {"model_type": "whisper", "d_model": 1280, "encoder_layers": 32, "decoder_layers": 4,
         "encoder_attention_heads": 20, "decoder_attention_heads": 20, "encoder_ffn_dim": 5120,
         "decoder_ffn_dim": 5120, "num_mel_bins": 128, "vocab_size": 51866},
    ),
}  # fmt: skip


def laid_out(config: dict[str, Any]) -> Layout:
    layout = layout_of(config)
    assert layout is not None
    return layout


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_checkpoint_has_the_parameters_its_page_tells(name: str) -> None:
    count, config = PUBLISHED[name]
    assert laid_out(config).parameters == count


def test_an_encoder_of_which_nothing_is_said_is_the_class_default_and_marked_as_guessed() -> None:
    config = {key: value for key, value in QWEN3_VL_2B.items() if key != "vision_config"}
    layout = laid_out(config)
    assert layout.towers
    assert layout.guessed == ("vision_config",)
    assert not laid_out(QWEN3_VL_2B).guessed


def test_a_null_encoder_is_a_statement() -> None:
    layout = laid_out({**GEMMA4_31B, "vision_config": None, "audio_config": None})
    assert not layout.towers
    assert not layout.guessed


def test_sizes_at_the_top_level_count_like_nested_ones() -> None:
    flat = {**QWEN3_VL_2B["text_config"], "tie_word_embeddings": True, "vision_config": QWEN3_VL_2B["vision_config"]}
    flat["model_type"] = "qwen3_vl"
    assert laid_out(flat).parameters == laid_out(QWEN3_VL_2B).parameters


@pytest.mark.parametrize(
    ("whole", "inner", "tied"), [(None, True, True), (None, False, False), (True, False, True), (False, True, False)]
)
def test_the_whole_says_whether_the_embedding_is_tied_and_else_its_language_part(
    whole: bool | None, inner: bool, tied: bool
) -> None:
    config = {**QWEN3_VL_2B, "text_config": {**QWEN3_VL_2B["text_config"], "tie_word_embeddings": inner}}
    del config["tie_word_embeddings"]
    if whole is not None:
        config["tie_word_embeddings"] = whole
    layout = laid_out(config)
    assert layout.tied is tied
    assert any(tensor.kind is Kind.HEAD for tensor in layout.last) is not tied


def test_where_nobody_says_it_two_defaults_must_agree_to_tie() -> None:
    text = {"hidden_size": 256, "num_hidden_layers": 2, "intermediate_size": 300, "num_attention_heads": 4,
            "num_key_value_heads": 2, "vocab_size": 1000}  # fmt: skip
    assert not laid_out({"model_type": "mistral3", "text_config": {**text, "model_type": "mistral"}}).tied
    assert laid_out({"model_type": "gemma3", "text_config": {**text, "model_type": "gemma3_text"}}).tied


def test_towers_are_named_as_quantizations_leave_them_out() -> None:
    for model_type, prefix in (
        ("qwen3_vl", "model.visual."),
        ("qwen2_vl", "visual."),
        ("gemma3", ("vision_tower.", "multi_modal_projector.")),
        ("llama4", ("vision_model.", "multi_modal_projector.")),
    ):
        towers = laid_out({"model_type": model_type}).towers
        assert all(tensor.name.startswith(prefix) for tensor in towers), model_type
        assert any(tensor.kind is Kind.LINEAR for tensor in towers)


def test_the_language_part_is_named_as_in_the_checkpoint() -> None:
    names = {
        model_type: laid_out({"model_type": model_type}).blocks[0].tensors[0].name
        for model_type in ("qwen3_vl", "qwen2_vl", "gemma3")
    }
    assert names["qwen3_vl"].startswith("model.language_model.layers.{}.")
    assert names["qwen2_vl"].startswith("model.layers.{}.")
    assert names["gemma3"].startswith("language_model.model.layers.{}.")


def test_the_decoder_alone_has_no_towers() -> None:
    assert laid_out({"model_type": "whisper"}).towers
    assert not laid_out({"model_type": "whisper", "architectures": ["WhisperForCausalLM"]}).towers
    assert not laid_out({"model_type": "mllama", "architectures": ["MllamaForCausalLM"]}).towers


def test_an_omni_model_is_its_thinker_however_its_parts_are_nested() -> None:
    text = {**QWEN2_7B, "vocab_size": 152064, "tie_word_embeddings": False}
    vision = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 3584}
    audio = {"d_model": 1280, "encoder_layers": 32, "encoder_attention_heads": 20, "encoder_ffn_dim": 5120}
    flat = {**text, "model_type": "qwen2_5_omni", "architectures": ["Qwen2_5OmniModel"], "vision_config": vision,
            "audio_config": audio}  # fmt: skip
    nested = {
        "model_type": "qwen2_5_omni",
        "architectures": ["Qwen2_5OmniForConditionalGeneration"],
        "thinker_config": {"text_config": text, "vision_config": vision, "audio_config": audio},
    }
    assert laid_out(flat).parameters == laid_out(nested).parameters == 8_931_813_888


@pytest.mark.parametrize(("patch", "frames", "depth"), [(12, 4, 3), (40, 2, 4), (24, 1, 2), (40, 2, 6), (8, 2, 9)])
def test_inkling_takes_the_scales_nearest_to_an_even_progression(patch: int, frames: int, depth: int) -> None:
    config = {"patch_size": patch, "temporal_patch_size": frames, "num_channels": 3, "n_layers": depth}
    chosen = scales(Fields(config))
    every = scales(Fields({**config, "n_layers": 400}))
    steps = sorted(set(every), key=lambda one: one[0] * one[1] ** 2)
    ideal = [math.log(patch * patch * frames * 3) * index / depth for index in range(depth + 1)]

    def apart(one: tuple[int, int, int], want: float) -> float:
        return abs(math.log(one[0] * one[1] ** 2) - want)

    def distance(plan: Iterable[tuple[int, int, int]]) -> float:
        return sum(apart(one, want) for one, want in zip(plan, ideal, strict=True))

    def nearest(want: float) -> tuple[int, int, int]:
        return min(steps, key=lambda one: apart(one, want))

    assert (chosen[0], chosen[-1]) == (steps[0], steps[-1])
    if depth < len(steps):
        least = list(min(itertools.permutations(steps, depth + 1), key=distance))
    else:
        least = [nearest(want) for want in ideal]
    assert chosen[1:-1] == least[1:-1]


@pytest.mark.parametrize(
    ("part", "change", "param"),
    [
        ("vision_config", {"patch_size": 0}, "patch_size"),
        ("vision_config", {"depth": 10**9}, "depth"),
        ("vision_config", {"hidden_size": -1}, "hidden_size"),
        ("vision_config", {"intermediate_size": "wide"}, "intermediate_size"),
        ("text_config", {"model_type": "no_such_decoder"}, "text_config"),
        ("text_config", {"num_hidden_layers": 0}, "num_hidden_layers"),
    ],
)
def test_what_cannot_be_is_refused_and_named(part: str, change: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest, match="cannot") as raised:
        layout_of({**QWEN3_VL_2B, part: {**QWEN3_VL_2B[part], **change}})
    assert raised.value.param == param


@pytest.mark.parametrize("model_type", sorted(FAMILIES))
def test_a_bare_name_or_one_that_lacks_sizes_is_answered_or_refused_in_words(model_type: str) -> None:
    try:
        layout = layout_of({"model_type": model_type})
    except BadRequest as refused:
        assert str(refused).startswith("cannot")
    else:
        assert layout is not None
        assert layout.parameters > 0


def test_encoders_of_an_unknown_class_are_taken_for_the_common_ones() -> None:
    config = {"model_type": "nobody_knows", "vision_config": {"hidden_size": 1024}, "audio_config": {}}
    names = {tensor.name.split(".")[0] for tensor in unknown_encoders(Fields(config), 2048)}
    assert names == {"vision_tower", "multi_modal_projector", "audio_tower", "audio_projector"}
    assert not unknown_encoders(Fields({"model_type": "nobody_knows"}), 2048)
