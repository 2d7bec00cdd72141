"""Draws what fills a device as a bar: shapes first, so that it reads without colours and without Unicode."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from heliosd.core.units import format_bytes

WIDTH = 72
_INDENT = "  "


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a bar."""

    name: str
    n_bytes: int


@dataclass(frozen=True, slots=True)
class _Look:
    block: str
    plain: str
    colour: str
    """Of the Okabe-Ito set, which most colour-blind people tell apart; numbers of the 256 colours of terminals."""


_LOOKS = (
    _Look("█", "#", "25"),
    _Look("▓", "=", "36"),
    _Look("▒", "+", "214"),
    _Look("▚", "x", "166"),
    _Look("░", "o", "175"),
    _Look("▞", "%", "75"),
    _Look("▤", "*", "227"),
)
_MARGIN = _Look("▏", "-", "245")
_FREE = _Look("·", ".", "240")


def plain_output() -> bool:
    """Whether stdout is to get ASCII without colours: no terminal, NO_COLOR, or no UTF-8."""
    encoding = (getattr(sys.stdout, "encoding", None) or "").lower().replace("-", "")
    return not sys.stdout.isatty() or "NO_COLOR" in os.environ or encoding != "utf8"


def bar(parts: Sequence[Part], margin_bytes: int, device_bytes: int, *, plain: bool, width: int = WIDTH) -> str:
    """A bar of `width` cells and a legend; a mark where the device ends when the parts are more than it has."""
    used = sum(part.n_bytes for part in parts) + margin_bytes
    whole = max(device_bytes, used, 1)
    shown = [part for part in parts if part.n_bytes > 0]
    pieces = [(part.name, part.n_bytes, look) for part, look in zip(shown, _repeated(len(shown)), strict=True)]
    if margin_bytes > 0:
        pieces.append(("margin", margin_bytes, _MARGIN))
    if device_bytes > used:
        pieces.append(("free", device_bytes - used, _FREE))
    counts = cells([n_bytes for _, n_bytes, _ in pieces], whole, width)
    line = "".join(_drawn(look, count, plain) for (_, _, look), count in zip(pieces, counts, strict=True))
    lines = [_INDENT + line]
    if used > device_bytes:
        edge = max(0, min(width - 1, device_bytes * width // whole))
        mark = "^" if plain else "▲"
        label = f"the device ends here: {format_bytes(device_bytes)}"
        room = edge + 2 + len(label) <= width
        lines.append(_INDENT + (f"{' ' * edge}{mark} {label}" if room else f"{label} {mark}".rjust(edge + 1)))
    return "\n".join([*lines, *_legend([(_drawn(look, 1, plain), name, n_bytes) for name, n_bytes, look in pieces])])


def cells(sizes: Sequence[int], whole: int, width: int) -> list[int]:
    """How many of `width` cells each size gets; none that is there gets none, and together they never get more."""
    counts = [max(1, size * width // whole) for size in sizes]
    rest = min(width, -(-sum(sizes) * width // whole)) - sum(counts)
    order = sorted(range(len(sizes)), key=lambda place: -(sizes[place] * width % whole))
    for place in order[: max(0, rest)]:
        counts[place] += 1
    while sum(counts) > width:
        counts[counts.index(max(counts))] -= 1
    return counts


def _repeated(count: int) -> list[_Look]:
    return [_LOOKS[place % len(_LOOKS)] for place in range(count)]


def _drawn(look: _Look, count: int, plain: bool) -> str:
    return look.plain * count if plain else f"\x1b[38;5;{look.colour}m{look.block * count}\x1b[0m"


def _legend(entries: Sequence[tuple[str, str, int]]) -> list[str]:
    """As many to a line as fit."""
    lines: list[tuple[str, int]] = []
    for sign, name, n_bytes in entries:
        words = f" {name} {format_bytes(n_bytes)}"
        text, length = sign + words, 1 + len(words)
        if lines and lines[-1][1] + 3 + length <= WIDTH:
            lines[-1] = (f"{lines[-1][0]}   {text}", lines[-1][1] + 3 + length)
        else:
            lines.append((text, length))
    return [_INDENT + text for text, _ in lines]
