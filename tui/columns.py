"""What a table's columns are, and which of them have room. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from rich.cells import cell_len, set_cell_size

V = TypeVar("V")
GAP = 1
LEAST_GROWN = 12


@dataclass(frozen=True, slots=True)
class Cell:
    """Text in one style."""

    text: str
    style: str = ""


Drawn = str | Cell | tuple[Cell, ...]
"""What a cell can be; of several, together they are as wide as the column."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What a cell may need besides its row."""

    age_s: float
    """How long ago the row was told; what grows has grown since."""
    width: int


@dataclass(frozen=True, slots=True)
class Column(Generic[V]):
    name: str
    width: int
    """In cells, its name included; of one that grows, the least."""
    cell: Callable[[V, Shown], Drawn]
    sort: Callable[[Any], Any] | None = None
    """Of a row as it came; None: cannot be sorted by."""
    right: bool = False
    grows: bool = False
    """It takes what the others leave."""
    rank: int = 0
    """Where there is no room for all, the highest rank is left out first."""
    most: int = 10**6
    """Cells beyond which it does not grow."""


@dataclass(frozen=True, slots=True)
class Laid(Generic[V]):
    """A column with its place."""

    column: Column[V]
    at: int
    width: int


def lay_out(columns: Sequence[Column[V]], width: int) -> list[Laid[V]]:
    """Those columns that have room, with their widths: together at most `width` cells."""
    kept = list(columns)
    while len(kept) > 1 and _least(kept) > width:
        kept.remove(max(reversed(kept), key=lambda column: column.rank))
    spare = max(0, width - _least(kept))
    growing = [column for column in kept if column.grows]
    laid, at = [], 0
    for column in kept:
        own = column.width
        if column.grows:
            extra = min(spare // len(growing), column.most - own) if growing else 0
            spare -= extra
            growing.remove(column)
            own += extra
        own = min(own, width - at)
        laid.append(Laid(column, at, own))
        at += own + GAP
    return laid


def _least(columns: Sequence[Column[V]]) -> int:
    return sum(column.width for column in columns) + GAP * (len(columns) - 1)


def fitted(text: str, width: int, *, right: bool = False) -> str:
    """Exactly `width` cells; what does not fit ends in an ellipsis."""
    if "\n" in text:
        text = " ".join(text.split("\n"))
    length = cell_len(text)
    if length > width:
        return set_cell_size(text, max(0, width - 1)) + "…" if width > 0 else ""
    return " " * (width - length) + text if right else text + " " * (width - length)
