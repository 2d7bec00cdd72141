"""A device's memory as a bar and figures. Pure: views in, text out, no widget and no clock."""

from collections.abc import Sequence

from rich.text import Text

from heliosd.core.units import format_bytes
from heliosd.wire import DeviceView
from tui.columns import Cell
from tui.now import Held
from tui.palette import FOREIGN, FREE, KINDS, KV_RESERVED, KV_USED, OVERHEAD, SAFETY, SLEEPERS, WEIGHTS


def parts(device: DeviceView, held: Held) -> tuple[int, ...]:
    """Bytes of each of KINDS, in their order; together the capacity, or more when others took what was promised."""
    used = min(held.kv_used_bytes, device.kv_cache_bytes)
    reserved = device.kv_cache_bytes - used
    rest = max(0, device.promised_bytes - device.weights_bytes - device.kv_cache_bytes)
    sleepers = min(held.sleepers_bytes, rest)
    ours = (device.weights_bytes, used, reserved, rest - sleepers, sleepers)
    taken = (*ours, device.foreign_bytes, device.safety_bytes)
    return (*taken, max(0, device.capacity_bytes - sum(taken)))


def apportion(amounts: Sequence[int], width: int) -> list[int]:
    """Share `width` cells among the amounts. What is there at all gets a cell, if there are enough for that."""
    total = sum(amounts)
    if total <= 0 or width <= 0:
        return [0] * len(amounts)
    exact = [amount * width / total for amount in amounts]
    present = sum(amount > 0 for amount in amounts)
    least = 1 if present <= width else 0
    cells = [max(int(share), least) if amount > 0 else 0 for share, amount in zip(exact, amounts, strict=True)]
    while sum(cells) > width:  # a cell for the tiny ones comes from the largest
        cells[max(range(len(cells)), key=lambda place: cells[place])] -= 1
    while sum(cells) < width:
        cells[max(range(len(cells)), key=lambda place: exact[place] - cells[place])] += 1
    return cells


def bar(device: DeviceView, held: Held, width: int) -> tuple[Cell, ...]:
    shares = zip(KINDS, apportion(parts(device, held), width), strict=True)
    return tuple(Cell(kind.glyph * cells, kind.style) for kind, cells in shares if cells)


def legend() -> Text:
    """What the glyphs mean, in 79 cells."""
    text = Text(no_wrap=True, overflow="ellipsis")
    text.append(WEIGHTS.glyph, WEIGHTS.style).append(" weights ", "not bold")
    text.append(KV_USED.glyph, KV_USED.style).append(KV_RESERVED.glyph, KV_RESERVED.style)
    text.append(" KV used/reserved ")
    for kind, name in ((OVERHEAD, "act+graphs"), (SLEEPERS, None), (FOREIGN, None), (SAFETY, None), (FREE, None)):
        text.append(kind.glyph, kind.style).append(f" {name or kind.name} ", "not bold")
    text.rstrip()
    return text


def accounted(device: DeviceView, held: Held, width: int) -> Text:
    """The bytes of each part with its name, in as many columns as there is room for."""
    each = 34
    across = max(1, width // each)
    text = Text()
    for place, (kind, amount) in enumerate(zip(KINDS, parts(device, held), strict=True)):
        text.append(f"{kind.glyph * 2} ", kind.style)
        text.append(f"{kind.name:<19}{format_bytes(amount):>9}")
        last = place == len(KINDS) - 1
        text.append("" if last else "\n" if place % across == across - 1 else "   ")
    return text
