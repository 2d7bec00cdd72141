"""The few sizes of a model that decide activations, graphs and tables; read from its configuration."""

from collections.abc import Mapping
from dataclasses import dataclass

from heliosd.estimation.fields import Fields

_HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_attention_heads", "encoder_attention_heads")
_LENGTH = (
    "max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length", "seq_length", "model_max_length",
    "max_target_positions", "n_ctx",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tower:
    """An encoder of images or sounds, as far as its activations go."""

    hidden: int
    intermediate: int
    patch_bytes: int
    """Input of one patch in half precision."""
    patches_per_token: int
    item_tokens: int
    """Tokens that the largest item may become."""


@dataclass(frozen=True, slots=True)
class Dimensions:
    """All zero where the configuration does not say."""

    layers: int
    hidden: int
    vocabulary: int
    intermediate: int
    """The widest gated or plain feed-forward of a dense layer; 0 where all are experts."""
    gated: bool
    heads: int
    kv_heads: int
    head_dim: int
    experts: int
    experts_per_token: int
    moe_intermediate: int
    latent: bool
    """Multi-head latent attention."""
    latent_width: int
    """Unpacked: of one head's keys without position, and of its values."""
    positions: int
    rotary_dimensions: int
    rotary_sections: bool
    """Positions in three dimensions, of images and videos."""
    rotary_stretch: float
    """By which a linear scaling of angles lengthens the table."""
    deepstack_levels: int
    """Levels of image features that are added within the decoder, each with a buffer of a step's tokens."""
    rotary_local: bool
    """Layers with a window turn by other angles."""
    recurrent: bool
    encoder_positions: int
    """Input length of an encoder that every request runs (speech); 0 without."""
    encoder_hidden: int
    encoder_intermediate: int
    pooling: bool
    """Gives embeddings or scores: no token is sampled."""
    audio: bool
    audio_tokens: int
    """Tokens that the longest sound becomes in the prompt, where every sound is padded to that; else 0."""
    tower: Tower | None


def dimensions(fields: Fields) -> Dimensions:
    """Read leniently: sizes that are missing are 0, so that whoever needs one can say what it assumed."""
    text = fields.language()
    hidden = text.whole("hidden_size", "n_embd", "d_model", "dim", "model_dim", default=0)
    heads = text.whole(*_HEADS, default=0)
    head_dim = text.whole("head_dim", "attention_head_dim", "kv_channels", "d_kv", default=0) or (
        hidden // heads if heads else 0
    )
    experts = text.whole("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts", default=0)
    intermediate = text.whole(
        "intermediate_size", "n_inner", "ffn_dim", "d_ff", "ffn_hidden_size", "decoder_ffn_dim", default=0
    )
    if not intermediate and hidden and not experts:
        intermediate = 4 * hidden
    moe = text.whole("moe_intermediate_size", "expert_ffn_hidden_size", "moe_ffn_hidden_size", default=0)
    positions = text.whole(*_LENGTH, default=0)
    if not text.given(*_LENGTH):
        positions = _RELEASED_POSITIONS.get(fields.model_type, positions)
        if fields.model_type == "llama4":
            positions = 10_485_760 if experts == 16 else 1_048_576
    rope_dim = text.whole("qk_rope_head_dim", default=0)
    return Dimensions(
        layers=text.whole("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers", default=0),
        hidden=hidden,
        vocabulary=text.whole("vocab_size", "padded_vocab_size", "n_vocab", default=0)
        or fields.whole("vocab_size", default=0),
        intermediate=_widest(text, intermediate, moe) if experts else intermediate,
        gated=text.model_type not in _UNGATED,
        heads=heads,
        kv_heads=text.whole("num_key_value_heads", "num_kv_heads", "n_head_kv", "n_kv_heads", default=heads),
        head_dim=head_dim,
        experts=experts,
        experts_per_token=text.whole(
            "num_experts_per_tok", "moe_topk", "num_experts_per_token", "moe_k", "top_k_experts", default=1
        ),
        moe_intermediate=(moe or intermediate) if experts else 0,
        latent=text.optional("kv_lora_rank") not in (None, 0),
        latent_width=text.whole("qk_nope_head_dim", default=0) + text.whole("v_head_dim", default=0),
        positions=positions,
        rotary_dimensions=_rotary(text, head_dim, rope_dim),
        rotary_sections=fields.model_type.startswith(_SECTIONS),
        rotary_stretch=_stretch(fields, text),
        deepstack_levels=_deepstack(fields),
        rotary_local=text.model_type.startswith(("gemma3", "gemma4", "modernbert")),
        recurrent=any(text.given(name) for name in ("linear_conv_kernel_dim", "mamba_d_state", "ssm_state_size")),
        encoder_positions=_encoder(fields, "max_source_positions"),
        encoder_hidden=_encoder(fields, "d_model") or hidden,
        encoder_intermediate=_encoder(fields, "encoder_ffn_dim"),
        pooling=_pooling(fields),
        audio=fields.part("audio_config") is not None,
        audio_tokens=_sound(fields),
        tower=_tower(fields, hidden),
    )


_UNGATED = frozenset(
    [
        "opt",
        "gpt2",
        "gpt_neo",
        "gpt_neox",
        "gptj",
        "codegen",
        "bloom",
        "mpt",
        "falcon",
        "phi",
        "starcoder2",
        "gpt_bigcode",
        "bert",
        "roberta",
        "xlm-roberta",
        "whisper",
        "bart",
        "nemotron",
        "persimmon",
        "biogpt",
        "xglm",
        "t5",
    ]
)
_UNROTATED = frozenset(
    [
        "opt",
        "gpt2",
        "gpt_bigcode",
        "bloom",
        "mpt",
        "bert",
        "roberta",
        "xlm-roberta",
        "whisper",
        "bart",
        "t5",
        "mamba",
        "mamba2",
    ]
)


_RELEASED_POSITIONS = {
    "qwen2_5_vl": 128_000, "qwen3_vl": 262_144, "qwen3_vl_moe": 262_144, "qwen3_next": 262_144, "qwen3_5": 262_144,
    "qwen3_5_moe": 262_144, "deepseek_v2": 163_840, "deepseek_v3": 163_840, "kimi_vl": 131_072, "gemma3": 131_072,
}  # fmt: skip
"""What the released models have where a configuration is silent and the class's default differs."""


def _stretch(fields: Fields, text: Fields) -> float:
    scaling = text.get("rope_scaling", "rope_parameters")
    if isinstance(scaling, Mapping):
        kind = scaling.get("rope_type", scaling.get("type"))
        factor = scaling.get("factor")
        if kind == "linear" and isinstance(factor, int | float) and 1 <= factor <= 1024:
            return float(factor)
        if kind is not None:
            return 1.0
    return 8.0 if fields.model_type == "gemma3" else 1.0


def _deepstack(fields: Fields) -> int:
    part = fields.part("vision_config")
    if part is None or not fields.model_type.startswith("qwen3_vl"):
        return 0
    return len(part.items("deepstack_visual_indexes")) or 3


_SECTIONS = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_5", "qwen2_5_omni", "qwen3_omni", "glm4v", "ernie4_5_vl")


def _widest(text: Fields, dense: int, moe: int) -> int:
    """The widest feed-forward of a model of experts that is not routed: of its dense layers, or of shared experts."""
    shared = text.whole("shared_expert_intermediate_size", default=0)
    shared = shared or text.whole("n_shared_experts", "num_shared_experts", default=0) * moe
    has_dense = (
        text.whole("first_k_dense_replace", default=0) > 0
        or bool(text.items("mlp_only_layers"))
        or text.whole("decoder_sparse_step", "interleave_moe_layer_step", default=1) > 1
    )
    if not has_dense:
        return shared
    return max(shared, text.whole("intermediate_size_mlp", default=0) or dense)


def _rotary(text: Fields, head_dim: int, rope_dim: int) -> int:
    if text.model_type in _UNROTATED:
        return 0
    if rope_dim:
        return rope_dim
    factor = text.get("partial_rotary_factor", "rotary_pct")
    nested = text.get("rope_parameters")
    if factor is None and isinstance(nested, Mapping):
        factor = nested.get("partial_rotary_factor")
    if factor is None and text.model_type.startswith(("qwen3_5", "qwen3_next")):
        factor = 0.25
    if isinstance(factor, int | float) and 0 < factor <= 1:
        return int(head_dim * factor)
    return head_dim


def _pooling(fields: Fields) -> bool:
    names = fields.items("architectures")
    name = names[0] if names and isinstance(names[0], str) else ""
    return (name.endswith("Model") and not name.endswith("LMHeadModel")) or "Classification" in name


def _encoder(fields: Fields, name: str) -> int:
    """Speech models that run their encoder for each request."""
    return fields.whole(name, default=0) if fields.model_type in ("whisper",) else 0


def _sound(fields: Fields) -> int:
    """Qwen2-Audio's encoder makes `max_source_positions` of thirty seconds, of which its projector joins two each."""
    part = fields.part("audio_config")
    if part is None or fields.model_type != "qwen2_audio":
        return 0
    return part.whole("max_source_positions", default=1500) // 2


def _tower(fields: Fields, hidden: int) -> Tower | None:
    part = fields.part("vision_config", "vit_config", "visual", "vision_encoder") or (
        outer.part("vision_config") if (outer := fields.part("thinker_config")) else None
    )
    if part is None:
        return None
    patch = part.whole("patch_size", "spatial_patch_size", default=14)
    side = part.whole("image_size", default=0)
    merge = (
        part.whole("spatial_merge_size", "merge_kernel_size", default=0) if not part.items("merge_kernel_size") else 2
    )
    temporal = part.whole("temporal_patch_size", default=1)
    tokens = fields.whole("mm_tokens_per_image", "image_seq_length", default=0)
    patches = (side // patch) ** 2 if side and patch else 0
    per_token = merge * merge if merge else max(1, patches // tokens) if tokens and patches else 1
    return Tower(
        hidden=part.whole("embed_dim", "hidden_size", "width", default=1024),
        intermediate=part.whole("intermediate_size", "mlp_dim", default=0),
        patch_bytes=patch * patch * 3 * temporal * 2,
        patches_per_token=per_token,
        item_tokens=tokens or (patches // per_token if patches else 0),
    )
