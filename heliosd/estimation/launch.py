"""How an engine is started: everything besides the model that decides its bytes. Plain values, nothing looked up."""

from dataclasses import dataclass
from enum import StrEnum

Version = tuple[int, int, int]
CURRENT: Version = (0, 32, 0)
"""The engine release that Helios ships with."""


class Platform(StrEnum):
    CUDA = "cuda"
    ROCM = "rocm"
    CPU = "cpu"


@dataclass(frozen=True, slots=True)
class Launch:
    """Arguments as the engine resolves them. `None` leaves it to the engine's defaults (`engine_defaults`)."""

    version: Version = CURRENT
    v0: bool = False
    """The engine generation before V1."""
    platform: Platform = Platform.CUDA
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    data_parallel: int = 1
    expert_parallel: bool = False
    decode_context_parallel: int = 1
    prefill_context_parallel: int = 1
    dtype: str | None = None
    """None: as the configuration says, half precision instead of float32."""
    quantization: str | None = None
    """What the operator asked for (`fp8` of a plain checkpoint); the checkpoint's own comes from its configuration."""
    kv_cache_dtype: str = "auto"
    max_model_len: int | None = None
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    chunked_prefill: bool | None = None
    enforce_eager: bool = False
    max_capture_size: int | None = None
    capture_sizes: tuple[int, ...] = ()
    """Batch sizes to capture instead of those that the engine would choose; empty: leave it to the engine."""
    block_size: int | None = None
    prefix_caching: bool | None = None
    speculative_tokens: int = 0
    max_loras: int = 0
    max_lora_rank: int = 16
    native_sampler: bool = False
    """FlashInfer's sampler was switched off, or is not installed."""
    pooling: bool = False
    """Served for embeddings or scores, whatever the architecture: no head is loaded, no token sampled."""
    model_runner_v2: bool | None = None
    device_name: str = ""
    device_bytes: int | None = None
    """All memory of one device; decides defaults."""
    offline: bool = False
    """Started through the `LLM` class, whose defaults are larger than the server's."""
    language_only: bool = False
    """Encoders of images and sounds are not loaded."""
    images_per_prompt: int | None = None
    """What the operator allows; 0 leaves the tower's dummy run out."""

    @property
    def world_size(self) -> int:
        return self.tensor_parallel * self.pipeline_parallel
