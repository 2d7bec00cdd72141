"""How much room a base model's engine keeps for adapters: so many at once, of so high a rank. Fixed at its start.

What the operator sets in `engine_args` stands; what is left open is chosen here, and in steps, so that one more adapter
seldom asks for another engine.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

AT_ONCE = 4
"""Adapters in one batch. Requests for more of them take turns, which an engine arranges by itself."""
RANKS = (16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes for `max_lora_rank`, from its default upwards."""


@dataclass(frozen=True, slots=True)
class AdapterRoom:
    """What an engine was, or is to be, started with."""

    at_once: int
    max_rank: int

    def __str__(self) -> str:
        return f"room for {self.at_once} adapters at once, of rank {self.max_rank} at most"

    @property
    def engine_args(self) -> dict[str, Any]:
        """As vLLM names them."""
        return {"enable_lora": True, "max_loras": self.at_once, "max_lora_rank": self.max_rank}


def room_for(ranks: Iterable[int], engine_args: Mapping[str, Any]) -> AdapterRoom | None:
    """The room for adapters of these ranks under what the operator set; None when the engine gets none.

    It may be too small for some of them, where the operator wants it so.
    """
    asked = engine_args.get("enable_lora")
    highest = max(ranks, default=0)
    if asked is False or (not highest and asked is not True):
        return None
    fitting = next((rank for rank in RANKS if rank >= highest), RANKS[-1])
    at_once = _count(engine_args.get("max_loras")) or AT_ONCE
    return AdapterRoom(at_once, _count(engine_args.get("max_lora_rank")) or fitting)


def with_room(engine_args: Mapping[str, Any], room: AdapterRoom | None) -> dict[str, Any]:
    """The arguments an engine is started with: the operator's, and the room where he left it open."""
    return {**(room.engine_args if room else {}), **engine_args}


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
