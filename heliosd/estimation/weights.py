"""What the weights take on each device, as the engine lays them out.

Published tensors are divided over ranks (`Split`), padded, repeated where there are fewer KV heads than ranks, and
stored by the checkpoint's quantization. Beside them the engine keeps what it calculates once from the configuration:
the table of rotary angles. Checked against what vLLM prints ("Loading model weights took"): see `tests/bench/truth`.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from heliosd.estimation.allocator import allocated_runs
from heliosd.estimation.engine_cards import card
from heliosd.estimation.launch import Launch, Platform
from heliosd.estimation.layout import Kind, Layout, Split, Tensor
from heliosd.estimation.quantization import NOTHING, Quantization
from heliosd.estimation.quantization_schemes import MXFP4, NF4, NF4_UNPACKED, Scheme

DTYPE_BYTES = {
    "float32": 4, "float": 4, "fp32": 4, "float64": 8,
    "float16": 2, "half": 2, "fp16": 2, "bfloat16": 2, "bf16": 2,
    "float8_e4m3fn": 1, "float8_e5m2": 1, "int8": 1, "uint8": 1,
}  # fmt: skip
VOCABULARY_PADDING = 64
"""Rows of the embedding and of the head are padded to a multiple of it, then divided."""
LORA_VOCABULARY = 256
"""Extra rows that engines before 0.12 kept for adapters' own tokens."""
EXPERT_ADAPTERS = (0, 11, 1)
"""The first release that takes adapters of routed experts, and keeps room for them whether they come or not."""


@dataclass(frozen=True, slots=True)
class Shares:
    """How ranks share the model: sizes of the groups and this rank's stage."""

    tensor: int
    experts: int
    """Ranks over which whole experts are dealt out; 1: their matrices are divided by `expert_slices` instead."""
    expert_slices: int


def shares(launch: Launch) -> Shares:
    """Under expert parallelism whole experts go to the ranks of all data and tensor groups; without it each expert's
    matrices are divided over them."""
    ranks = launch.tensor_parallel * launch.data_parallel
    return Shares(
        launch.tensor_parallel, ranks if launch.expert_parallel else 1, 1 if launch.expert_parallel else ranks
    )


def shard(tensor: Tensor, share: Shares, extra_vocabulary: int = 0) -> tuple[int, int, int]:
    """(rows, columns, copies) of `tensor` on one rank."""
    ranks, copies = share.tensor, tensor.copies
    if tensor.kind is Kind.EXPERT:
        copies = -(-copies // share.experts)
        ranks = share.expert_slices
    match tensor.split:
        case Split.ROWS:
            return -(-tensor.rows // ranks), tensor.columns, copies
        case Split.COLUMNS:
            return tensor.rows, -(-tensor.columns // ranks), copies
        case Split.HEADS:
            heads = max(1, tensor.heads)
            return tensor.rows // heads * max(1, heads // ranks), tensor.columns, copies
        case Split.VOCABULARY:
            padded = padded_vocabulary(tensor.rows + extra_vocabulary)
            return -(-padded // ranks), tensor.columns, copies
        case Split.WHOLE:
            return tensor.rows, tensor.columns, copies


def padded_vocabulary(rows: int) -> int:
    return -(-rows // VOCABULARY_PADDING) * VOCABULARY_PADDING


def stages(layers: int, count: int) -> tuple[range, ...]:
    """Which layers each pipeline stage has: equal numbers, the rest to the last but one and backwards from there."""
    each, rest = divmod(layers, count)
    sizes = [each] * count
    for step in range(rest):
        sizes[count - 2 - step if count > 1 else 0] += 1
    starts = [sum(sizes[:index]) for index in range(count)]
    return tuple(range(start, start + size) for start, size in zip(starts, sizes, strict=True))


@dataclass(frozen=True, slots=True)
class Rotary:
    """The table of cosines and sines: `positions` x `dimensions` in the model's dtype, once a device."""

    positions: int
    dimensions: int

    def size_bytes(self, element_bytes: int) -> int:
        return self.positions * self.dimensions * element_bytes


@dataclass(frozen=True, slots=True)
class WeightShare:
    """One stage's weights on one of its ranks, by what they belong to."""

    embeddings_bytes: int
    layers_bytes: int
    experts_bytes: int
    head_bytes: int
    towers_bytes: int
    drafts_bytes: int
    tables_bytes: int
    copies_bytes: int
    """What the engine derives and keeps beside: absorbed projections of latent attention, buffers of adapters."""
    rounding_bytes: int
    """What the allocator adds."""

    @property
    def total_bytes(self) -> int:
        parameters = self.embeddings_bytes + self.layers_bytes + self.experts_bytes + self.head_bytes
        beside = self.towers_bytes + self.drafts_bytes + self.tables_bytes + self.copies_bytes
        return parameters + beside + self.rounding_bytes


def weight_shares(
    layout: Layout, quantization: Quantization, launch: Launch, dtype: str, rotary: Sequence[Rotary] = ()
) -> tuple[WeightShare, ...]:
    """The weights of one rank of each pipeline stage, first to last. `dtype`: of what is not quantized."""
    share = shares(launch)
    element = DTYPE_BYTES.get(dtype, 2)
    extra = LORA_VOCABULARY if launch.max_loras and launch.version < (0, 12, 0) else 0
    measure = _Measure(quantization, share, element, extra, launch)
    ranges = stages(layout.layers, launch.pipeline_parallel)
    rooms = adapter_room(layout, launch, dtype)
    vocabulary = [each for each in layout.first if each.kind is Kind.EMBEDDING and each.split is Split.VOCABULARY]
    tables = [each.size_bytes(element) for each in rotary]
    found = []
    for index, chosen in enumerate(ranges):
        first, last = index == 0, index == len(ranges) - 1
        requests: Requests = []
        embeddings = measure.of(layout.first if first else vocabulary if last and layout.tied else (), requests)
        seen = layout.towers if first and not launch.language_only else ()
        towers = measure.of(seen, requests, tower=True)
        plain = routed = copies = 0
        for block in layout.blocks:
            whole = block.layers and chosen.start <= block.layers[0] and block.layers[-1] < chosen.stop
            layers = block.layers if whole else tuple(layer for layer in block.layers if layer in chosen)
            if layers:
                dense, moe, derived = measure.block(block.tensors, layers, requests)
                plain, routed, copies = plain + dense, routed + moe, copies + derived
        after = [each for each in layout.last if not (launch.pooling and each.kind is Kind.HEAD)]
        head = measure.of(after if last else (), requests)
        drafts = measure.of(layout.drafts if last and launch.speculative_tokens else (), requests)
        requests.append((tables, 1))
        found.append(
            WeightShare(
                embeddings_bytes=embeddings,
                layers_bytes=plain,
                experts_bytes=routed,
                head_bytes=head,
                towers_bytes=towers,
                drafts_bytes=drafts,
                tables_bytes=sum(tables),
                copies_bytes=copies + rooms[index],
                rounding_bytes=0 if launch.platform is Platform.CPU else _rounding(requests),
            )
        )
    return tuple(found)


def adapter_room(layout: Layout, launch: Launch, dtype: str) -> tuple[int, ...]:
    """What one rank of each pipeline stage keeps free for adapters of `dtype`, in bytes.

    Two matrices of the highest rank, for each projection and each of the adapters that may be in one batch (vLLM's
    `lora/layers`); as much for both ends of the vocabulary, whole on each rank, also where head and embedding are one.
    Engines of some families keep nothing for the ends.
    """
    ranges = stages(layout.layers, launch.pipeline_parallel)
    sides = [0] * len(ranges)
    if not launch.max_loras:
        return tuple(sides)
    share = shares(launch)
    for block in layout.blocks:
        for tensor in block.tensors:
            if tensor.kind is Kind.LINEAR or (tensor.kind is Kind.EXPERT and launch.version >= EXPERT_ADAPTERS):
                rows, columns, copies = shard(tensor, share)
                for index, chosen in enumerate(ranges):
                    sides[index] += (rows + columns) * copies * sum(layer in chosen for layer in block.layers)
    for tensor in layout.first:
        if tensor.kind is Kind.EMBEDDING and tensor.split is Split.VOCABULARY:
            sides[0] += tensor.rows + tensor.columns
            sides[-1] += 0 if launch.pooling else tensor.rows + tensor.columns
    return tuple(launch.max_loras * launch.max_lora_rank * DTYPE_BYTES.get(dtype, 2) * each for each in sides)


Requests = list[tuple[Sequence[int], int]]
"""Of the allocator, in order: sizes in bytes, and how often they are made one after the other."""


def _rounding(requests: Requests) -> int:
    return allocated_runs(requests) - sum(sum(sizes) * times for sizes, times in requests)


class _Measure:
    """Sizes tensors under one quantization and division."""

    __slots__ = ("_element", "_extra", "_launch", "_quantization", "_scales", "_share", "_unpacks")

    def __init__(self, quantization: Quantization, share: Shares, element: int, extra: int, launch: Launch) -> None:
        self._quantization = quantization
        self._share = share
        self._element = element
        self._extra = extra
        self._launch = launch
        self._scales = swizzled_scales(launch)
        self._unpacks = unpacks_scales(launch)

    def of(self, tensors: Sequence[Tensor], requests: Requests, *, tower: bool = False) -> int:
        """Bytes of tensors outside the layers; their allocations are appended to `requests`."""
        total = 0
        for tensor in tensors:
            rows, columns, copies = shard(tensor, self._share, self._extra)
            for scheme, _ in self._quantization.scheme_of(tensor, (), tower=tower):
                one = sum(self._one(tensor, scheme, rows, columns))
                requests.append(((one,), copies))
                total += one * copies
        return total

    def block(self, tensors: Sequence[Tensor], layers: tuple[int, ...], requests: Requests) -> tuple[int, int, int]:
        """(bytes of everything but routed experts, bytes of those, bytes of derived copies) over all `layers`."""
        plain = routed = copied = 0
        merged: dict[str, int] = {}
        beside: dict[str, int] = {}
        quantized = self._quantization is not NOTHING
        for tensor in tensors:
            rows, columns, copies = shard(tensor, self._share, self._extra)
            size = scales = 0
            if quantized:
                for scheme, count in self._quantization.scheme_of(tensor, layers):
                    packed, its_scales = self._one(tensor, scheme, rows, columns)
                    scales += its_scales * copies * count
                    size += (packed + its_scales) * copies * count
            else:
                size = self._one(tensor, None, rows, columns)[0] * copies * len(layers)
            if tensor.kind is Kind.EXPERT:
                routed += size
            else:
                plain += size
            if tensor.name.endswith("kv_b_proj.weight") and self._launch.version >= (0, 7, 1):
                copied += rows * columns * self._element * len(layers)
            if size:
                name = merged_name(tensor.name)
                merged[name] = merged.get(name, 0) + size - scales
                if scales:
                    beside[name] = beside.get(name, 0) + scales
        sizes = [*merged.values(), *beside.values()]
        requests.append(([size // len(layers) for size in sizes], len(layers)))
        return plain, routed, copied

    def _one(self, tensor: Tensor, scheme: Scheme | None, rows: int, columns: int) -> tuple[int, int]:
        """(bytes of the numbers, bytes of their scales, which mxfp4 keeps in one layout with them)."""
        if scheme is None:
            element = DTYPE_BYTES.get(tensor.dtype, 2) if tensor.dtype else self._element
            return rows * columns * element, 0
        if scheme is NF4 and self._unpacks:
            scheme = NF4_UNPACKED
        padded = _padded(scheme, tensor, rows, columns, self._launch)
        scales = scheme.scales_bytes(*padded)
        packed = scheme.size_bytes(*padded) - scales
        if scheme is not MXFP4 or tensor.kind is not Kind.EXPERT:
            return packed, scales
        groups = -(-padded[1] // scheme.group)
        return packed + scales + padded[0] * (-groups % self._scales), 0


_MERGED = {
    "q_proj": "qkv", "k_proj": "qkv", "v_proj": "qkv", "query": "qkv", "key": "qkv", "value": "qkv",
    "gate_proj": "gate_up", "up_proj": "gate_up", "w1": "gate_up", "w3": "gate_up",
    "q_a_proj": "qkv_a", "kv_a_proj_with_mqa": "qkv_a",
}  # fmt: skip


@functools.lru_cache(maxsize=4096)
def merged_name(name: str) -> str:
    """The engine's one tensor for several of the checkpoint's: queries, keys and values; gate and up."""
    parts = name.split(".")
    if len(parts) < 2:
        return name
    return ".".join((*parts[:-2], _MERGED.get(parts[-2], parts[-2]), parts[-1]))


def _padded(scheme: Scheme, tensor: Tensor, rows: int, columns: int, launch: Launch) -> tuple[int, int]:
    """mxfp4 kernels want multiples: of 256 on the side of the hidden size, of 64 on the experts' own."""
    if scheme is not MXFP4 or tensor.kind is not Kind.EXPERT or launch.platform is Platform.CPU:
        return rows, columns
    if tensor.split is Split.COLUMNS:
        return -(-rows // 256) * 256, -(-columns // 64) * 64
    return -(-rows // 64) * 64, -(-columns // 256) * 256


def unpacks_scales(launch: Launch) -> bool:
    """Whether doubly quantized scales of bitsandbytes are made float32 while loading: 0.9.2
    model_executor/model_loader/bitsandbytes_loader.py dequantize_dq (0.9.1: kept)."""
    return launch.version >= (0, 9, 2)


SCALES_HOPPER = 64
SCALES_BLACKWELL = 128


def swizzled_scales(launch: Launch) -> int:
    """To how many the scales of a row are padded for the tensor cores' layout of mxfp4 experts: by the card, from 0.15
    on; 1 where kernels take them as they are."""
    if launch.platform is not Platform.CUDA or launch.version < (0, 15, 0):
        return 1
    capability = card(launch.device_name, launch.device_bytes, launch.platform).capability
    if capability is None or capability < (9, 0):
        return 1
    return SCALES_BLACKWELL if capability >= (10, 0) else SCALES_HOPPER
