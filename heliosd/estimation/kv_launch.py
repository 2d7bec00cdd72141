"""What decides the size of a KV cache: how the engine is started. And what a layer keeps, as values."""

from dataclasses import dataclass, field

from heliosd.estimation.kv_kinds import Keeps

WIDTHS = {"float32": 4, "float": 4, "bfloat16": 2, "float16": 2, "half": 2, "fp16": 2, "bf16": 2, "fp32": 4}
"""Prefixes of KV dtypes that are stored in bytes."""


@dataclass(frozen=True, slots=True)
class CacheLaunch:
    """One start of the engine. Versions are tuples: `(0, 32)`."""

    version: tuple[int, ...] = (0, 32, 0)
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    decode_context_parallel: int = 1
    prefill_context_parallel: int = 1
    kv_cache_dtype: str = "auto"
    dtype: str = "bfloat16"
    max_model_len: int = 4096
    max_num_batched_tokens: int = 2048
    block_size: int | None = None
    """None: the platform's own choice. The engine may raise it for hybrid models either way."""
    enable_prefix_caching: bool = True
    platform: str = "cuda"
    """`cuda` or `cpu`."""
    speculative_tokens: int = 0
    draft_layers: int = 0
    """Layers of a drafter (MTP heads, usually) that keep keys and values like the model's last full layer."""
    hybrid: bool | None = None
    """Whether layers with a window give back what they left behind. None: as the version does by itself."""
    legacy: bool = False
    """The engine of version 0: blocks of all layers, no groups."""
    batches_in_flight: int | None = None
    """Steps scheduled but not settled. None: as the version does by itself."""
    mamba_cache_dtype: str = "auto"
    mamba_ssm_cache_dtype: str = "auto"
    packed_sparse_mla: bool = True
    """fp8 with sparse attention means the packed 656-byte rows: Hopper's and RTX kernels, not those of B200."""

    @property
    def model_width(self) -> int:
        return WIDTHS.get(self.dtype.removeprefix("torch."), 2)

    @property
    def hybrid_allocator(self) -> bool:
        """Sliding layers counted as full ones before 0.9.2, and in version 0 always."""
        if self.legacy:
            return False
        return self.version >= (0, 9, 2) if self.hybrid is None else self.hybrid

    @property
    def aligned_states(self) -> bool:
        """Prefix caching of hybrid models: states kept at block boundaries. On by default from 0.16."""
        return self.enable_prefix_caching and self.version >= (0, 16)

    @property
    def tokens_in_flight(self) -> int:
        """Tokens scheduled but not settled: layers with a window hold on to theirs."""
        batches = self.batches_in_flight
        if batches is None:
            batches = 1 if self.version < (0, 26) else self.pipeline_parallel + (self.platform == "cuda")
        return batches * self.max_num_batched_tokens


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """What each of some equal layers keeps, on one tensor-parallel rank."""

    keeps: Keeps
    layers: tuple[int, ...] = field(compare=False)
    heads: int = 1
    """KV heads of a rank."""
    head_dim: int = 0
    entry_bytes: int = 0
    """Of one head's keys and values of one token, scales included."""
    state_bytes: int = 0
    """Of a sequence, whatever its length."""
    window: int = 0
    """Tokens of the sliding window or of the chunk."""
    latent: bool = False
    """One latent vector for all heads (MLA), the same on every rank."""
    role: str = ""
    """Tells caches apart that must not be merged: `indexer`, `cross`, `compressor`."""
    tokens_per_entry: int = 1
    alignment: int = 1
    """Bytes that a page is rounded up to."""
    own_block: int = 0
    """Tokens of a block where the layer, not the engine, decides; else 0."""
    checkpoints: int = 0
    """Blocks more in the prefix cache's align mode."""

    @property
    def token_bytes(self) -> int:
        """Of one token; 0 for states. Compressed caches take this once in `tokens_per_entry` tokens."""
        return self.heads * self.entry_bytes

    def page_bytes(self, block: int) -> int:
        """Of a block of `block` tokens."""
        if self.keeps is Keeps.STATE:
            return self.state_bytes
        exact = self.heads * (block // self.tokens_per_entry) * self.entry_bytes
        return -(-exact // self.alignment) * self.alignment
