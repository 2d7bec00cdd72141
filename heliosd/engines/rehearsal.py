"""What an engine's process on the host does before it knows its model: all of a start, once, with a toy of one layer.

The process group of one, OpenMP's threads, kernels, caches of functions and classes, and the pages that every start
writes to are then there: 0.1 s less of a start, for 65 MiB. The toy is gone afterwards. Not on a GPU: it would take a
context on one device, before it is known which.
"""

import gc
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from heliosd.core.units import MiB
from heliosd.engines.changed import changed
from heliosd.engines.worker import NAMES as OUR_WORKERS

_TOY: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 256,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "max_position_embeddings": 512,
    "torch_dtype": "bfloat16",
    "tie_word_embeddings": True,
}
_KV_CACHE_BYTES = 4 * MiB


def rehearse() -> None:
    """Start an engine core with the toy and drop it. Raises what vLLM raises."""
    import vllm.model_executor.models.registry as model_registry
    from vllm import envs
    from vllm.v1.engine.core import EngineCore
    from vllm.v1.executor.uniproc_executor import UniProcExecutor

    if not hasattr(envs, "disable_envs_cache"):
        raise changed("envs.disable_envs_cache")
    if not hasattr(model_registry, "_run_in_subprocess"):
        raise changed("registry._run_in_subprocess")
    elsewhere, before = model_registry._run_in_subprocess, dict(os.environ)
    model_registry._run_in_subprocess = lambda function: function()  # in a fresh Python it takes 7 s
    with tempfile.TemporaryDirectory(prefix="toy-") as folder:
        Path(folder, "config.json").write_text(json.dumps(_TOY))
        core = EngineCore(_config(folder), UniProcExecutor, log_stats=False)
    del core
    model_registry._run_in_subprocess = elsewhere
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)
    # From the end of a start on vLLM takes the environment as fixed; the engine to come has variables of its own.
    envs.disable_envs_cache()
    gc.collect()
    gc.freeze()


def _config(folder: str) -> Any:
    from vllm.engine.arg_utils import EngineArgs

    config = EngineArgs(
        model=folder,
        load_format="dummy",
        skip_tokenizer_init=True,
        enforce_eager=True,
        kv_cache_memory_bytes=_KV_CACHE_BYTES,
        max_model_len=256,
        max_num_seqs=4,
    ).create_engine_config()
    parallel = config.parallel_config
    parallel.worker_cls = OUR_WORKERS.get(parallel.worker_cls, parallel.worker_cls)
    parallel.distributed_executor_backend = "uni"
    return config
