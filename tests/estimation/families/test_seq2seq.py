"""Encoder-decoders: published models' counts, which stacks an architecture has, where each is counted."""

from typing import Any

import pytest

from heliosd.errors import BadRequest
from heliosd.estimation.families.registry import layout_of
from heliosd.estimation.families.seq2seq import FAMILIES
from heliosd.estimation.layout import Kind, Layout, Split

FLAN_T5_BASE = {
    "model_type": "t5", "d_model": 768, "d_kv": 64, "d_ff": 2048, "num_layers": 12, "num_decoder_layers": 12,
    "num_heads": 12, "vocab_size": 32128, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False,
}  # fmt: skip
T5_BASE = {
    **FLAN_T5_BASE, "d_ff": 3072, "feed_forward_proj": "relu", "tie_word_embeddings": True,
}  # fmt: skip
NLLB_600M = {
    "model_type": "m2m_100", "d_model": 1024, "encoder_layers": 12, "decoder_layers": 12, "encoder_ffn_dim": 4096,
    "decoder_ffn_dim": 4096, "encoder_attention_heads": 16, "decoder_attention_heads": 16, "vocab_size": 256206,
}  # fmt: skip
T5 = "T5ForConditionalGeneration"


def laid_out(config: dict[str, Any], architecture: str = "") -> Layout:
    layout = layout_of({**config, "architectures": [architecture]} if architecture else config)
    assert layout is not None
    return layout


@pytest.mark.parametrize(
    ("config", "architecture", "published"),
    [
        (FLAN_T5_BASE, T5, 247_577_856),
        (T5_BASE, T5, 222_903_552),
        (NLLB_600M, "M2M100ForConditionalGeneration", 615_073_792),
        ({"model_type": "bart"}, "BartForConditionalGeneration", 406_291_456),
    ],
)
def test_a_published_model_has_the_parameters_its_checkpoint_has(
    config: dict[str, Any], architecture: str, published: int
) -> None:
    assert laid_out(config, architecture).parameters == published


def test_the_encoder_is_a_tower_and_the_decoder_the_layers() -> None:
    layout = laid_out(T5_BASE, T5)
    assert layout.layers == 12
    assert all("decoder.block" in tensor.name for block in layout.blocks for tensor in block.tensors)
    attention = [tensor for tensor in layout.towers if tensor.name.endswith("SelfAttention.q.weight")]
    assert sum(tensor.copies for tensor in attention) == 12


def test_an_encoder_alone_is_the_model() -> None:
    layout = laid_out(T5_BASE, "T5EncoderModel")
    assert not layout.towers
    assert layout.layers == 12
    whole = laid_out(T5_BASE, T5)
    assert layout.parameters < whole.parameters
    assert sum(tensor.elements for tensor in whole.towers) == (
        sum(block.elements for block in layout.blocks) + layout.last[0].elements
    )


def test_a_decoder_alone_keeps_its_cross_attention_and_has_no_encoder() -> None:
    layout = laid_out({"model_type": "bart"}, "BartForCausalLM")
    assert not layout.towers
    names = {tensor.name for block in layout.blocks for tensor in block.tensors}
    assert "model.decoder.layers.{}.encoder_attn.q_proj.weight" in names


def test_the_first_layer_alone_knows_distances_unless_each_does() -> None:
    def biases(model_type: str) -> int:
        layout = laid_out({**T5_BASE, "model_type": model_type})
        return sum(
            len(block.layers)
            for block in layout.blocks
            for tensor in block.tensors
            if tensor.name.endswith("relative_attention_bias.weight")
        )

    assert biases("t5") == 1
    assert biases("umt5") == 12


def test_untied_embeddings_are_stored_for_each_stack() -> None:
    tied, free = ({**NLLB_600M, "tie_word_embeddings": said} for said in (True, False))
    one = laid_out(tied, "M2M100ForConditionalGeneration")
    three = laid_out(free, "M2M100ForConditionalGeneration")
    assert three.parameters - one.parameters == 3 * 256206 * 1024
    assert one.tied
    assert not three.tied


def test_marian_has_a_projection_despite_its_name() -> None:
    config = {"model_type": "marian", "tie_word_embeddings": False}
    with_head = laid_out(config, "MarianMTModel")
    without = laid_out(config, "MarianModel")
    assert with_head.parameters - without.parameters == 58101 * 1024


def test_experts_are_counted_in_both_stacks() -> None:
    layout = laid_out({"model_type": "nllb-moe"}, "NllbMoeForConditionalGeneration")
    decoders = [tensor for block in layout.blocks for tensor in block.tensors if tensor.kind is Kind.EXPERT]
    encoders = [tensor for tensor in layout.towers if tensor.kind is Kind.EXPERT]
    assert {tensor.copies for tensor in decoders} == {128}
    assert {tensor.copies for tensor in encoders} == {3 * 128}


def test_projections_are_divided_by_rows_and_outputs_by_columns() -> None:
    splits = {
        tensor.name.split(".", 4)[-1]: tensor.split
        for block in laid_out({"model_type": "bart"}, "BartForConditionalGeneration").blocks
        for tensor in block.tensors
    }
    assert splits["self_attn.q_proj.weight"] is Split.ROWS
    assert splits["encoder_attn.out_proj.weight"] is Split.COLUMNS
    assert splits["fc2.weight"] is Split.COLUMNS
    assert splits["fc2.bias"] is Split.WHOLE


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({**NLLB_600M, "decoder_attention_heads": 7}, "decoder_attention_heads"),
        ({**NLLB_600M, "encoder_layers": 0}, "encoder_layers"),
        ({**T5_BASE, "d_kv": 0}, "d_kv"),
        ({**T5_BASE, "num_decoder_layers": 10**9}, "num_decoder_layers"),
        ({"model_type": "prophetnet", "num_decoder_attention_heads": 7}, "num_decoder_attention_heads"),
        ({"model_type": "t5gemma", "encoder": {"model_type": "t5_gemma_module", "hidden_size": 0}}, "hidden_size"),
    ],
)
def test_a_contradiction_names_its_field(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(BadRequest, match=r"^cannot ") as caught:
        layout_of(changes)
    assert (caught.value.code, caught.value.param) == ("bad_config", field)


@pytest.mark.parametrize("model_type", sorted(FAMILIES))
def test_every_family_answers_for_its_classs_defaults(model_type: str) -> None:
    words = laid_out({"model_type": model_type}, "SomeForConditionalGeneration")
    bare = laid_out({"model_type": model_type}, "SomeModel")
    assert 0 < bare.parameters <= words.parameters
