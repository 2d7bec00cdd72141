"""Encoders: published models' counts, heads by the architecture's name, tying, splits, contradictions."""

from typing import Any

import pytest

from heliosd.errors import BadRequest
from heliosd.estimation.families.encoders import FAMILIES
from heliosd.estimation.families.registry import layout_of
from heliosd.estimation.layout import Kind, Layout, Split

BGE_SMALL = {
    "model_type": "bert", "hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 12,
    "intermediate_size": 1536, "vocab_size": 30522,
}  # fmt: skip
E5_LARGE = {
    "model_type": "xlm-roberta", "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16,
    "intermediate_size": 4096, "vocab_size": 250002, "max_position_embeddings": 514, "type_vocab_size": 1,
}  # fmt: skip
GRANITE_311M = {
    "model_type": "modernbert", "hidden_size": 768, "num_hidden_layers": 22, "intermediate_size": 1152,
    "vocab_size": 262152,
}  # fmt: skip
DEBERTA_V3_BASE = {
    "model_type": "deberta-v2", "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
    "intermediate_size": 3072, "vocab_size": 128100, "max_position_embeddings": 512, "type_vocab_size": 0,
    "relative_attention": True, "position_buckets": 256, "norm_rel_ebd": "layer_norm", "share_att_key": True,
    "pos_att_type": "p2c|c2p", "position_biased_input": False,
}  # fmt: skip


def laid_out(config: dict[str, Any], architecture: str = "") -> Layout:
    layout = layout_of({**config, "architectures": [architecture]} if architecture else config)
    assert layout is not None
    return layout


@pytest.mark.parametrize(
    ("config", "architecture", "published", "buffers"),
    [
        (BGE_SMALL, "BertModel", 33_360_512, 512),
        (E5_LARGE, "XLMRobertaModel", 559_890_432, 0),
        ({**E5_LARGE, "id2label": {"0": "score"}}, "XLMRobertaForSequenceClassification", 559_891_971, 514),
        ({"model_type": "nomic_bert"}, "NomicBertModel", 136_731_648, 0),
        (GRANITE_311M, "ModernBertModel", 311_664_384, 0),
        ({"model_type": "distilbert"}, "DistilBertModel", 66_362_880, 0),
    ],
)
def test_a_published_model_has_the_parameters_its_checkpoint_has(
    config: dict[str, Any], architecture: str, published: int, buffers: int
) -> None:
    """`buffers`: positions counted up, which old checkpoints store beside the parameters."""
    assert laid_out(config, architecture).parameters == published - buffers


def test_the_architectures_name_decides_on_poolers_and_heads() -> None:
    width, words = 384, 30522
    transformed = width * width + width + 2 * width + words
    pooler = width * width + width
    body = laid_out(BGE_SMALL, "BertModel").parameters - pooler
    assert laid_out(BGE_SMALL, "BertForMaskedLM").parameters == body + transformed
    assert laid_out(BGE_SMALL, "BertLMHeadModel").parameters == body + transformed
    scored = {**BGE_SMALL, "id2label": {"0": "a", "1": "b", "2": "c"}}
    assert laid_out(scored, "BertForSequenceClassification").parameters == body + pooler + 3 * (width + 1)
    assert laid_out(scored, "BertForTokenClassification").parameters == body + 3 * (width + 1)
    assert laid_out(BGE_SMALL, "BertForQuestionAnswering").parameters == body + 2 * (width + 1)


def test_an_untied_projection_brings_a_matrix_and_a_second_bias() -> None:
    tied = laid_out(BGE_SMALL, "BertForMaskedLM")
    free = laid_out({**BGE_SMALL, "tie_word_embeddings": False}, "BertForMaskedLM")
    assert free.parameters - tied.parameters == 30522 * (384 + 1)
    assert tied.tied
    assert not free.tied


def test_a_decoder_that_reads_an_encoder_has_cross_attention() -> None:
    crossed = laid_out({**BGE_SMALL, "is_decoder": True, "add_cross_attention": True}, "BertLMHeadModel")
    plain = laid_out({**BGE_SMALL, "is_decoder": True}, "BertLMHeadModel")
    assert crossed.parameters - plain.parameters == 12 * (4 * (384 * 384 + 384) + 2 * 384)


def test_deberta_keeps_distances_instead_of_positions() -> None:
    layout = laid_out(DEBERTA_V3_BASE, "DebertaV2Model")
    assert layout.parameters == 183_831_552
    names = {tensor.name for tensor in (*layout.first, *layout.last)}
    assert "encoder.rel_embeddings.weight" in names
    assert "embeddings.position_embeddings.weight" not in names
    as_list = {**DEBERTA_V3_BASE, "pos_att_type": ["p2c", "c2p"]}
    assert laid_out(as_list, "DebertaV2Model") == layout


def test_shared_layers_are_stored_once() -> None:
    albert = {"model_type": "albert"}
    assert laid_out({**albert, "num_hidden_layers": 24}).parameters == laid_out(albert).parameters


def test_attention_and_feed_forward_are_divided_and_norms_are_not() -> None:
    layers = laid_out(BGE_SMALL, "BertModel").blocks[0].tensors
    splits = {tensor.name.removeprefix("encoder.layer.{}."): tensor.split for tensor in layers}
    assert splits["attention.self.query.weight"] is Split.ROWS
    assert splits["attention.self.query.bias"] is Split.ROWS
    assert splits["attention.output.dense.weight"] is Split.COLUMNS
    assert splits["attention.output.dense.bias"] is Split.WHOLE
    assert splits["intermediate.dense.weight"] is Split.ROWS
    assert splits["output.dense.weight"] is Split.COLUMNS
    assert splits["output.LayerNorm.weight"] is Split.WHOLE


def test_embeddings_are_embeddings_and_projections_are_linear() -> None:
    layout = laid_out(BGE_SMALL, "BertForMaskedLM")
    assert {tensor.kind for tensor in layout.first if "embeddings.weight" in tensor.name} == {Kind.EMBEDDING}
    matrices = [tensor for block in layout.blocks for tensor in block.tensors if tensor.columns > 1]
    assert {tensor.kind for tensor in matrices} == {Kind.LINEAR}


def test_the_bodys_names_have_a_prefix_below_a_head_only() -> None:
    assert laid_out(BGE_SMALL, "BertModel").first[0].name == "embeddings.word_embeddings.weight"
    assert laid_out(BGE_SMALL, "BertForMaskedLM").first[0].name == "bert.embeddings.word_embeddings.weight"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({**BGE_SMALL, "num_attention_heads": 7}, "num_attention_heads"),
        ({**BGE_SMALL, "num_hidden_layers": 10**12}, "num_hidden_layers"),
        ({**BGE_SMALL, "vocab_size": -1}, "vocab_size"),
        ({**BGE_SMALL, "intermediate_size": "wide"}, "intermediate_size"),
        ({"model_type": "distilbert", "n_heads": 7}, "n_heads"),
        ({"model_type": "funnel", "block_sizes": []}, "block_sizes"),
        ({"model_type": "reformer", "attn_layers": [3]}, "attn_layers"),
        ({"model_type": "squeezebert", "q_groups": 5}, "q_groups"),
        ({"model_type": "esm"}, "vocab_size"),
    ],
)
def test_a_contradiction_names_its_field(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(BadRequest, match=r"^cannot ") as caught:
        layout_of(changes)
    assert (caught.value.code, caught.value.param) == ("bad_config", field)


@pytest.mark.parametrize("model_type", sorted(FAMILIES))
@pytest.mark.parametrize("ending", ["Model", "ForMaskedLM", "ForSequenceClassification"])
def test_every_family_answers_for_its_classs_defaults(model_type: str, ending: str) -> None:
    """More classes, more parameters; the vocabulary is part of every model."""
    config = {"model_type": model_type, "vocab_size": 5000}
    assert laid_out(config, f"Some{ending}").parameters > 0
    if ending == "ForSequenceClassification":
        many = {str(index): "class" for index in range(10)}
        assert laid_out({**config, "id2label": many}, f"Some{ending}").parameters >= (
            laid_out(config, f"Some{ending}").parameters
        )
