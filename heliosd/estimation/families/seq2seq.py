"""Models of an encoder and a decoder of text: T5's shape, BART's, Gemma's in two stacks, and ProphetNet."""

from collections.abc import Mapping

from heliosd.estimation.families.bart import (
    Bart,
    big_bird_attention,
    global_norm,
    global_tokens,
    longformer_attention,
    prompts,
)
from heliosd.estimation.families.family import Family
from heliosd.estimation.families.gemma_stacks import t5gemma, t5gemma2
from heliosd.estimation.families.prophetnet import prophetnet
from heliosd.estimation.families.t5 import T5

_EXPERT_NAMES = ("cross_attention", "ffn.fc1", "ffn.fc2", "ff_layer_norm")

FAMILIES: Mapping[str, Family] = {
    "t5": T5(),
    "mt5": T5(),
    "longt5": T5(),
    "umt5": T5(bias_everywhere=True),
    "switch_transformers": T5(sparse=True, separate_tables=True),
    "bart": Bart(),
    "plbart": Bart(),
    "mvp": Bart(stack_extra=prompts),
    "mbart": Bart(final_norm=True),
    "blenderbot": Bart(offset=0, embedding_norm=False, final_norm=True),
    "blenderbot-small": Bart(offset=0),
    "marian": Bart(offset=0, embedding_norm=False),
    "pegasus": Bart(offset=0, embedding_norm=False, final_norm=True),
    "pegasus_x": Bart(
        offset=None,
        embedding_norm=False,
        final_norm=True,
        bias=False,
        layer_extra=global_norm,
        stack_extra=global_tokens,
    ),
    "bigbird_pegasus": Bart(offset=0, bias="use_bias", encoder_attention=big_bird_attention, causal_head_free=True),
    "led": Bart(root="led", offset=0, encoder_attention=longformer_attention),
    "m2m_100": Bart(offset=None, embedding_norm=False, final_norm=True),
    "nllb-moe": Bart(offset=None, embedding_norm=False, final_norm=True, sparse=True, names=_EXPERT_NAMES),
    "fsmt": Bart(offset=1, offset_field="pad_token_id", embedding_norm=False, split_vocabularies=True),
    "prophetnet": prophetnet,
    "t5gemma": t5gemma,
    "t5gemma2": t5gemma2,
    "trocr": Bart(output="output_projection", decoder_only=True),
}
