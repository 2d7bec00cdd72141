"""How fast a way of loading weights was on this storage."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Speed:
    method: str
    """A load format of the engine, or `read`, `direct` for comparison."""
    cold_bytes_per_s: float | None
    """From the disk; None: not measured."""
    warm_bytes_per_s: float | None
    """From the page cache."""
    note: str | None = None
    """What was in the way."""
