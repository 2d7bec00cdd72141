"""Facts about a model from its `config.json` and its safetensors headers. Pure; no odd configuration makes it raise.

Families name the same thing differently; each fact is looked up under every name in use, and is None when
none of them holds a sensible value. What these facts mean for memory is decided elsewhere.
"""

from collections.abc import Iterable, Mapping
from typing import Any, TypeGuard

from heliosd.core.profile import ModelProfile
from heliosd.estimation.headers import Header
from heliosd.estimation.mould import mould_of

_TEXT_PARTS = ("text_config", "llm_config", "language_config", "language_model", "thinker_config", "decoder")
"""Where models with several modalities keep the configuration of their language part."""

_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers")
_HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_attention_heads")
_KV_HEADS = ("num_key_value_heads", "num_kv_heads", "n_head_kv", "n_kv_heads", "multi_query_group_num")
_HEAD_DIM = ("head_dim", "attention_head_dim", "kv_channels", "d_kv")
_HIDDEN = ("hidden_size", "n_embd", "d_model", "dim", "model_dim")
_VOCABULARY = ("vocab_size", "padded_vocab_size", "n_vocab")
_LENGTH = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "max_sequence_length",
    "seq_length",
    "model_max_length",
    "max_target_positions",
    "n_ctx",
)

_TORCH_NAMES = {
    "BF16": "bfloat16",
    "F16": "float16",
    "F32": "float32",
    "F64": "float64",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E8M0": "float8_e8m0fnu",
    "F4": "float4_e2m1fn_x2",
    "U8": "uint8",
    "I8": "int8",
    "I16": "int16",
    "I32": "int32",
    "I64": "int64",
    "BOOL": "bool",
}


def read_profile(config: Mapping[str, Any], headers: Iterable[Header], *, pickled: bool = False) -> ModelProfile:
    """Put together what `config` and the `headers` of all weight files say."""
    files = tuple(headers)
    by_dtype: dict[str, int] = {}
    for header in files:
        for name, size_bytes in header.bytes_by_dtype.items():
            by_dtype[name] = by_dtype.get(name, 0) + size_bytes
    parts = _parts(config)
    heads = _number(parts, _HEADS)
    hidden = _number(parts, _HIDDEN)
    return ModelProfile(
        architecture=_architecture(config),
        weights_bytes=sum(by_dtype.values()),
        parameters=sum(header.elements for header in files) if files else None,
        dtype=_dtype(parts, by_dtype),
        layers=_number(parts, _LAYERS) or _pattern_length(parts),
        kv_heads=_kv_heads(parts, heads),
        head_dim=_number(parts, _HEAD_DIM) or (hidden // heads or None if hidden and heads else None),
        hidden_size=hidden,
        vocab_size=_number(parts, _VOCABULARY),
        max_model_len=_number(parts, _LENGTH),
        remote_code=bool(config.get("auto_map")),
        pickled=pickled,
        mould="" if pickled else mould_of(config, files),
    )


def _parts(config: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """The language part first, as deep as it is nested, the outermost last."""
    found: list[Mapping[str, Any]] = [config]
    while len(found) < 4:
        inner = next((found[0][name] for name in _TEXT_PARTS if isinstance(found[0].get(name), Mapping)), None)
        if inner is None:
            break
        found.insert(0, inner)
    return tuple(found)


def _number(parts: tuple[Mapping[str, Any], ...], names: tuple[str, ...]) -> int | None:
    """The first sensible value; where a family has one per layer, the largest."""
    for part in parts:
        for name in names:
            value = part.get(name)
            values = [item for item in (value if isinstance(value, list) else [value]) if _sensible(item)]
            if values:
                return max(values)
    return None


def _pattern_length(parts: tuple[Mapping[str, Any], ...]) -> int | None:
    """Hybrid families list or spell their layers one by one instead of counting them."""
    for part in parts:
        for name in ("layers_block_type", "layer_types", "hybrid_override_pattern"):
            value = part.get(name)
            if isinstance(value, list | str) and value:
                return len(value)
    return None


def _sensible(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**40


def _kv_heads(parts: tuple[Mapping[str, Any], ...], heads: int | None) -> int | None:
    """Without a number of their own there are as many as attention heads, or one under multi-query attention."""
    for part in parts:
        if part.get("multi_query") is True and not part.get("new_decoder_architecture"):
            return _number((part,), ("multi_query_group_num",)) or 1
    return _number(parts, _KV_HEADS) or heads


def _architecture(config: Mapping[str, Any]) -> str | None:
    names = config.get("architectures")
    if isinstance(names, list) and names and isinstance(names[0], str):
        return names[0]
    return None


def _dtype(parts: tuple[Mapping[str, Any], ...], by_dtype: Mapping[str, int]) -> str | None:
    for part in parts:
        for name in ("dtype", "torch_dtype"):
            value = part.get(name)
            if isinstance(value, str) and value not in ("", "auto"):
                return value.removeprefix("torch.")
    if not by_dtype:
        return None
    largest = max(sorted(by_dtype), key=lambda name: by_dtype[name])
    return _TORCH_NAMES.get(largest, largest.lower())
