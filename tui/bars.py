"""A device's memory as a bar and figures. Pure: views in, text out, no widget and no clock."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.text import Text

from heliosd.core.units import format_bytes
from heliosd.wire import DeviceView

LABEL_WIDTH = 12
_FIGURES_WIDTH = 28


@dataclass(frozen=True, slots=True)
class Kind:
    """A part of memory. The glyphs differ, so that nobody needs the colours."""

    name: str
    glyph: str
    style: str


WEIGHTS = Kind("weights", "█", "green")
KV_CACHE = Kind("KV cache", "▓", "cyan")
OVERHEAD = Kind("overhead", "▒", "yellow")
FOREIGN = Kind("foreign", "x", "red")
SAFETY = Kind("safety", "-", "magenta")
FREE = Kind("free", "·", "bright_black")
KINDS = (WEIGHTS, KV_CACHE, OVERHEAD, FOREIGN, SAFETY, FREE)


def parts(device: DeviceView) -> tuple[int, ...]:
    """Bytes of each of KINDS, in their order; together the capacity, or more when others took what was promised."""
    overhead = max(0, device.promised_bytes - device.weights_bytes - device.kv_cache_bytes)
    taken = (device.weights_bytes, device.kv_cache_bytes, overhead, device.foreign_bytes, device.safety_bytes)
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


def bar(device: DeviceView, width: int) -> Text:
    text = Text(no_wrap=True)
    for kind, cells in zip(KINDS, apportion(parts(device), width), strict=True):
        text.append(kind.glyph * cells, kind.style)
    return text


def legend() -> Text:
    text = Text(no_wrap=True, overflow="ellipsis")
    for kind in KINDS:
        text.append(f"{kind.glyph * 2} ", kind.style)
        text.append(f"{kind.name}  ")
    return text


def device_lines(device: DeviceView, width: int, *, detailed: bool) -> Text:
    """The bar with what the device says of itself; `detailed` adds a line with the bytes of each part."""
    text = Text(no_wrap=True, overflow="ellipsis")
    text.append(f"{device.id[:LABEL_WIDTH]:<{LABEL_WIDTH}} ", "bold")
    text.append_text(bar(device, max(8, width - LABEL_WIDTH - 2 - _FIGURES_WIDTH)))
    text.append(f" {_figures(device):>{_FIGURES_WIDTH}}")
    if device.fault:
        text.append(f"\nFAULT {device.fault}", "bold reverse red")
    elif detailed:
        text.append("\n")
        for kind, amount in zip(KINDS, parts(device), strict=True):
            text.append(f"{kind.glyph} ", kind.style)
            text.append(f"{format_bytes(amount)}  ")
    return text


def _figures(device: DeviceView) -> str:
    used = f"{format_bytes(device.used_bytes)}/{format_bytes(device.capacity_bytes)}"
    busy = "" if device.utilization_ratio is None else f"{device.utilization_ratio:4.0%}"
    warm = "" if device.temperature_c is None else f"{device.temperature_c:3.0f}°"
    return " ".join(filter(None, [used, busy, warm]))


def devices_text(devices: Sequence[DeviceView], width: int, *, detailed: bool) -> Text:
    """All devices and, below, what the glyphs mean."""
    if not devices:
        return Text("no devices", "italic")
    lines = [device_lines(device, width, detailed=detailed) for device in devices]
    return Text("\n", no_wrap=True, overflow="ellipsis").join([*lines, legend()])
