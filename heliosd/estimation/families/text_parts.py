"""Language parts of models with several modalities that are a known decoder under another `model_type`.

A wrapper calls the family of its inner configuration with `Head.NONE`, or moves the whole layout with `moved`.
"""

from collections.abc import Mapping
from dataclasses import replace

from heliosd.estimation.families.choice import one_dense, stepped
from heliosd.estimation.families.dense import FUSED_GATE, LLAMA, QWEN2, QWEN3
from heliosd.estimation.families.family import Family
from heliosd.estimation.families.sparse import DEEPSEEK, NARROW, rounded_heads
from heliosd.estimation.families.standard import Sparse, Standard

QWEN3_MOE = Standard(mlp_bias=False, qk_norm="head", sparse=Sparse(width=NARROW), kinds=stepped)

FAMILIES: Mapping[str, Family] = {
    "cohere_compass_text": Standard(mlp_bias=False, norms=("input_layernorm",)),
    "deepseek_ocr2_text": Standard(mlp_bias=False, sparse=DEEPSEEK, kinds=one_dense),
    "emu3_text_model": LLAMA,
    "glm_image_text": Standard(
        out_bias=False,
        mlp_bias=False,
        mlp_names=FUSED_GATE,
        norms=("input_layernorm", "post_attention_layernorm", "post_self_attn_layernorm", "post_mlp_layernorm"),
    ),
    "granite4_vision_text": LLAMA,
    "hunyuan_vl_text": Standard(mlp_bias=False, qk_norm="head", qk_norm_names=("query_layernorm", "key_layernorm")),
    "paddleocr_vl_text": Standard(qkv_bias="use_bias", out_bias="use_bias", mlp_bias="use_bias"),
    "qwen2_5_omni_text": QWEN2,
    "qwen2_5_vl_text": QWEN2,
    "qwen2_vl_text": QWEN2,
    "qwen3_omni_moe_text": replace(QWEN3_MOE, sizes=rounded_heads),
    "qwen3_vl_moe_text": QWEN3_MOE,
    "qwen3_vl_text": QWEN3,
}
