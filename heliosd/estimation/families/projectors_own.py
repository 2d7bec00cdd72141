"""Projectors of models that have a tower of their own."""

from heliosd.estimation.families import vision
from heliosd.estimation.families.sizes import positive
from heliosd.estimation.families.vision_blocks import (
    Tensors,
    attention,
    convolution,
    depth_of,
    feed_forward,
    gated,
    joint_attention,
    layer_norm,
    repeated,
    table,
    weights,
    width_of,
)
from heliosd.estimation.families.vision_language import language_of, needed
from heliosd.estimation.families.vision_others import sam, sam_neck
from heliosd.estimation.families.vision_qwen import merged, merger
from heliosd.estimation.fields import Fields
from heliosd.estimation.layout import Tensor, linear, norm

TOWER = "vision_tower"
PROJECTOR = "multi_modal_projector"
_LINEARS = ("linear_1", "linear_2")


def idefics2(fields: Fields, text: int) -> Tensors:
    """A gated projection to the language model's width, then a perceiver that keeps a few latent tokens."""
    seen = needed(fields, "vision_config", "idefics2_vision")
    perceiver = needed(fields, "perceiver_config", "idefics2_perceiver")
    inner = positive(language_of(fields), "intermediate_size")
    head = positive(perceiver, "resampler_head_dim")
    heads, shared = positive(perceiver, "resampler_n_heads"), positive(perceiver, "num_key_value_heads")
    resampler = "connector.perceiver_resampler"
    layer = f"{resampler}.layers.{{}}"
    names = ("q_proj", "k_proj", "v_proj", "o_proj")
    return (
        *vision.tower(seen, "vision_model"),
        *gated("connector.modality_projection", width_of(seen), inner, out=text),
        weights(f"{resampler}.latents", positive(perceiver, "resampler_n_latents"), text),
        *repeated(
            depth_of(perceiver, "resampler_depth"),
            norm(f"{layer}.input_latents_norm", text),
            norm(f"{layer}.input_context_norm", text),
            attention(f"{layer}.self_attn", text, inner=heads * head, shared=shared * head, names=names, bias=False),
            norm(f"{layer}.post_attention_layernorm", text),
            gated(f"{layer}.mlp", text, 4 * text),
        ),
        *norm(f"{resampler}.norm", text),
    )


def idefics3(fields: Fields, text: int) -> Tensors:
    """Neighbours side by side through one matrix: Idefics 3, SmolVLM."""
    seen = needed(fields, "vision_config", fallback="idefics3_vision")
    if seen.model_type not in ("idefics3_vision", "smolvlm_vision"):
        seen = seen.changed(model_type="idefics3_vision")
    wide = width_of(seen) * positive(fields, "scale_factor", default=2) ** 2
    return (
        *vision.tower(seen, "vision_model"),
        *linear("connector.modality_projection.proj", text, wide),
    )


def aria(fields: Fields, text: int) -> Tensors:
    """Queries that attend to the patches, one for each of at most `max_value_projector_patch_to_query_dict`."""
    seen = needed(fields, "vision_config", fallback="idefics3_vision")
    if seen.model_type not in vision.TOWERS:
        seen = seen.changed(model_type="idefics3_vision")
    width = width_of(seen)
    queries = positive(fields, "max_value_projector_patch_to_query_dict", default=256)
    cross = f"{PROJECTOR}.cross_attn"
    return (
        *vision.tower(seen, TOWER),
        weights(f"{PROJECTOR}.query", queries, width),
        *linear(f"{cross}.q_proj", width, width),
        *linear(f"{cross}.k_proj", width, width),
        *linear(f"{cross}.v_proj", width, width),
        *joint_attention(f"{cross}.multihead_attn", width),
        *linear(f"{cross}.linear", width, width, bias=True),
        *layer_norm(f"{cross}.layer_norm", width),
        *layer_norm(f"{cross}.layer_norm_kv", width),
        *layer_norm(f"{PROJECTOR}.layer_norm", width),
        *feed_forward(
            f"{PROJECTOR}.feed_forward", width, text, names=("linear_in", "linear_out"), out=text, bias=False
        ),
    )


def kimi(fields: Fields, text: int) -> Tensors:
    """Kimi-VL, K2.5 and K3: MoonViT, neighbours side by side, two layers. Its published sizes begin with `vt_`."""
    seen = needed(fields, "vision_config", "kimi_k25_vision")
    named = {
        ours: seen.explicit(theirs)
        for ours, theirs in (
            ("hidden_size", "vt_hidden_size"),
            ("intermediate_size", "vt_intermediate_size"),
            ("num_hidden_layers", "vt_num_hidden_layers"),
            ("num_attention_heads", "vt_num_attention_heads"),
        )
        if seen.explicit(theirs) is not None
    }
    seen = seen.changed(**named)
    kernel = seen.items("merge_kernel_size") or [2, 2]
    wide = width_of(seen)
    for length in kernel:
        wide *= positive(Fields({"merge_kernel_size": length}), "merge_kernel_size")
    width = width_of(seen)
    names = ("proj.0", "proj.2")
    if seen.text("mm_projector_type") == "patchmergerv2":
        return (
            *vision.tower(seen, TOWER),
            *norm("mm_projector.pre_norm", width),
            *feed_forward("mm_projector", wide, wide, names=names, out=text, bias=False),
            *norm("mm_projector.post_norm", text),
        )
    return (
        *vision.tower(seen, TOWER),
        *layer_norm("mm_projector.pre_norm", positive(fields, "projection_hidden_size", default=width)),
        *merger("mm_projector", wide, text, names),
    )


def minimax(fields: Fields, text: int) -> Tensors:
    """Each patch to the language model's width, then neighbours fused by another two layers."""
    seen = needed(fields, "vision_config", "minimax_m3_vl_vision")
    inner = positive(fields, "projector_hidden_size", default=text)
    wide = positive(fields, "merged_hidden_size", default=merged(seen, text))
    return (
        *vision.tower(seen, f"{TOWER}.vision_model"),
        *feed_forward(PROJECTOR, width_of(seen), inner, names=_LINEARS, out=text),
        *feed_forward("patch_merge_mlp", wide, inner, names=_LINEARS, out=text),
    )


def ovis2(fields: Fields, text: int) -> Tensors:
    """A table of visual words instead of a projector."""
    seen = needed(fields, "vision_config", "ovis2")
    words = positive(seen, "vocab_size", default=16384)
    out = positive(fields, "hidden_size", default=text)
    return (*vision.tower(seen, TOWER), table("visual_embeddings_table", words, out))


def got_ocr2(fields: Fields, text: int) -> Tensors:
    seen = needed(fields, "vision_config", "got_ocr2_vision")
    channels = positive(seen, "output_channels", default=256)
    return (
        *sam(seen, TOWER),
        *convolution(f"{PROJECTOR}.conv_upsampler1", 2 * channels, channels, 9, bias=False),
        *convolution(f"{PROJECTOR}.conv_upsampler2", text, 2 * channels, 9, bias=False),
        *linear(f"{PROJECTOR}.multimodal_projector", text, text, bias=True),
    )


def deepseek_vl(fields: Fields, text: int) -> Tensors:
    seen = needed(fields, "vision_config", fallback="siglip_vision_model")
    return (
        *vision.tower(seen, "vision_model"),
        *feed_forward("aligner", width_of(seen), text, names=("linear1", "linear2"), out=text),
    )


def deepseek_vl_hybrid(fields: Fields, text: int) -> Tensors:
    """SigLIP for the whole and SAM for the details; each gives half of the features."""
    seen = needed(fields, "vision_config", fallback="siglip_vision_model")
    fine = needed(fields, "high_res_vision_config", "sam_vision_model")
    channels = positive(fine, "output_channels", default=256)
    half = text // 2
    return (
        Tensor("high_res_vision_alpha", 1),
        *sam(fine, "high_res_vision_model.vision_encoder"),
        *sam_neck("high_res_vision_neck", width_of(fine), channels),
        *convolution("high_res_vision_proj.conv1", 2 * channels, channels, 9, bias=False),
        *convolution("high_res_vision_proj.conv2", 4 * channels, 2 * channels, 9, bias=False),
        *vision.tower(seen, "vision_model"),
        *linear("aligner.vision_proj", half, width_of(seen), bias=True),
        *linear("aligner.high_res_vision_proj", half, 4 * channels, bias=True),
        *linear("aligner.proj", text, text, bias=True),
    )


def paddleocr(fields: Fields, text: int) -> Tensors:
    seen = needed(fields, "vision_config", "paddleocr_vl_vision")
    width = width_of(seen)
    return (
        *vision.tower(seen, "visual.vision_model"),
        *layer_norm("mlp_AR.pre_norm", width),
        *merger("mlp_AR", merged(seen, width), text, _LINEARS),
    )


def ernie(fields: Fields, text: int) -> Tensors:
    """Neighbours in space, then in time, each through two layers with a norm."""
    seen = needed(fields, "vision_config", "ernie4_5_vl_moe_vision")
    wide = merged(seen, width_of(seen))
    longer = wide * positive(seen, "temporal_merge_size", default=2)
    stem = "model.resampler_model"
    return (
        *vision.tower(seen, "vision_model"),
        *merger(f"{stem}.spatial_linear", wide, wide, ("0", "2")),
        *layer_norm(f"{stem}.spatial_linear.3", wide),
        *feed_forward(f"{stem}.temporal_linear", longer, wide, names=("0", "2"), out=wide),
        *layer_norm(f"{stem}.temporal_linear.3", wide),
        *linear(f"{stem}.mlp", text, wide, bias=True),
        *norm(f"{stem}.after_norm", text),
    )


def minicpmv(fields: Fields, text: int) -> Tensors:
    """A merger inside the tower and `merger_times` behind it, each of four neighbours."""
    seen = needed(fields, "vision_config", fallback="minicpmv4_6_vision")
    width, inner = width_of(seen), positive(seen, "intermediate_size")
    window = 1
    for length in seen.items("window_kernel_size") or [2, 2]:
        window *= positive(Fields({"window_kernel_size": length}), "window_kernel_size")
    inside = f"{TOWER}.vit_merger"
    times = positive(fields, "merger_times", default=1)
    step = "merger.mlp.{}"
    wide = 4 * width
    normed = layer_norm(f"{step}.pre_norm", wide)
    return (
        *vision.tower(seen, TOWER),
        *attention(f"{inside}.self_attn", width),
        *layer_norm(f"{inside}.layer_norm1", width),
        *layer_norm(f"{inside}.pre_norm", window * width),
        *feed_forward(inside, window * width, window * inner, names=_LINEARS, out=width),
        *repeated(times - 1, normed, merger(step, wide, width, _LINEARS)),
        *normed,
        *merger(step, wide, text, _LINEARS),
    )


def muse(fields: Fields, text: int) -> Tensors:
    seen = needed(fields, "vision_config", "muse_glimmer_vision")
    inner = positive(fields, "projector_hidden_size")
    return (
        *vision.tower(seen, TOWER),
        *feed_forward("vision_adapter", positive(fields, "out_hidden_size"), inner, out=inner, bias=False),
        *linear("vision_projection", text, inner),
    )


def cosmos_edge(fields: Fields, text: int) -> Tensors:
    seen = needed(fields, "vision_config", "cosmos3_edge_vision")
    width = width_of(seen)
    inner = positive(fields, "projector_hidden_size")
    return (
        *vision.tower(seen, "visual"),
        *layer_norm("projector.norm", width),
        *feed_forward("projector", merged(seen, width), inner, names=("linear_fc1", "linear_fc2"), out=text),
    )


def step(fields: Fields, text: int) -> Tensors:
    seen = needed(fields, "vision_config", "step3p5_vision")
    return (
        *vision.tower(seen, "vision_model"),
        *linear("vit_large_projector", text, 4 * width_of(seen), bias=fields.flag("projector_bias")),
    )


def video_llama(fields: Fields, text: int) -> Tensors:
    seen = needed(fields, "vision_config", "video_llama_3_vision")
    return (
        *vision.tower(seen, "vision_model"),
        *feed_forward("projector.readout", width_of(seen), text, names=("0", "2"), out=text),
    )


def llama4(fields: Fields, text: int) -> Tensors:
    seen = needed(fields, "vision_config", "llama4_vision_model")
    said = seen.explicit("vision_output_dim") is not None
    wide = positive(seen, "vision_output_dim" if said else "projector_output_dim", default=4096)
    return (*vision.tower(seen, "vision_model"), *linear(f"{PROJECTOR}.linear_1", text, wide))


def mllama(fields: Fields, text: int) -> Tensors:
    """The features of the last and of several earlier layers side by side."""
    seen = needed(fields, "vision_config", "mllama_vision_model")
    layers = len(seen.items("intermediate_layers_indices")) or 5
    said = seen.explicit("vision_output_dim") is not None
    wide = positive(seen, "vision_output_dim") if said else width_of(seen) * (layers + 1)
    return (*vision.tower(seen, "vision_model"), *linear(PROJECTOR, text, wide, bias=True))


def hyperclovax(fields: Fields, text: int) -> Tensors:
    seen = needed(fields, "vision_config", fallback="qwen2_5_vl_vision")
    return (
        *vision.tower(seen, "vision_model"),
        *linear("mm_projector", text, positive(seen, "out_hidden_size"), bias=True),
    )
