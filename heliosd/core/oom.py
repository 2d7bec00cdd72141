"""tmp"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Shortage:
    missing_bytes: int


def out_of_memory(cause: str) -> Shortage | None:
    return Shortage(0) if "out of memory" in cause.lower() else None
