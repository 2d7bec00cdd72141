"""Layouts of decoders: published counts, how ranks share the tensors, what contradicts itself."""

import random
from typing import Any

import pytest

from heliosd.errors import BadRequest
from heliosd.estimation.families import decoders
from heliosd.estimation.families.assembly import moved
from heliosd.estimation.families.registry import layout_of
from heliosd.estimation.fields import class_defaults
from heliosd.estimation.layout import Kind, Layout, Split, Tensor
from tests.estimation.logged_models import DEEPSEEK_V4

LLAMA_8B = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256,
    "tie_word_embeddings": False,
}  # fmt: skip
QWEN3_SMALL = {
    "model_type": "qwen3", "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28, "head_dim": 128,
    "num_attention_heads": 16, "num_key_value_heads": 8, "vocab_size": 151936, "tie_word_embeddings": True,
}  # fmt: skip
QWEN3_MOE = {
    "model_type": "qwen3_moe", "hidden_size": 2048, "moe_intermediate_size": 768, "num_hidden_layers": 48,
    "head_dim": 128, "num_attention_heads": 32, "num_key_value_heads": 4, "num_experts": 128, "vocab_size": 151936,
}  # fmt: skip
DEEPSEEK_V3 = {
    "model_type": "deepseek_v3", "hidden_size": 7168, "intermediate_size": 18432, "moe_intermediate_size": 2048,
    "num_hidden_layers": 61, "num_attention_heads": 128, "n_routed_experts": 256, "n_shared_experts": 1,
    "q_lora_rank": 1536, "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
    "first_k_dense_replace": 3, "vocab_size": 129280, "num_nextn_predict_layers": 1,
}  # fmt: skip
GPT_OSS = {
    "model_type": "gpt_oss", "hidden_size": 2880, "intermediate_size": 2880, "num_hidden_layers": 24, "head_dim": 64,
    "num_attention_heads": 64, "num_key_value_heads": 8, "num_local_experts": 32, "vocab_size": 201088,
}  # fmt: skip
PUBLISHED: dict[str, tuple[dict[str, Any], int]] = {
    "Llama 3.1 8B": (LLAMA_8B, 8_030_261_248),
    "Qwen3 0.6B": (QWEN3_SMALL, 596_049_920),
    "Qwen3 30B A3B": (QWEN3_MOE, 30_532_122_624),
    "DeepSeek V3": (DEEPSEEK_V3, 671_026_404_352),
    "gpt-oss 20b": (GPT_OSS, 20_914_757_184),
    "Gemma 2 9B": (
        {"model_type": "gemma2", "hidden_size": 3584, "intermediate_size": 14336, "num_hidden_layers": 42,
         "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 256, "vocab_size": 256000},
        9_241_705_984,
    ),
    "GPT-2": ({"model_type": "gpt2", "n_embd": 768, "n_layer": 12, "n_head": 12, "vocab_size": 50257}, 124_439_808),
    "OPT 125M": (
        {"model_type": "opt", "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "ffn_dim": 3072,
         "vocab_size": 50272},
        125_239_296,
    ),
    "Phi-4": (
        {"model_type": "phi3", "hidden_size": 5120, "intermediate_size": 17920, "num_hidden_layers": 40,
         "num_attention_heads": 40, "num_key_value_heads": 10, "vocab_size": 100352},
        14_659_507_200,
    ),
    "Mixtral 8x7B": (
        {"model_type": "mixtral", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
         "num_attention_heads": 32, "num_key_value_heads": 8, "num_local_experts": 8, "vocab_size": 32000},
        46_702_792_704,
    ),
    "Qwen 7B": (
        {"model_type": "qwen", "hidden_size": 4096, "intermediate_size": 22016, "num_hidden_layers": 32,
         "num_attention_heads": 32, "vocab_size": 151936},
        7_721_324_544,
    ),
    "GLM-4 9B": (
        {"model_type": "chatglm", "hidden_size": 4096, "ffn_hidden_size": 13696, "num_layers": 40, "kv_channels": 128,
         "num_attention_heads": 32, "multi_query_attention": True, "multi_query_group_num": 2, "add_qkv_bias": True,
         "padded_vocab_size": 151552},
        9_399_951_360,
    ),
}  # fmt: skip


def told(config: dict[str, Any]) -> Layout:
    layout = layout_of(config)
    assert layout is not None
    return layout


def named(layout: Layout, ending: str) -> Tensor:
    """The first tensor whose name ends so."""
    return next(tensor for tensor, _ in layout.walk() if tensor.name.endswith(ending))


@pytest.mark.parametrize("model", PUBLISHED)
def test_counts_what_was_published(model: str) -> None:
    config, parameters = PUBLISHED[model]
    assert told(config).parameters == parameters


def test_each_tensor_is_shared_as_the_engine_shares_it() -> None:
    layout = told(LLAMA_8B)
    expected = {
        "embed_tokens.weight": (Kind.EMBEDDING, Split.VOCABULARY, 0),
        "q_proj.weight": (Kind.LINEAR, Split.ROWS, 0),
        "k_proj.weight": (Kind.LINEAR, Split.HEADS, 8),
        "v_proj.weight": (Kind.LINEAR, Split.HEADS, 8),
        "o_proj.weight": (Kind.LINEAR, Split.COLUMNS, 0),
        "gate_proj.weight": (Kind.LINEAR, Split.ROWS, 0),
        "up_proj.weight": (Kind.LINEAR, Split.ROWS, 0),
        "down_proj.weight": (Kind.LINEAR, Split.COLUMNS, 0),
        "input_layernorm.weight": (Kind.PLAIN, Split.WHOLE, 0),
        "lm_head.weight": (Kind.HEAD, Split.VOCABULARY, 0),
    }
    for ending, (kind, split, heads) in expected.items():
        tensor = named(layout, ending)
        assert (tensor.kind, tensor.split, tensor.heads) == (kind, split, heads), ending


def test_experts_are_divided_and_their_router_is_not() -> None:
    layout = told(QWEN3_MOE)
    gate, down, router = (
        named(layout, f"mlp.{name}.weight") for name in ("experts.0.gate_proj", "experts.0.down_proj", "gate")
    )
    assert (gate.kind, gate.split, gate.copies, gate.rows) == (Kind.EXPERT, Split.ROWS, 128, 768)
    assert (down.kind, down.split) == (Kind.EXPERT, Split.COLUMNS)
    assert (router.kind, router.split, router.rows) == (Kind.LINEAR, Split.WHOLE, 128)


def test_latent_attention_narrows_on_every_rank_and_widens_by_heads() -> None:
    layout = told(DEEPSEEK_V3)
    for ending in ("q_a_proj.weight", "kv_a_proj_with_mqa.weight"):
        assert named(layout, ending).split is Split.WHOLE
    for ending in ("q_b_proj.weight", "kv_b_proj.weight"):
        assert named(layout, ending).split is Split.ROWS
    assert named(layout, "kv_a_proj_with_mqa.weight").rows == 512 + 64


def test_null_rank_means_uncompressed_queries() -> None:
    """DeepSeek V2 Lite says `q_lora_rank: null`, while its class has a default for it."""
    layout = told({**DEEPSEEK_V3, "model_type": "deepseek_v2", "q_lora_rank": None})
    assert named(layout, "self_attn.q_proj.weight").rows == 128 * (128 + 64)


def test_draft_layers_are_told_but_not_counted() -> None:
    with_drafts, without = told(DEEPSEEK_V3), told({**DEEPSEEK_V3, "num_nextn_predict_layers": 0})
    assert with_drafts.parameters == without.parameters
    assert not without.drafts
    names = {tensor.name for tensor in with_drafts.drafts}
    assert "model.layers.61.eh_proj.weight" in names and "model.layers.61.mlp.experts.0.up_proj.weight" in names
    sparse = next(block for block in without.blocks if len(block.layers) == 58)
    around = 2 * 7168 * 7168 + 3 * 7168  # a projection of both inputs, their norms and the one before the output
    assert sum(tensor.elements for tensor in with_drafts.drafts) == sparse.elements // 58 + around


def test_first_layers_are_dense() -> None:
    blocks = {len(block.layers): block for block in told(DEEPSEEK_V3).blocks}
    assert blocks[3].layers == (0, 1, 2)
    assert not any(tensor.kind is Kind.EXPERT for tensor in blocks[3].tensors)
    assert any(tensor.kind is Kind.EXPERT for tensor in blocks[58].tensors)


def test_a_list_of_layers_wins_over_a_count_and_may_be_longer() -> None:
    listed = {**DEEPSEEK_V3, "mlp_layer_types": ["dense"] * 5 + ["sparse"] * 57}
    assert {len(block.layers) for block in told(listed).blocks} == {5, 56}


def test_every_second_layer_is_sparse_but_those_named() -> None:
    layout = told({**QWEN3_MOE, "decoder_sparse_step": 2, "mlp_only_layers": [1, 3]})
    sparse = [block for block in layout.blocks if any(tensor.kind is Kind.EXPERT for tensor in block.tensors)]
    assert [block.layers[0] for block in sparse] == [5]
    assert len(sparse[0].layers) == 22


def test_tied_embedding_counts_once() -> None:
    tied, own = told(QWEN3_SMALL), told({**QWEN3_SMALL, "tie_word_embeddings": False})
    assert tied.tied and not own.tied
    assert own.parameters - tied.parameters == 151936 * 1024


@pytest.mark.parametrize(
    ("architecture", "labels", "rows"),
    [
        ("LlamaForSequenceClassification", {"0": "bad", "1": "so", "2": "good"}, 3),
        ("LlamaForSequenceClassification", None, 2),
    ],
)
def test_scores_instead_of_a_vocabulary(architecture: str, labels: dict[str, str] | None, rows: int) -> None:
    layout = told({**LLAMA_8B, "architectures": [architecture], "id2label": labels})
    assert layout.parameters == 8_030_261_248 - 128256 * 4096 + rows * 4096


def test_nothing_after_the_last_norm_of_an_embedding_model() -> None:
    layout = told({**LLAMA_8B, "architectures": ["LlamaModel"]})
    assert layout.parameters == 8_030_261_248 - 128256 * 4096


def test_sizes_that_a_class_derives_follow_the_configuration() -> None:
    """Llama 13B of 2023 says neither `num_key_value_heads` nor `head_dim`; its class's defaults are those of 7B."""
    config = {
        "model_type": "llama", "hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 40,
        "num_attention_heads": 40, "vocab_size": 32000, "tie_word_embeddings": False,
    }  # fmt: skip
    assert told(config).parameters == 13_015_864_320
    assert told({**config, "num_key_value_heads": None, "head_dim": None}).parameters == 13_015_864_320


def test_sizes_that_a_class_fixes_stay() -> None:
    """Qwen3's heads are 128 wide whatever the hidden size."""
    silent = {name: value for name, value in QWEN3_SMALL.items() if name != "head_dim"}
    assert told(silent).parameters == 596_049_920


def test_what_the_configuration_leaves_to_its_class_is_told() -> None:
    assert told(LLAMA_8B).guessed == ()
    silent = {name: value for name, value in LLAMA_8B.items() if name != "hidden_size"}
    assert told(silent).guessed == ("hidden_size",)


def test_borrowing_layers_have_no_keys_and_values() -> None:
    config = {"model_type": "gemma4_text", "num_hidden_layers": 12, "num_kv_shared_layers": 5, "hidden_size": 2304}
    layout = told(config)
    rich = [block for block in layout.blocks if any(".k_proj." in tensor.name for tensor in block.tensors)]
    assert sorted(index for block in rich for index in block.layers) == list(range(7))


def test_thinned_layers_lack_what_was_taken() -> None:
    block = {"attention": {"n_heads_in_group": 4}, "ffn": {"ffn_mult": 1.5}}
    gone = {"attention": {"no_op": True}, "ffn": {"replace_with_linear": True}}
    config = {
        "model_type": "nemotron-nas", "hidden_size": 1024, "num_attention_heads": 16, "num_hidden_layers": 2,
        "vocab_size": 1000, "block_configs": [block, gone], "tie_word_embeddings": False,
    }  # fmt: skip
    first = 1024 * (2 * 1024 + 2 * 256) + 3 * 1024 * 1024 + 2 * 1024
    second = 1024 * 1024 + 1024
    assert told(config).parameters == 2 * 1000 * 1024 + first + second + 1024


def test_a_wrapper_moves_the_names() -> None:
    layout = moved(told(LLAMA_8B), "model.language_model.")
    assert layout.first[0].name == "model.language_model.embed_tokens.weight"
    assert layout.blocks[0].tensors[0].name.startswith("model.language_model.layers.{}.")
    assert layout.last[-1].name == "lm_head.weight"
    assert layout.parameters == 8_030_261_248


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"num_hidden_layers": 0}, "num_hidden_layers"),
        ({"num_hidden_layers": 10**12}, "num_hidden_layers"),
        ({"num_hidden_layers": 5000}, "num_hidden_layers"),
        ({"num_attention_heads": 0}, "num_attention_heads"),
        ({"num_attention_heads": 33, "num_key_value_heads": None}, "num_attention_heads"),
        ({"num_key_value_heads": 0}, "num_key_value_heads"),
        ({"num_key_value_heads": 5}, "num_key_value_heads"),
        ({"num_key_value_heads": 64}, "num_key_value_heads"),
        ({"head_dim": 0}, "head_dim"),
        ({"hidden_size": -4096}, "hidden_size"),
        ({"hidden_size": "wide"}, "hidden_size"),
        ({"vocab_size": 0}, "vocab_size"),
        ({"intermediate_size": 1.5}, "intermediate_size"),
        ({"model_type": "qwen3_moe", "num_experts": 0, "mlp_layer_types": None}, None),
        ({"model_type": "mixtral", "num_local_experts": 0}, "num_local_experts"),
        ({"model_type": "deepseek_v3", "mlp_layer_types": ["dense"]}, "mlp_layer_types"),
        ({"model_type": "deepseek_v3", "kv_lora_rank": 0}, "kv_lora_rank"),
        ({"model_type": "deepseek_v4", "compress_ratios": [3] * 32}, "compress_ratios"),
        ({"model_type": "nemotron-nas", "block_configs": []}, "block_configs"),
        ({"model_type": "gemma4_text", "num_kv_shared_layers": 40}, "num_kv_shared_layers"),
    ],
)
def test_a_contradiction_names_its_field(changes: dict[str, Any], param: str | None) -> None:
    config = {**LLAMA_8B, **changes}
    if param is None:
        assert told(config).parameters > 0
        return
    with pytest.raises(BadRequest) as caught:
        layout_of(config)
    assert caught.value.code == "bad_config"
    assert caught.value.param == param
    assert caught.value.message.startswith("cannot ")


# These have no number of experts by default, and are no models without one.
@pytest.mark.parametrize(
    "model_type", sorted(decoders.FAMILIES.keys() & class_defaults().keys() - {"dots1", "diffusion_gemma_text"})
)
def test_class_defaults_make_a_model(model_type: str) -> None:
    layout = told({**class_defaults()[model_type], "model_type": model_type})
    assert layout.parameters > 0
    indices = sorted(index for block in layout.blocks for index in block.layers)
    assert indices == list(range(layout.layers))
    for tensor, _ in layout.walk():
        assert tensor.rows > 0 and tensor.columns > 0 and tensor.copies > 0, tensor
        assert tensor.split is not Split.HEADS or tensor.rows % tensor.heads == 0, tensor
        assert tensor.kind is not Kind.EXPERT or tensor.split in (Split.ROWS, Split.COLUMNS), tensor


def test_mutilated_configurations_are_refused_or_read_but_never_crash() -> None:
    values: list[Any] = [0, -1, 1, 3, 10**12, 10**30, 1.5, float("nan"), None, True, "x", "", [], [1], [[1]], ["a"]]
    values += [{}, {"a": 1}, [0] * 99]
    chance = random.Random(7)
    configs = [{**class_defaults().get(name, {}), "model_type": name} for name in sorted(decoders.FAMILIES)]
    for config in configs * 25:
        names = [name for name in config if name != "model_type"]
        changes = {
            name: chance.choice(values) for name in chance.sample(names, min(len(names), chance.choice((1, 1, 2))))
        }
        try:
            layout = layout_of({**config, **changes})
        except BadRequest as error:
            assert error.param, changes
        else:
            assert layout is not None and layout.parameters > 0, changes


def test_dspark_drafts_with_three_layers_that_the_checkpoint_brings() -> None:
    plain = told(DEEPSEEK_V4)
    dspark = told({**DEEPSEEK_V4, "dspark_target_layer_ids": [10, 20, 40], "dspark_markov_rank": 256})
    assert dspark.parameters == plain.parameters, "drafts are no parameters of the model"
    layers = {tensor.name.split(".")[2] for tensor in dspark.drafts if ".layers." in tensor.name}
    assert layers == {"43", "44", "45"}
    names = {tensor.name: tensor for tensor in dspark.drafts}
    assert names["model.dspark.main_proj.weight"].elements == 3 * 4096 * 4096
    assert names["model.dspark.markov_head.markov_w1.weight"].elements == 129280 * 256
    with pytest.raises(BadRequest, match="1000 draft layers"):
        told({**DEEPSEEK_V4, "dspark_target_layer_ids": [1], "n_mtp_layers": 1000})
