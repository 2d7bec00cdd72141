"""Weights as the files have them: safetensors headers condensed to dozens of groups, and what a rank loads of them.

Exact for any architecture on a single device, because it adds up what is really there. For several ranks the names
decide how a tensor is divided, as every engine divides them; an unknown name is taken to be repeated on every rank.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from heliosd.estimation.headers import BITS, Header
from heliosd.estimation.launch import Launch
from heliosd.estimation.layout import Split
from heliosd.estimation.model import Model
from heliosd.estimation.weights import DTYPE_BYTES, Rotary, padded_vocabulary, shares, stages, unpacks_scales

_INDEX = re.compile(r"(?<=\.)(\d+)(?=\.)")
_FLOATS = ("F16", "BF16", "F32", "F64")
_SCALES = re.compile(r"scale|absmax|zero|quant_map|quant_state|_bias_correction|g_idx|lut")
_FLOAT32 = re.compile(r"A_log|\.D$|e_score_correction_bias|sinks$")
_DRAFTS = re.compile(r"(^|\.)(mtp|mtp_layers|nextn|medusa|eagle)\.")
_NESTED = re.compile(r"\.nested_(absmax|quant_map)$")
_UNUSED = re.compile(r"rotary_emb\.inv_freq$|\.attn\.(masked_)?bias$|position_ids$|quant_map$")

_SHARED_BY_DRAFTS = re.compile(r"\.(embed_tokens|shared_head\.head)\.")
"""Repeated beside draft layers; the engine lets those use the model's own."""

_EXPERT = re.compile(r"(^|\.)(experts|expert_\w+)\.")
_SHARED = re.compile(r"shared_expert")
_VOCABULARY = re.compile(
    r"(embed_tokens|wte|word_embeddings|tok_embeddings|embed_in|lm_head|embed_out|^output)\.[^.]+$"
)
_HEADS = re.compile(r"\.(k_proj|v_proj|key|value|k|v)\.[^.]+$")
_ROWS = re.compile(
    r"\.(q_proj|qkv_proj|gate_proj|up_proj|gate_up_proj|fc1|w1|w3|query_key_value|c_attn|c_fc|Wqkv|qkv|in_proj\w*|q_b_proj|"
    r"kv_b_proj|q|query|dense_h_to_4h|fc_in|conv1d|dt_proj|A_log|D|gate_up_proj_\w+|wi\w*)(\.|$)"
)
_COLUMNS = re.compile(
    r"\.(o_proj|down_proj|fc2|w2|out_proj|c_proj|dense_4h_to_h|attention\.dense|fc_out|x_proj|wo|down_proj_\w+)(\.|$)"
)


@dataclass(frozen=True, slots=True)
class TensorGroup:
    """Equal tensors that differ in the numbers of their names only."""

    name: str
    """With `{}` in place of each number."""
    dtype: str
    shape: tuple[int, ...]
    layers: tuple[int, ...]
    """The first number of each name, in order, one for each tensor; empty where names have none."""
    count: int

    @property
    def element_count(self) -> int:
        elements = self.count
        for side in self.shape:
            elements *= side
        return elements

    @property
    def size_bytes(self) -> int:
        return self.element_count * BITS[self.dtype] // 8


@dataclass(frozen=True, slots=True)
class StoredWeights:
    """All weight files of a revision."""

    groups: tuple[TensorGroup, ...]
    files: int

    @property
    def tensors(self) -> int:
        return sum(group.count for group in self.groups)

    @property
    def size_bytes(self) -> int:
        return sum(group.size_bytes for group in self.groups)

    def adapter_room(self, launch: Launch, dtype: str) -> tuple[int, ...]:
        """As `weights.adapter_room`, for an architecture that nobody knows: at most, every matrix whole everywhere."""
        sides = sum(sum(group.shape) * group.count for group in self.groups if len(group.shape) == 2)
        room = launch.max_loras * launch.max_lora_rank * DTYPE_BYTES.get(dtype, 2) * sides
        return (room,) * launch.pipeline_parallel

    def per_stage(self, launch: Launch, model: Model, dtype: str, tables: Sequence[Rotary]) -> list[int]:
        """Bytes on a rank of each pipeline stage. `dtype`: what plain tensors are loaded as."""
        element = DTYPE_BYTES.get(dtype, 2)
        layers = model.sizes.layers or 1 + max((max(group.layers, default=0) for group in self.groups), default=0)
        ranges = stages(layers, launch.pipeline_parallel)
        found = [sum(table.size_bytes(element) for table in tables)] * len(ranges)
        unpacked = unpacks_scales(launch)
        tied = model.layout.tied if model.layout else model.fields.language().flag("tie_word_embeddings")
        for group in self.groups:
            if _UNUSED.search(group.name) or (tied and "lm_head" in group.name):
                continue
            if group.layers and min(group.layers) >= layers and _SHARED_BY_DRAFTS.search(group.name):
                continue
            if unpacked and _NESTED.search(group.name):
                continue
            one = _loaded(group, element)
            if unpacked and group.dtype == "U8" and group.name.endswith(".absmax"):
                one *= DTYPE_BYTES["float32"]
            rank = round(one * _share(group, launch, model))
            if _DRAFTS.search(group.name):
                found[-1] += rank * group.count if launch.speculative_tokens else 0
            elif group.layers and ".layers.{}" in group.name.replace(".h.{}", ".layers.{}").replace(
                "blocks.{}", "layers.{}"
            ):
                for layer in group.layers:
                    stage = next((at for at, chosen in enumerate(ranges) if layer in chosen), None)
                    if stage is not None:
                        found[stage] += rank
                    elif launch.speculative_tokens:
                        found[-1] += rank
            else:
                last = re.search(r"lm_head|embed_out|(^|\.)(norm|ln_f|final_layer_norm|output)\.", group.name)
                found[-1 if last else 0] += rank * group.count
                if tied and len(ranges) > 1 and _VOCABULARY.search(group.name):
                    found[-1] += rank * group.count
        return found


def stored_weights(headers: Iterable[Header]) -> StoredWeights:
    """Condense the headers of all weight files."""
    of: dict[tuple[str, str, tuple[int, ...]], list[int]] = {}
    counts: dict[tuple[str, str, tuple[int, ...]], int] = {}
    files = 0
    for header in headers:
        files += 1
        for tensor in header.tensors:
            numbers = _INDEX.findall(tensor.name)
            key = (_INDEX.sub("{}", tensor.name), tensor.dtype, tensor.shape)
            counts[key] = counts.get(key, 0) + 1
            layers = of.setdefault(key, [])
            if numbers:
                layers.append(int(numbers[0]))
    groups = tuple(
        TensorGroup(name, dtype, shape, tuple(of[name, dtype, shape]), count)
        for (name, dtype, shape), count in counts.items()
    )
    return StoredWeights(groups, files)


def _loaded(group: TensorGroup, element: int) -> int:
    """Bytes of one tensor in the engine: plain ones in the engine's dtype, packed ones and their scales as stored."""
    elements = group.element_count // group.count
    if group.dtype in _FLOATS and not _SCALES.search(group.name):
        width = 4 if _FLOAT32.search(group.name) else element
        if _VOCABULARY.search(group.name) and group.shape:
            rows = group.shape[0]
            return elements // max(1, rows) * padded_vocabulary(rows) * width
        return elements * width
    return elements * BITS[group.dtype] // 8


def _share(group: TensorGroup, launch: Launch, model: Model) -> float:
    """The part of one tensor that one rank holds."""
    share = shares(launch)
    if _EXPERT.search(group.name) and not _SHARED.search(group.name):
        return 1 / (share.experts * share.expert_slices)
    match split_of(group.name):
        case Split.WHOLE:
            return 1.0
        case Split.HEADS:
            heads = model.sizes.kv_heads or share.tensor
            return max(1, heads // share.tensor) / max(1, heads)
        case _:
            return 1 / share.tensor


def split_of(name: str) -> Split:
    """How a tensor is divided over ranks, by the name it has in checkpoints."""
    if re.search(r"(^|\.)(visual|vision_tower|vision_model|audio_tower|multi_modal_projector|mm_projector)\.", name):
        return Split.ROWS if _ROWS.search(name) else Split.COLUMNS if _COLUMNS.search(name) else Split.WHOLE
    if _VOCABULARY.search(name):
        return Split.VOCABULARY
    if _HEADS.search(name) or re.search(r"\.(k_proj|v_proj)\.", name):
        return Split.HEADS
    if _ROWS.search(name):
        return Split.ROWS
    if _COLUMNS.search(name) and not name.endswith("bias"):
        return Split.COLUMNS
    return Split.WHOLE
