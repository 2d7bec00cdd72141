"""Which tensors of a checkpoint are stored in fewer bits, and how many bytes each then takes.

Read from `quantization_config` in all its dialects (AWQ, GPTQ, compressed-tensors, fp8, bitsandbytes, mxfp4, modelopt,
auto-round, GGUF). Formats are the published ones; their sizes are per matrix of `rows` outputs and `columns` inputs.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from heliosd.estimation.layout import Kind, Tensor
from heliosd.estimation.quantization_rules import Everywhere, Rule, RuleIndex, rules
from heliosd.estimation.quantization_schemes import (
    FP8_CHANNEL,
    FP8_TENSOR,
    INT8_CHANNEL,
    MXFP4,
    MXFP8,
    NF4,
    NVFP4,
    Scheme,
    fp8_tiles,
    integer_groups,
)


@dataclass(frozen=True, slots=True)
class Quantization:
    """A checkpoint's scheme for each of its tensors."""

    name: str
    linear: Scheme | None
    experts: Scheme | None
    rules: tuple[Rule, ...] = ()
    """The first that names a tensor decides."""
    towers: bool = False
    """Whether encoders of images and sounds are quantized too."""
    vague: bool = False
    """The configuration names a method without its details."""
    _index: RuleIndex = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_index", RuleIndex(self.rules))

    def scheme_of(
        self, tensor: Tensor, layers: tuple[int, ...] = (), *, tower: bool = False
    ) -> list[tuple[Scheme | None, int]]:
        """Schemes of `tensor` with the number of `layers` that have each; one entry for tensors outside the layers."""
        count = max(1, len(layers))
        kind = tensor.kind
        if kind is Kind.PLAIN or kind is Kind.EMBEDDING or (tower and not self.towers):
            return [(None, count)]
        usual = self.experts if kind is Kind.EXPERT else self.linear if kind is Kind.LINEAR else None
        module = tensor.name.removesuffix(".weight")
        found: list[tuple[Scheme | None, int]] = []
        named = self._index.naming(module, _routed(module) if kind is Kind.EXPERT else module)
        if not named:
            return [(usual, count)]
        if named[0].layers == Everywhere or not layers:
            return [(named[0].scheme, count)]
        left = set(layers)
        for rule in named:
            if rule.layers == Everywhere or not layers:
                return [*found, (rule.scheme, len(left) or count)] if left or not layers else found
            hit = left & rule.layers
            if hit:
                found.append((rule.scheme, len(hit)))
                left -= hit
        if left or not layers:
            found.append((usual, len(left) or count))
        return found


NOTHING = Quantization("none", None, None)


def read_quantization(config: Mapping[str, Any], asked: str | None = None) -> Quantization:
    """The scheme of a checkpoint from its configuration, and from what the operator asked of a plain one.

    Never raises: what is not understood is read from the words it contains and marked `vague`.
    """
    found = config.get("quantization_config") or config.get("compression_config")
    if not isinstance(found, Mapping):
        for part in ("text_config", "llm_config", "thinker_config", "language_config"):
            inner = config.get(part)
            if isinstance(inner, Mapping) and isinstance(inner.get("quantization_config"), Mapping):
                found = inner["quantization_config"]
    if not isinstance(found, Mapping):
        return _online(asked)
    inner = found.get("quantization")
    if isinstance(inner, Mapping):  # modelopt's own file
        found = {**found, **inner}
    method = str(found.get("quant_method") or found.get("quant_algo") or "").lower()
    for name, read in _METHODS:
        if name in method and (read is not _compressed or "config_groups" in found or "format" in found):
            result = read(found)
            if result is not None:
                return result
    if "config_groups" in found:
        result = _compressed(found)
        if result is not None:
            return result
    return _by_words(found, method)


def _ignored(found: Mapping[str, Any]) -> tuple[Rule, ...]:
    patterns: list[object] = []
    for name in ("modules_to_not_convert", "ignore", "exclude_modules", "ignored_layers", "llm_int8_skip_modules"):
        value = found.get(name)
        if isinstance(value, list):
            patterns += value
    return rules(patterns, None)


def _fp8(found: Mapping[str, Any]) -> Quantization | None:
    tile = found.get("weight_block_size")
    if isinstance(tile, list) and tile and isinstance(tile[0], int) and tile[0] > 0:
        scheme = fp8_tiles(tile[0])
    else:
        scheme = FP8_TENSOR
    experts = scheme
    if "fp4" in str(found.get("expert_dtype", "")).lower():
        experts = MXFP4
    return Quantization(scheme.name, scheme, experts, _ignored(found), vague="note" in found)


def _awq(found: Mapping[str, Any]) -> Quantization:
    scheme = integer_groups(
        _int(found, ("bits", "w_bit"), 4), _int(found, ("group_size", "q_group_size"), 128), zeros=True
    )
    return Quantization(f"awq {scheme.name}", scheme, scheme, _ignored(found))


def _gptq(found: Mapping[str, Any]) -> Quantization:
    symmetric = found.get("sym") is not False
    scheme = integer_groups(_int(found, ("bits",), 4), _int(found, ("group_size",), 128), zeros=not symmetric)
    return Quantization(f"gptq {scheme.name}", scheme, scheme, _ignored(found))


def _bitsandbytes(found: Mapping[str, Any]) -> Quantization:
    scheme = INT8_CHANNEL if found.get("load_in_8bit") and not found.get("load_in_4bit") else NF4
    return Quantization(f"bitsandbytes {scheme.name}", scheme, scheme, _ignored(found))


def _mxfp4(found: Mapping[str, Any]) -> Quantization:
    return Quantization("mxfp4 experts", None, MXFP4, _ignored(found))


def _modelopt(found: Mapping[str, Any]) -> Quantization | None:
    if "config_groups" in found and not isinstance(found.get("quantized_layers"), Mapping):
        return _compressed(found)
    layers = found.get("quantized_layers")
    if isinstance(layers, Mapping):
        by_algorithm: dict[str, list[object]] = {}
        for name, value in _first_experts(layers):
            algorithm = value.get("quant_algo") if isinstance(value, dict) else value
            if type(algorithm) is not str:
                algorithm = str(algorithm)[:64]
            by_algorithm.setdefault(algorithm, []).append(_routed(name) if "experts." in name else name)
        chosen = tuple(
            rule for algorithm, names in by_algorithm.items() for rule in rules(names, _algorithm(algorithm))
        )
        return Quantization("modelopt mixed", None, None, (*_ignored(found), *chosen))
    scheme = _algorithm(str(found.get("quant_algo") or found.get("quant_method")))
    if scheme is None:
        return None
    experts = _algorithm(str(found["moe_quant_algo"])) if found.get("moe_quant_algo") else scheme
    only_experts = "expert" in str(found.get("quant_method")).lower()
    return Quantization(f"modelopt {scheme.name}", None if only_experts else scheme, experts, _ignored(found))


_EXPERT = re.compile(r"experts\.\d+")


def _first_experts(layers: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Without the experts but the first of each layer: the engine fuses them, so one scheme holds for all, and lists of
    them have tens of thousands of names."""
    names = [name for name in layers if ".experts." not in name or ".experts.0." in name]
    if not any(".experts.0." in name for name in names):
        names = list(layers)
    return [(name, layers[name]) for name in names]


def _routed(name: str) -> str:
    """A name listed for each expert, as the one name that they share."""
    return _EXPERT.sub("experts", name)


def _algorithm(name: str) -> Scheme | None:
    upper = name.upper()
    if "MXFP8" in upper:
        return MXFP8
    if "NVFP4" in upper or upper in ("FP4", "W4A4"):
        return NVFP4
    if "MXFP4" in upper:
        return MXFP4
    if "FP8_PB" in upper or "FP8_BLOCK" in upper:
        return fp8_tiles()
    if "FP8_PC" in upper or "PER_CHANNEL" in upper:
        return FP8_CHANNEL
    if "FP8" in upper:
        return FP8_TENSOR
    if "W4A16" in upper or "INT4" in upper or "W4A8" in upper:
        return integer_groups(4, 128, zeros="AWQ" in upper)
    if "INT8" in upper or "W8A8" in upper:
        return INT8_CHANNEL
    return None


def _compressed(found: Mapping[str, Any]) -> Quantization | None:
    """compressed-tensors: groups of modules, each with the arguments of its weights."""
    groups = found.get("config_groups")
    named: list[Rule] = []
    linear: Scheme | None = None
    if isinstance(groups, Mapping):
        for group in groups.values():
            weights = group.get("weights") if isinstance(group, Mapping) else None
            if not isinstance(weights, Mapping):
                continue
            scheme = _weights_scheme(weights, str(group.get("format") or found.get("format") or ""))
            targets = group.get("targets")
            names = [each for each in targets if each != "Linear"] if isinstance(targets, list) else []
            if names:
                named += rules(map(_routed, map(str, names)), scheme)
            if not isinstance(targets, list) or "Linear" in targets:
                linear = scheme
    else:
        text = str(found.get("format", "")) + " " + str(found.get("weights", ""))
        linear = _words_scheme(text.lower(), found)
    if linear is None and not named:
        return None
    experts_only = "experts only" in str(found.get("format", "")).lower()
    experts = linear
    if found.get("moe_quant_algo"):
        experts = _algorithm(str(found["moe_quant_algo"]))
    return Quantization(
        f"compressed-tensors {linear.name if linear else 'mixed'}",
        None if experts_only else linear,
        experts,
        (*_ignored(found), *named),
    )


def _weights_scheme(weights: Mapping[str, Any], layout: str) -> Scheme:
    bits = weights.get("num_bits")
    bits = bits if isinstance(bits, int) and 1 <= bits <= 16 else 8
    group = weights.get("group_size")
    group = group if isinstance(group, int) else 0
    strategy = str(weights.get("strategy") or ("group" if group else "channel"))
    if str(weights.get("type")) == "float":
        if bits == 4:
            return MXFP4 if group == 32 or "mxfp4" in layout else NVFP4
        tile = weights.get("block_structure")
        if strategy == "block":
            return fp8_tiles(tile[0] if isinstance(tile, list) and tile and isinstance(tile[0], int) else 128)
        return FP8_TENSOR if strategy == "tensor" else FP8_CHANNEL
    if bits == 8 and strategy != "group":
        return INT8_CHANNEL
    return integer_groups(bits, group or -1, zeros=weights.get("symmetric") is False)


USUAL_GROUP = 32
"""Of 4-bit checkpoints in the compressed-tensors format whose configuration does not say."""


def _by_words(found: Mapping[str, Any], method: str) -> Quantization:
    """A configuration that describes itself in words, or a method we have no reader for."""
    words = " ".join(f"{key} {value}" for key, value in found.items()).lower() if len(found) < 64 else method
    dense, routed = found.get("dense"), found.get("experts")
    if isinstance(routed, str):
        experts = _words_scheme(routed.lower(), found)
        others = (
            dense
            if isinstance(dense, str)
            else " ".join(str(value) for key, value in found.items() if "attention" in key.lower())
        )
        return Quantization(words[:60], _words_scheme(others.lower(), found), experts, _ignored(found), vague=True)
    scheme = _words_scheme(method or words, found) or _words_scheme(words, found)
    if "compressed-tensors" in method and scheme is not None and scheme.bits == 4 and "group" not in words:
        scheme = integer_groups(4, USUAL_GROUP, zeros=False)
    only_experts = "expert" in words and ("only" in words or "experts +" in words)
    linear = scheme
    if only_experts:
        linear = FP8_TENSOR if "+ fp8" in words else None
    return Quantization(method or words[:60], linear, scheme, _ignored(found), vague=True)


def _words_scheme(words: str, found: Mapping[str, Any]) -> Scheme | None:
    group = re.search(r"(?:group|g)[ _]?(?:size )?(\d+)", words)
    size = int(group[1]) if group else _int(found, ("group_size",), 128)
    if "nvfp4" in words:
        return NVFP4
    if "mxfp4" in words or "fp4" in words:
        return MXFP4
    if "mxfp8" in words:
        return MXFP8
    if "fp8" in words or "float-quantized" in words:
        if "128x128" in words or "block" in words:
            return fp8_tiles()
        return FP8_CHANNEL
    if "nf4" in words or "bitsandbytes" in words or "bnb" in words:
        return NF4
    if any(word in words for word in ("int8", "w8a8", "w8a16", "int-quantized", "8bit", "8-bit")):
        return INT8_CHANNEL
    if any(word in words for word in ("int4", "w4a16", "wna16", "4-bit", "4bit", "awq", "gptq", "auto-round", "pack")):
        return integer_groups(4, size, zeros="awq" in words)
    bits = found.get("bits")
    if isinstance(bits, int | float) and not isinstance(bits, bool) and 1 <= bits <= 8:
        return Scheme(f"{bits} bits", float(bits), 2, size)
    return next((scheme for name, scheme in _OTHER if name in words), None)


_OTHER = (
    ("aqlm", Scheme("aqlm 2 bits", 2, row_bytes=2)),
    ("exl3", Scheme("exl3 3 bits", 3, row_bytes=2)),
    ("gguf", Scheme("gguf mixed", 4.85)),
    ("marlin", Scheme("marlin int4", 4, 2, 128)),
)
"""Methods with one usual width; a guess, and `vague`."""


def _online(asked: str | None) -> Quantization:
    """Quantized while loading: linear layers and experts, those of towers too, never embeddings and heads."""
    if not asked or asked in ("none", "auto"):
        return NOTHING
    name = asked.lower()
    scheme: Scheme | None
    if name in ("fp8_per_block",):
        scheme = fp8_tiles()
    elif name in ("fp8_per_channel", "ptpc_fp8"):
        scheme = FP8_CHANNEL
    elif name in ("fp8", "fp8_per_tensor"):
        scheme = FP8_TENSOR
    elif name.startswith("int8"):
        scheme = INT8_CHANNEL
    else:
        scheme = _algorithm(name) or _words_scheme(name, {})
    return Quantization(f"online {name}", scheme, scheme, towers=True) if scheme else NOTHING


def _int(found: Mapping[str, Any], names: tuple[str, ...], default: int) -> int:
    for name in names:
        value = found.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and -1 <= value <= 65536:
            return value
    return default


_METHODS: tuple[tuple[str, Callable[[Mapping[str, Any]], Quantization | None]], ...] = (
    ("modelopt", _modelopt),
    ("compressed-tensors", _compressed),
    ("bitsandbytes", _bitsandbytes),
    ("mxfp4", _mxfp4),
    ("gptq", _gptq),
    ("awq", _awq),
    ("fp8", _fp8),
    ("mixed_precision", _modelopt),
    ("nvfp4", _modelopt),
)
