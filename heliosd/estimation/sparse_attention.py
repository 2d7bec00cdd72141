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
INDEXER_ROWS = 8
"""Rows of the indexer for each row of that workspace: 1152 // 132, so that both are about as large."""
LOGITS_BYTES = 512 * MiB
"""`VLLM_SPARSE_INDEXER_MAX_LOGITS_MB`: what the indexer's scores may take, as the profiling run pretends (0.19 on)."""
RADIX_BYTES = MiB


@dataclass(frozen=True, slots=True)
class SparseWorkspace:
    """Bytes on one rank."""

    lasting_bytes: int = 0
    """Taken once and kept; shares its memory with the experts' workspace."""
    reserved_bytes: int = 0
    """What of it is taken while the model is built already: an engine's log counts that as weights."""
    passing_bytes: int = 0
    """Alive while a layer attends."""


NONE = SparseWorkspace()


def sparse_workspace(model: Model, resolved: Resolved) -> SparseWorkspace:
    """By release: `v1/attention/backends/mla/indexer.py` get_max_prefill_buffer_size, `flashmla_sparse.py`
    get_prefill_workspace_size, `model_executor/layers/sparse_attn_indexer.py` (its branch without metadata), read from
    0.11.0 to 0.32.0. Until 0.12 the profiling run makes two rows for each token of the length and lets go of them.
    """
    text, launch = model.fields.language(), resolved.launch
    width = text.whole("index_head_dim", default=0)
    if text.get("index_topk") is None or not width or launch.v0 or launch.version < (0, 11, 0):
        return NONE
    if launch.platform is Platform.CPU:
        return NONE
    row = width + width // 128 * 4
    pool = _tokens_per_row(model)
    if launch.version < (0, 13, 0):
        return SparseWorkspace(passing_bytes=2 * 2 * resolved.model_len // pool * row)
    factor = 2 if launch.version >= (0, 32, 0) and resolved.model_len > LONG_TOKENS else 5
    gathered = resolved.model_len * INDEXER_ROWS * factor // pool * row
    gathered += RADIX_BYTES if launch.version >= (0, 20, 0) else 0
    reserved = resolved.model_len * factor * UNPACKED_BYTES if _unpacks(model, resolved) else 0
    passing = LOGITS_BYTES if launch.version >= (0, 19, 0) else 0
    return SparseWorkspace(max(gathered, reserved), reserved, passing)


def packed_by_itself(resolved: Resolved) -> bool:
    """Whether `fp8` means packed rows: from 0.18 on not on B200 and its like, whose kernels read plain fp8."""
    return not resolved.card.data_centre_blackwell or resolved.launch.version < (0, 18, 0)


def _tokens_per_row(model: Model) -> int:
    """DeepSeek V4 indexes what it compressed 4 to one, others every token or a pool of some."""
    text = model.fields.language()
    if text.model_type.startswith("deepseek_v4"):
        return 4
    return text.whole("index_kpool", default=1) or 1


def _unpacks(model: Model, resolved: Resolved) -> bool:
    """Whether the kernels read packed rows and unpack them for prefill. V4's rows have kernels of their own."""
    if model.fields.language().model_type.startswith("deepseek_v4"):
        return False
    kind = resolved.launch.kv_cache_dtype
    return kind == "fp8_ds_mla" or (kind in ("fp8", "fp8_e4m3", "fp8_e5m2") and packed_by_itself(resolved))
