"""The KV cache of a model under a launch: its pages, from the configuration and the resolved launch."""

from heliosd.estimation.kv_launch import CacheLaunch
from heliosd.estimation.kv_pages import KvPages, kv_pages
from heliosd.estimation.kv_specs import kv_specs
from heliosd.estimation.launch import Launch, Platform
from heliosd.estimation.model import Model
from heliosd.estimation.resolve import Resolved
from heliosd.estimation.sparse_attention import packed_by_itself

_ATTENTION_ENDS = (".o_proj.weight", ".o_b_proj.weight")


def draft_layers(model: Model) -> int:
    """Layers of the checkpoint's own drafter that attend: each caches keys and values like a layer of the model."""
    drafts = () if model.layout is None else model.layout.drafts
    return sum(tensor.copies for tensor in drafts if tensor.name.endswith(_ATTENTION_ENDS))


def cache_launch(model: Model, launch: Launch, resolved: Resolved) -> CacheLaunch:
    """What decides the cache, of all that was decided. `launch` as it was asked for, `resolved` from it."""
    return CacheLaunch(
        version=launch.version,
        tensor_parallel=launch.tensor_parallel,
        pipeline_parallel=launch.pipeline_parallel,
        decode_context_parallel=launch.decode_context_parallel,
        prefill_context_parallel=launch.prefill_context_parallel,
        kv_cache_dtype=launch.kv_cache_dtype,
        dtype=resolved.dtype,
        max_model_len=resolved.model_len,
        max_num_batched_tokens=resolved.defaults.max_num_batched_tokens,
        block_size=launch.block_size,
        enable_prefix_caching=True if launch.prefix_caching is None else launch.prefix_caching,
        platform="cpu" if launch.platform is Platform.CPU else "cuda",
        speculative_tokens=launch.speculative_tokens,
        draft_layers=draft_layers(model) if launch.speculative_tokens else 0,
        legacy=launch.v0,
        packed_sparse_mla=packed_by_itself(resolved),
    )


def cache_of(model: Model, launch: Launch, resolved: Resolved) -> KvPages:
    """Pages, blocks and groups; ask it for tokens in some bytes, bytes for some tokens, requests at once."""
    asked = cache_launch(model, launch, resolved)
    return kv_pages(kv_specs(model.fields, asked), asked)
