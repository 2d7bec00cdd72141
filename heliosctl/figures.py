"""Predicted beside measured, for the command line and the screen alike."""

from heliosd.core.units import format_bytes

PARTS = (
    ("weights", "weights_bytes"),
    ("KV cache", "kv_cache_bytes"),
    ("overhead", "overhead_bytes"),
    ("total", "total_bytes"),
)
"""What to call a FootprintView's fields, in the order they are shown."""


def against(predicted: int, measured: int) -> tuple[str, str]:
    """Measured bytes, and by how much the prediction was above (+) or below (-) them."""
    if not measured:
        return format_bytes(measured), "-"
    ratio = (predicted - measured) / measured
    return format_bytes(measured), "0.0%" if abs(ratio) < 0.0005 else f"{ratio:+.1%}"
