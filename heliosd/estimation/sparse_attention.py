"""Memory that sparse attention (DeepSeek V3.2 and V4, GLM 5) holds besides its cache: workspaces as long as the model.

An indexer picks the tokens to attend to. Prefilling, it gathers the keys of a step's whole context into a workspace;
kernels that read the packed cache unpack it into another. Both are sized by the model's length, not by the load.
"""

from dataclasses import dataclass

from heliosd.core.units import MiB
from heliosd.estimation.launch import Platform
from heliosd.estimation.model import Model
from heliosd.estimation.resolve import Resolved

LONG_TOKENS = 256 * 1024
UNPACKED_BYTES = 2 * 576
"""One token's latent vector in half precision: what the packed row of 656 bytes is unpacked to."""
LATENT_BYTES = 2 * 512
PADDED_HEADS = 64
V4_REQUESTS = 4
INDEXER_ROWS = 8
"""Rows of the indexer for each row of that workspace: 1152 // 132, so that both are about as large."""
LOGITS_BYTES = 512 * MiB
"""`VLLM_SPARSE_INDEXER_MAX_LOGITS_MB`: what the indexer's scores may take, as the profiling run pretends (0.19 on)."""
RADIX_BYTES = MiB


@dataclass(frozen=True, slots=True)
class SparseWorkspace:
    """Bytes on one rank."""

    buffers_bytes: int = 0
    """Of the model's own: which tokens each token attends to."""
    reserved_bytes: int = 0
    """Workspace taken while the model is built."""
    gathered_bytes: int = 0
    """Workspace that the profiling run asks for."""
    passing_bytes: int = 0
    """Alive while a layer attends."""
    held: bool = False
    """A kernel holds on to what was reserved, so that it stays beside a larger workspace taken later."""

    @property
    def built_bytes(self) -> int:
        """Taken while the model is built: an engine's log counts it as weights."""
        return self.buffers_bytes + self.reserved_bytes

    def lasting_bytes(self, experts_bytes: int) -> int:
        """Taken and kept, experts' workspace included: everybody shares one that is as large as the largest asks."""
        larger = max(self.gathered_bytes, experts_bytes)
        if larger <= self.reserved_bytes:
            return self.built_bytes
        return self.buffers_bytes + larger + (self.reserved_bytes if self.held else 0)


NONE = SparseWorkspace()


def sparse_workspace(model: Model, resolved: Resolved) -> SparseWorkspace:
    """By release: `v1/attention/backends/mla/indexer.py` get_max_prefill_buffer_size, `flashmla_sparse.py`
    get_prefill_workspace_size and its constructor, `model_executor/layers/sparse_attn_indexer.py` (its branch without
    metadata), `models/deepseek_v4/nvidia/flashmla.py`, read from 0.11.0 to 0.32.0. Until 0.12 the profiling run makes
    two rows for each token of the length and lets go of them.
    """
    text, launch = model.fields.language(), resolved.launch
    width, chosen = text.whole("index_head_dim", default=0), text.whole("index_topk", default=0)
    if not chosen or not width or launch.v0 or launch.version < (0, 11, 0) or launch.platform is Platform.CPU:
        return NONE
    tokens = resolved.defaults.max_num_batched_tokens
    buffers = tokens * chosen * 4
    row = width + width // 128 * 4
    pool = _tokens_per_row(model)
    if launch.version < (0, 13, 0):
        return SparseWorkspace(buffers, passing_bytes=2 * 2 * resolved.model_len // pool * row)
    factor = 2 if launch.version >= (0, 32, 0) and resolved.model_len > LONG_TOKENS else 5
    gathered = resolved.model_len * INDEXER_ROWS * factor // pool * row
    gathered += RADIX_BYTES if launch.version >= (0, 20, 0) else 0
    return SparseWorkspace(
        buffers_bytes=buffers,
        reserved_bytes=_reserved(model, resolved, factor, tokens),
        gathered_bytes=max(gathered, _gathered_v4(model, resolved, tokens)),
        passing_bytes=LOGITS_BYTES if launch.version >= (0, 19, 0) else 0,
        held=launch.version < (0, 31, 0),
    )


def _reserved(model: Model, resolved: Resolved, factor: int, tokens: int) -> int:
    """By FlashMLA's constructor: the unpacked rows, from 0.18 on the queries, from 0.31 on what it pads of both."""
    launch = resolved.launch
    if resolved.card.platform is not Platform.CUDA or _is_v4(model) or not _flash_mla(resolved):
        return 0
    heads = -(-model.sizes.heads // launch.tensor_parallel)
    padded = -(-heads // PADDED_HEADS) * PADDED_HEADS
    packed = _unpacks(resolved)
    reserved = resolved.model_len * factor * UNPACKED_BYTES if packed else 0
    if launch.version >= (0, 18, 0):
        whole = padded if launch.version >= (0, 32, 0) and not packed else heads
        reserved += tokens * whole * UNPACKED_BYTES
    if packed and launch.version >= (0, 31, 0):
        reserved += tokens * (padded * (UNPACKED_BYTES + LATENT_BYTES) + heads * LATENT_BYTES)
    return reserved


def _gathered_v4(model: Model, resolved: Resolved, tokens: int) -> int:
    """DeepSeek V4's kernels for Hopper gather the compressed context of four requests at a time."""
    text, capability = model.fields.language(), resolved.card.capability
    if not _is_v4(model) or capability is None or capability[0] != 9:
        return 0
    rows = -(-resolved.model_len // 4) + text.whole("sliding_window", default=128) + tokens
    return V4_REQUESTS * rows * text.whole("head_dim", default=512) * 2


def packed_by_itself(resolved: Resolved) -> bool:
    """Whether `fp8` means packed rows: from 0.19 on not on B200 and its like, whose kernels read plain fp8."""
    return not resolved.card.data_centre_blackwell or resolved.launch.version < (0, 19, 0)


def _is_v4(model: Model) -> bool:
    return model.fields.language().model_type.startswith("deepseek_v4")


def _tokens_per_row(model: Model) -> int:
    """DeepSeek V4 indexes what it compressed 4 to one, others every token or a pool of some."""
    return 4 if _is_v4(model) else model.fields.language().whole("index_kpool", default=1) or 1


def _flash_mla(resolved: Resolved) -> bool:
    """FlashMLA's kernels are Hopper's, and those of B200 where nothing better reads the cache."""
    capability = resolved.card.capability
    if capability is None or capability[0] == 9:
        return True
    return capability[0] == 10 and _unpacks(resolved)


def _unpacks(resolved: Resolved) -> bool:
    """Whether the kernels read packed rows and unpack them for prefill."""
    kind = resolved.launch.kv_cache_dtype
    return kind == "fp8_ds_mla" or (kind in ("fp8", "fp8_e4m3", "fp8_e5m2") and packed_by_itself(resolved))
