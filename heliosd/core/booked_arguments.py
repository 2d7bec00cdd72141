"""Arguments of the engine that decide what memory it takes, and so are not the operator's to pass on.

The ledger has promised memory by them: an engine that was told otherwise would take what belongs to others.
"""

_SET_FROM = {
    "model": "the request",
    "served_model_name": "the model's ref",
    "kv_cache_memory_bytes": "kv_cache",
    "gpu_memory_utilization": "kv_cache",
    "max_model_len": "max_model_len",
    "max_num_seqs": "max_num_seqs",
    "dtype": "dtype",
    "tensor_parallel_size": "tensor_parallel",
    "pipeline_parallel_size": "pipeline_parallel",
    "device_ids": "the devices that have room",
    "worker_cls": "the device, with a worker that measures",
    "trust_remote_code": "trust_remote_code",
}
"""Where Helios takes each of them from."""

_NOT_BOOKED = {
    "num_gpu_blocks_override": "it replaces the KV cache's size in bytes",
    "kv_cache_dtype": "it changes how many tokens the KV cache holds",
    "speculative_config": "it adds a second model and its KV cache",
    "spec_method": "it adds a second model and its KV cache",
    "spec_model": "it adds a second model and its KV cache",
    "spec_tokens": "it adds a second model and its KV cache",
    "prefill_context_parallel_size": "it spreads the model over more devices",
    "data_parallel_size": "it adds copies of the model",
    "nnodes": "it spreads the model over other machines",
}
"""What each of them changes that is not booked yet."""


def refusal(name: str) -> str | None:
    """Why the operator must not set this engine argument; None when he may. Dashes are as good as underscores."""
    plain = name.replace("-", "_")
    if owner := _SET_FROM.get(plain):
        return f"must not set {name}: Helios sets it from {owner}, so that the memory it books is right"
    if change := _NOT_BOOKED.get(plain):
        return f"must not set {name}: {change}, and Helios does not book that yet; leave it out"
    return None
