"""Requests without an adapter stay without one on the CPU, in an engine that serves adapters beside.

vLLM marks their tokens with the slot -1. Its kernels for GPUs skip those; its PyTorch code for the CPU (0.32,
`lora/ops/torch_ops`) takes -1 for an index and applies whatever adapter lies in the last slot.
"""

from collections.abc import Callable
from typing import Any

from heliosd.engines.changed import changed

_OPERATIONS = ("bgmv_shrink", "bgmv_expand", "bgmv_expand_slice")
"""What all others there are made of. Each takes inputs, weights, outputs and the slot of each row, in this order."""


def skip_tokens_without_adapter() -> None:
    """Exchange vLLM's operations in this process, an engine's, for ones that add nothing to such tokens."""
    import vllm.lora.ops.torch_ops.lora_ops as operations
    import vllm.lora.punica_wrapper.punica_cpu as users

    for name in _OPERATIONS:
        theirs = getattr(operations, name, None)
        if theirs is None or getattr(users, name, None) is not theirs:
            raise changed(f"lora.ops.torch_ops.{name}")
        for module in (operations, users):
            setattr(module, name, _skipping(theirs))


def _skipping(theirs: Any) -> Callable[..., None]:
    def ours(inputs: Any, weights: Any, outputs: Any, slots: Any, *more: Any, **options: Any) -> None:
        theirs(inputs.masked_fill((slots < 0).unsqueeze(-1), 0), weights, outputs, slots, *more, **options)

    return ours
