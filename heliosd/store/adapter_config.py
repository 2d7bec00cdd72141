"""What `adapter_config.json` says of a LoRA, in the layout that PEFT writes. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from heliosd.core.adapters import RANKS
from heliosd.errors import CorruptData

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
WEIGHTS_STEM = "adapter_model"
"""Weights that are pickles have another ending."""


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    rank: int
    """The highest of any of its matrices."""
    base: str | None
    """What it was trained on, in its author's words: a repository, or a folder of his machine."""


def read_adapter_config(config: Mapping[str, Any]) -> AdapterConfig:
    """Raises CorruptData for what is no LoRA, and for ranks that no engine takes."""
    kind = config.get("peft_type")
    if kind != "LORA":
        raise CorruptData(f"cannot accept {CONFIG}: its peft_type is {kind!r}; only LORA can be served")
    patterns = config.get("rank_pattern") or {}
    ranks = [config.get("r"), *(patterns.values() if isinstance(patterns, Mapping) else [patterns])]
    for rank in ranks:
        if not isinstance(rank, int) or isinstance(rank, bool) or not 0 < rank <= RANKS[-1]:
            raise CorruptData(f"cannot accept {CONFIG}: its rank is {rank!r}; engines take 1 to {RANKS[-1]}")
    base = config.get("base_model_name_or_path")
    return AdapterConfig(max(ranks), base if isinstance(base, str) and base else None)
