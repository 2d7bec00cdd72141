"""Encoders' and encoder-decoders' layouts against `transformers` where sizes, heads, switches and tying vary."""

from typing import Any

import pytest

from heliosd.estimation.families.registry import layout_of
from tests.estimation.architectures import Architecture, instantiate, parameters

pytestmark = pytest.mark.slow

BERT = {
    "vocab_size": 1000, "hidden_size": 96, "num_hidden_layers": 3, "num_attention_heads": 6, "intermediate_size": 200,
    "max_position_embeddings": 77, "pad_token_id": 0, "type_vocab_size": 3,
}  # fmt: skip
MODERN = {**BERT, "sep_token_id": 1, "cls_token_id": 1, "eos_token_id": 1, "bos_token_id": 1}
BART = {
    "vocab_size": 1000, "d_model": 96, "encoder_layers": 2, "decoder_layers": 3, "encoder_attention_heads": 4,
    "decoder_attention_heads": 6, "encoder_ffn_dim": 150, "decoder_ffn_dim": 170, "max_position_embeddings": 60,
    "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 1, "bos_token_id": 2, "forced_eos_token_id": 1,
}  # fmt: skip
T5 = {"vocab_size": 1000, "d_model": 96, "d_kv": 20, "d_ff": 130, "num_layers": 3, "num_heads": 4}
CROSSED = {"is_decoder": True, "add_cross_attention": True}
UNTIED = {"tie_word_embeddings": False}
DISENTANGLED = {
    "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False, "type_vocab_size": 0,
}  # fmt: skip
GEMMA = {
    "vocab_size": 1000, "hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 6, "num_key_value_heads": 2,
    "head_dim": 24, "intermediate_size": 150, "pad_token_id": 0, "attention_bias": True,
}  # fmt: skip

VARIED: list[tuple[str, str, dict[str, Any]]] = [
    ("bert", "BertModel", {**BERT}),
    ("bert", "BertForMaskedLM", {**BERT, **UNTIED}),
    ("bert", "BertLMHeadModel", {**BERT, **CROSSED}),
    ("bert", "BertForTokenClassification", {**BERT, "num_labels": 7}),
    ("bert", "BertForQuestionAnswering", {**BERT}),
    ("bert", "BertForPreTraining", {**BERT, **UNTIED}),
    ("electra", "ElectraForPreTraining", {**BERT}),
    ("bert-generation", "BertGenerationEncoder", {**BERT}),
    ("modernbert", "ModernBertForTokenClassification", {**MODERN, "num_labels": 3}),
    ("bert", "BertForSequenceClassification", {**BERT, "num_labels": 1}),
    ("ernie", "ErnieModel", {**BERT, "use_task_id": True, "task_type_vocab_size": 5}),
    ("roberta", "RobertaForCausalLM", {**BERT, **CROSSED, **UNTIED}),
    ("xlm-roberta", "XLMRobertaForSequenceClassification", {**BERT, "num_labels": 5}),
    ("camembert", "CamembertForTokenClassification", {**BERT, "num_labels": 9}),
    ("xlm-roberta-xl", "XLMRobertaXLForCausalLM", {**BERT, **CROSSED}),
    ("roberta-prelayernorm", "RobertaPreLayerNormForCausalLM", {**BERT, **CROSSED}),
    ("megatron-bert", "MegatronBertForCausalLM", {**BERT, **CROSSED, **UNTIED}),
    ("electra", "ElectraForMaskedLM", {**BERT, "embedding_size": 48, **UNTIED}),
    ("electra", "ElectraModel", {**BERT, "embedding_size": 96}),
    ("roformer", "RoFormerForMaskedLM", {**BERT, "embedding_size": 48}),
    ("xmod", "XmodModel", {**BERT, "languages": ["de_DE", "fr_FR"], "pre_norm": True, "adapter_layer_norm": True}),
    ("big_bird", "BigBirdForMaskedLM", {**BERT, "use_bias": False, "attention_type": "original_full"}),
    ("longformer", "LongformerModel", {**BERT, "attention_window": 16}),
    ("nystromformer", "NystromformerModel", {**BERT, "conv_kernel_size": 5}),
    ("mpnet", "MPNetForMaskedLM", {**{k: v for k, v in BERT.items() if k != "type_vocab_size"}, **UNTIED}),
    ("rembert", "RemBertForMaskedLM", {**BERT, "input_embedding_size": 40, "output_embedding_size": 70}),
    ("deberta", "DebertaForMaskedLM", {**BERT, **DISENTANGLED, "talking_head": True}),
    ("deberta-v2", "DebertaV2ForSequenceClassification",
     {**BERT, **DISENTANGLED, "position_buckets": 16, "norm_rel_ebd": "layer_norm", "share_att_key": True,
      "conv_kernel_size": 3, "num_labels": 3}),
    ("deberta-v2", "DebertaV2ForMaskedLM", {**BERT, **DISENTANGLED, "max_relative_positions": 40, **UNTIED}),
    ("albert", "AlbertForMaskedLM", {**BERT, "embedding_size": 32, "num_hidden_groups": 2, "inner_group_num": 2}),
    ("distilbert", "DistilBertForSequenceClassification",
     {"vocab_size": 1000, "dim": 96, "hidden_dim": 200, "n_layers": 2, "n_heads": 6, "num_labels": 4}),
    ("mobilebert", "MobileBertForMaskedLM",
     {**BERT, "embedding_size": 32, "intra_bottleneck_size": 48, "trigram_input": False, "num_feedforward_networks": 2,
      "key_query_shared_bottleneck": False}),
    ("squeezebert", "SqueezeBertModel", {**BERT, "embedding_size": 96, "q_groups": 2, "output_groups": 1}),
    ("convbert", "ConvBertForMaskedLM", {**BERT, "embedding_size": 48, "head_ratio": 3, "conv_kernel_size": 5}),
    ("convbert", "ConvBertModel", {**BERT, "embedding_size": 96, "num_groups": 2}),
    ("esm", "EsmForMaskedLM", {**BERT, "position_embedding_type": "rotary", "emb_layer_norm_before": True}),
    ("esm", "EsmForSequenceClassification", {**BERT, "num_labels": 3}),
    ("modernbert", "ModernBertForMaskedLM",
     {**MODERN, "norm_bias": True, "mlp_bias": True, "attention_bias": True, "classifier_bias": True,
      "decoder_bias": False, **UNTIED}),
    ("nomic_bert", "NomicBertModel", {**BERT, "head_dim": 20}),
    ("gte", "GteForMaskedLM", {**BERT, "type_vocab_size": 0, **UNTIED}),
    ("eurobert", "EuroBertForSequenceClassification",
     {**BERT, "num_key_value_heads": 2, "head_dim": 20, "attention_bias": True, "mlp_bias": True, "num_labels": 3}),
    ("esmc", "EsmcForMaskedLM", {**BERT, "num_key_value_heads": 6, "mlp_bias": True}),
    ("xlm", "XLMForSequenceClassification",
     {"vocab_size": 1000, "emb_dim": 96, "n_layers": 2, "n_heads": 6, "n_langs": 3, "num_labels": 4}),
    ("xlnet", "XLNetForSequenceClassification",
     {"vocab_size": 1000, "d_model": 96, "n_layer": 2, "n_head": 6, "d_head": 16, "d_inner": 100, "num_labels": 5}),
    ("funnel", "FunnelModel", {"vocab_size": 1000, "block_sizes": [1, 2], "d_model": 96, "n_head": 3, "d_head": 20}),
    ("luke", "LukeForMaskedLM",
     {**BERT, "entity_vocab_size": 300, "entity_emb_size": 40, "use_entity_aware_attention": False, **UNTIED}),
    ("lilt", "LiltModel", {**BERT, "channel_shrink_ratio": 2}),
    ("reformer", "ReformerModel",
     {"vocab_size": 1000, "hidden_size": 96, "attn_layers": ["lsh", "local", "lsh"], "axial_pos_embds_dim": [32, 64],
      "axial_pos_shape": [4, 8], "num_attention_heads": 3, "attention_head_size": 20, "feed_forward_size": 70}),
    ("perceiver", "PerceiverForMaskedLM",
     {"vocab_size": 1000, "d_model": 96, "d_latents": 64, "num_latents": 12, "num_self_attends_per_block": 3,
      "self_attention_widening_factor": 2}),
    ("neomme", "NeoMMEForMaskedLM",
     {**GEMMA, "head_dim": 32, "embedding_rank": 20, "patch_size": 8, "mlp_bias": True, "per_layer_config": {},
      "layer_types": ["full_attention"] * 2, **UNTIED}),
    ("bart", "BartForConditionalGeneration", {**BART, **UNTIED}),
    ("bart", "BartForCausalLM", {**BART, **UNTIED}),
    ("bart", "BartForSequenceClassification", {**BART, "num_labels": 4}),
    ("bart", "BartForQuestionAnswering", {**BART}),
    ("mbart", "MBartModel", {**BART}),
    ("bigbird_pegasus", "BigBirdPegasusForConditionalGeneration", {**BART, "use_bias": True}),
    ("bigbird_pegasus", "BigBirdPegasusForCausalLM", {**BART}),
    ("led", "LEDForConditionalGeneration",
     {**BART, "max_encoder_position_embeddings": 90, "max_decoder_position_embeddings": 50, "attention_window": 16}),
    ("marian", "MarianMTModel", {**BART, "share_encoder_decoder_embeddings": False, "decoder_vocab_size": 300}),
    ("marian", "MarianModel", {**BART, "decoder_vocab_size": 1000}),
    ("m2m_100", "M2M100ForConditionalGeneration", {**BART, **UNTIED}),
    ("nllb-moe", "NllbMoeForConditionalGeneration",
     {**BART, "num_experts": 5, "encoder_sparse_step": 2, "decoder_sparse_step": 1, "router_bias": True}),
    ("mvp", "MvpForConditionalGeneration", {**BART, "use_prompt": True, "prompt_length": 9, "prompt_mid_dim": 30}),
    ("pegasus_x", "PegasusXForConditionalGeneration", {**BART, "num_global_tokens": 7}),
    ("prophetnet", "ProphetNetForConditionalGeneration",
     {"vocab_size": 1000, "hidden_size": 96, "num_encoder_layers": 2, "num_decoder_layers": 3, "ngram": 3,
      "num_encoder_attention_heads": 4, "num_decoder_attention_heads": 6, "num_buckets": 8, "pad_token_id": 0,
      **UNTIED}),
    ("t5", "T5ForConditionalGeneration", {**T5, "feed_forward_proj": "gated-gelu", "num_decoder_layers": 2}),
    ("t5", "T5EncoderModel", {**T5}),
    ("mt5", "MT5ForSequenceClassification", {**T5, "num_labels": 5}),
    ("umt5", "UMT5ForConditionalGeneration", {**T5, "relative_attention_num_buckets": 12}),
    ("longt5", "LongT5ForConditionalGeneration", {**T5, "encoder_attention_type": "transient-global"}),
    ("switch_transformers", "SwitchTransformersForConditionalGeneration",
     {**T5, "num_experts": 3, "num_sparse_encoder_layers": 3, "num_sparse_decoder_layers": 1, "num_decoder_layers": 4,
      **UNTIED}),
    ("t5gemma", "T5GemmaForConditionalGeneration",
     {"encoder": {**GEMMA, "hidden_size": 48}, "decoder": GEMMA, "vocab_size": 1000, **UNTIED}),
    ("t5gemma", "T5GemmaForSequenceClassification", {"encoder": GEMMA, "decoder": GEMMA, "num_labels": 3}),
]  # fmt: skip


@pytest.mark.parametrize(("model_type", "name", "changes"), VARIED)
def test_a_varied_encoder_is_counted_exactly(model_type: str, name: str, changes: dict[str, Any]) -> None:
    config, model = instantiate(Architecture("masked", model_type, name), **changes)
    layout = layout_of(config)
    assert layout is not None, f"no family knows {model_type}"
    assert layout.parameters == parameters(model)
