"""How many shells (processes made ahead of need, for starts to begin in) host memory has room for. Pure."""

from dataclasses import dataclass

from heliosd.core.units import format_bytes

FIRST_RETRY_S = 1.0
LONGEST_RETRY_S = 300.0
SOON_S = 60.0
"""A shell that dies within so long counts as one that could not be made."""


@dataclass(frozen=True, slots=True)
class Room:
    """How many fit, and the arithmetic."""

    count: int
    reason: str


def room_for(wanted: int, each_bytes: int, free_bytes: int) -> Room:
    """Of `wanted` shells of `each_bytes`, as many as `free_bytes` of host memory hold, theirs included."""
    count = min(wanted, max(0, free_bytes) // max(1, each_bytes))
    if count == wanted:
        return Room(count, f"{wanted} wanted")
    have, need = format_bytes(max(0, free_bytes)), format_bytes(wanted * each_bytes)
    return Room(count, f"{have} of host memory are left for shells, and {wanted} take {need}")


def retry_s(failures: int) -> float:
    """Seconds until the next try, after so many failures in a row."""
    return min(LONGEST_RETRY_S, FIRST_RETRY_S * 2.0 ** min(failures - 1, 30)) if failures else 0.0
