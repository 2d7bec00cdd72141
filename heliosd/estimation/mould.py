"""What shapes an engine: revisions of an equal mould can take each other's place in one that runs."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from heliosd.estimation.headers import Header

_NO_SHAPE = (
    "_name_or_path", "name_or_path", "transformers_version", "bos_token_id", "eos_token_id", "pad_token_id",
    "use_cache", "id2label", "label2id", "finetuning_task", "task_specific_params", "_commit_hash",
)  # fmt: skip
"""Of a configuration: what only the tokenizer's side reads, or nobody."""
_NESTED = ("text_config", "vision_config", "audio_config")


def mould_of(config: Mapping[str, Any], headers: Iterable[Header]) -> str:
    """A digest of the configuration, names left out, and of every tensor's name, type and shape.

    Empty where another's weights cannot simply be read into the engine: quantized ones (what a kernel needs is made
    from them at the start), models that also see or hear, and those whose weights are not safetensors.
    """
    tensors = sorted((each.name, each.dtype, each.shape) for header in headers for each in header.tensors)
    if not tensors or "quantization_config" in config or "auto_map" in config or any(key in config for key in _NESTED):
        return ""
    shape = {key: value for key, value in config.items() if key not in _NO_SHAPE}
    try:
        text = json.dumps([shape, tensors], sort_keys=True, separators=(",", ":"))
    except (TypeError, ValueError):
        return ""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
