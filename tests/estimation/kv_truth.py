"""What the installed vLLM makes of a configuration's KV cache: the model with empty weights, on one rank; the
tensor-parallel size is pretended."""

import collections
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOM = 3 * 2**30
LENGTH = 2048


@dataclass(frozen=True)
class Truth:
    pages: "collections.Counter[tuple[str, int, int]]"
    """How many layers have (kind, tokens, bytes) of a block, before unification."""
    blocks: int
    groups: int
    block_tokens: int
    tokens: int
    concurrency: float
    batches: int
    batched_tokens: int
    state_dtype: str
    prefixes: bool


@contextlib.contextmanager
def a_pretended_group(config: Any, ranks: int) -> Iterator[None]:
    import torch
    from vllm.config import set_current_vllm_config
    from vllm.distributed import parallel_state

    with set_current_vllm_config(config):
        torch.distributed.init_process_group(backend="gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
        parallel_state.init_distributed_environment(
            world_size=1, rank=0, local_rank=0, backend="gloo", distributed_init_method="file:///nonexistent"
        )
        parallel_state.initialize_model_parallel(1, backend="gloo")
        group: Any = parallel_state._TP
        group.world_size = ranks
        try:
            yield
        finally:
            parallel_state.destroy_model_parallel()
            parallel_state.destroy_distributed_environment()


def truth(directory: Path, launch: dict[str, Any]) -> Truth:
    """What vLLM makes of the configuration in `directory`: its specs, its blocks and its tokens in `ROOM` bytes."""
    from vllm.config.vllm import get_layers_from_vllm_config
    from vllm.engine.arg_utils import EngineArgs
    from vllm.model_executor.layers.attention_layer_base import AttentionLayerBase
    from vllm.model_executor.model_loader.utils import initialize_model
    from vllm.platforms import current_platform
    from vllm.utils.torch_utils import set_default_torch_dtype
    from vllm.v1.core import kv_cache_utils
    from vllm.v1.engine.core import register_all_kvcache_specs

    ranks = launch.get("tp", 1)
    rest = {name: value for name, value in launch.items() if name not in ("tp", "pp", "dcp")}
    arguments = EngineArgs(
        model=str(directory),
        skip_tokenizer_init=True,
        load_format="dummy",
        enforce_eager=True,
        max_model_len=LENGTH,
        **rest,
    )
    config = arguments.create_engine_config()
    config.parallel_config.tensor_parallel_size = ranks
    config.parallel_config.decode_context_parallel_size = launch.get("dcp", 1)
    with a_pretended_group(config, ranks):
        with set_default_torch_dtype(config.model_config.dtype):
            initialize_model(vllm_config=config)
        current_platform.update_block_size_for_backend(config)
        specs = {}
        for name, layer in get_layers_from_vllm_config(config, AttentionLayerBase).items():
            if getattr(layer, "kv_sharing_target_layer_name", None):
                continue
            spec = layer.get_kv_cache_spec(config)
            if spec is not None:
                specs[name] = spec
        pages = collections.Counter(
            (type(spec).__name__, spec.block_size, spec.page_size_bytes) for spec in specs.values()
        )
        config.cache_config.kv_cache_layout = "LBHNC"
        register_all_kvcache_specs(config)
        stages = staged(specs, config.model_config.get_total_num_hidden_layers(), launch.get("pp", 1))
        made = kv_cache_utils.get_kv_cache_configs(config, stages, [ROOM] * len(stages))[0]
        tokens, concurrency = kv_cache_utils.get_kv_cache_capacity(config, made)
        return Truth(
            pages,
            made.num_blocks,
            len(made.kv_cache_groups),
            config.cache_config.block_size,
            tokens,
            concurrency,
            config.max_concurrent_batches,
            config.scheduler_config.max_num_batched_tokens,
            config.cache_config.mamba_ssm_cache_dtype,
            config.cache_config.enable_prefix_caching,
        )


def staged(specs: dict[str, Any], layers: int, stages: int) -> list[dict[str, Any]]:
    """The specs of each pipeline stage, by the layers that vLLM gives it."""
    from vllm.distributed.utils import get_pp_indices
    from vllm.model_executor.models.utils import extract_layer_index

    if stages == 1:
        return [specs]
    bounds = [get_pp_indices(layers, stage, stages) for stage in range(stages)]
    return [
        {name: spec for name, spec in specs.items() if start <= extract_layer_index(name) < stop}
        for start, stop in bounds
    ]
