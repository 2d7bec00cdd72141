"""Bytes and seconds as people write and read them. Inside Helios both are plain numbers."""

import re

KiB = 1024
MiB = 1024**2
GiB = 1024**3
TiB = 1024**4

_UNITS = {
    "": 1,
    "b": 1,
    "k": KiB,
    "kib": KiB,
    "kb": 1000,
    "m": MiB,
    "mib": MiB,
    "mb": 1000**2,
    "g": GiB,
    "gib": GiB,
    "gb": 1000**3,
    "t": TiB,
    "tib": TiB,
    "tb": 1000**4,
}
_SIZE = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*")

_SPANS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def parse_bytes(text: str) -> int:
    """Read `"40GiB"`, `"1.5 g"` or `"4096"` as a number of bytes; binary unless written `GB`.

    Raises ValueError when the text is no size.
    """
    match = _SIZE.fullmatch(text)
    unit = match and _UNITS.get(match[2].lower())
    if not match or unit is None:
        raise ValueError(f"cannot read {text!r} as a size: write it like 40GiB, 512MiB or 4096")
    return round(float(match[1]) * unit)


def format_bytes(n_bytes: int) -> str:
    """Write bytes for a person: `0 B`, `12.5 MiB`, `79.2 GiB`."""
    size = float(n_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def parse_seconds(text: str) -> float:
    """Read `"5m"`, `"1.5h"`, `"250ms"` or `"30"` as seconds. Raises ValueError when it is no time span."""
    match = _SIZE.fullmatch(text)
    unit = match and _SPANS.get(match[2].lower())
    if not match or unit is None:
        raise ValueError(f"cannot read {text!r} as a time span: write it like 30s, 5m or 250ms")
    return float(match[1]) * unit


def format_seconds(span_s: float) -> str:
    """Write a time span for a person: `40 ms`, `1.9 s`, `3m 20s`, `2h 05m`."""
    if span_s < 1:
        return f"{span_s * 1000:.0f} ms"
    if span_s < 60:
        return f"{span_s:.1f} s"
    minutes, seconds = divmod(round(span_s), 60)
    if minutes < 60:
        return f"{minutes}m {seconds:02d}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes:02d}m"
