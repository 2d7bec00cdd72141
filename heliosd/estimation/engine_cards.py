"""What the engine's defaults ask of a card: its memory, its name, its compute capability, its multiprocessors.

Names are those of drivers and of people (`NVIDIA H100 80GB HBM3`, `RTX 3090`, `GB10 (DGX Spark)`); memory is what
`torch` reports, a little under the number on the box. Capability and multiprocessors are those of the data sheets.
"""

import functools
import re
from dataclasses import dataclass

from heliosd.core.units import GiB
from heliosd.estimation.launch import Platform


@dataclass(frozen=True, slots=True)
class Card:
    """One device as the engine sees it."""

    name: str
    total_bytes: int
    platform: Platform = Platform.CUDA
    capability: tuple[int, int] | None = None
    """None where it is not CUDA's or not known."""
    multiprocessors: int | None = None

    @property
    def gib(self) -> float:
        return self.total_bytes / GiB

    @property
    def data_centre_blackwell(self) -> bool:
        """B200, GB200, B300: capability 10.x."""
        return self.capability is not None and self.capability[0] == 10


@dataclass(frozen=True, slots=True)
class _Known:
    pattern: str
    gib: float
    capability: tuple[int, int] | None
    multiprocessors: int
    platform: Platform = Platform.CUDA


_ROCM = Platform.ROCM
# The first pattern that is found in the lower-case name wins: longer names stand before those they contain.
_KNOWN = (
    _Known(r"gh200.*(14\d|480)", 139.8, (9, 0), 132),
    _Known(r"gh200", 94.5, (9, 0), 132),
    _Known(r"gb300", 276.0, (10, 3), 152),
    _Known(r"b300", 267.7, (10, 3), 148),
    _Known(r"gb200", 184.3, (10, 0), 152),
    _Known(r"b200", 178.4, (10, 0), 148),
    _Known(r"gb10|dgx spark", 119.6, (12, 1), 48),
    _Known(r"h200", 139.8, (9, 0), 132),
    _Known(r"h100.*nvl", 93.1, (9, 0), 132),
    _Known(r"h100.*pcie", 79.18, (9, 0), 114),
    _Known(r"h[18]00", 79.18, (9, 0), 132),
    _Known(r"h20\b", 95.6, (9, 0), 78),
    _Known(r"a[18]00.*40 ?g", 39.49, (8, 0), 108),
    _Known(r"a[18]00", 79.25, (8, 0), 108),
    _Known(r"a6000", 47.4, (8, 6), 84),
    _Known(r"a40\b", 44.4, (8, 6), 84),
    _Known(r"a30\b", 23.5, (8, 0), 56),
    _Known(r"a10g", 22.0, (8, 6), 80),
    _Known(r"a10\b", 22.0, (8, 6), 72),
    _Known(r"l40s?\b", 44.4, (8, 9), 142),
    _Known(r"l20\b", 44.5, (8, 9), 92),
    _Known(r"l4\b", 22.03, (8, 9), 58),
    _Known(r"t4\b", 14.56, (7, 5), 40),
    _Known(r"v100.*32", 31.73, (7, 0), 80),
    _Known(r"v100", 15.77, (7, 0), 80),
    _Known(r"pro 6000", 94.97, (12, 0), 188),
    _Known(r"5090", 31.35, (12, 0), 170),
    _Known(r"4090.*48", 47.4, (8, 9), 128),
    _Known(r"4090 ?d", 23.5, (8, 9), 114),
    _Known(r"4090", 23.5, (8, 9), 128),
    _Known(r"3090", 23.57, (8, 6), 82),
    _Known(r"3070", 7.8, (8, 6), 40),
    _Known(r"mi355|mi350", 287.9, None, 256, _ROCM),
    _Known(r"mi325", 255.9, None, 304, _ROCM),
    _Known(r"mi300a", 127.9, None, 228, _ROCM),
    _Known(r"mi300", 191.9, None, 304, _ROCM),
    _Known(r"mi250", 63.9, None, 104, _ROCM),
)
_AMD = re.compile(r"\bamd\b|radeon|instinct|gfx\d")
_UNKNOWN_GIB = 24.0


@functools.lru_cache(maxsize=256)
def card(name: str = "", total_bytes: int | None = None, platform: Platform | None = None) -> Card:
    """The card that `name` or its memory tells of; what is given beats what the name says.

    A name nobody knows is a card of `total_bytes` (24 GiB when that is missing too) without capability.
    """
    lower = name.lower()
    if platform is Platform.CPU or lower == "cpu":
        return Card(name or "cpu", total_bytes or 0, Platform.CPU)
    known = next((each for each in _KNOWN if re.search(rf"(?<![a-z0-9]){each.pattern}", lower)), None)
    if known is None:
        guess = Platform.ROCM if _AMD.search(lower) else Platform.CUDA
        return Card(name, total_bytes or round(_UNKNOWN_GIB * GiB), platform or guess)
    return Card(
        name, total_bytes or round(known.gib * GiB), platform or known.platform, known.capability, known.multiprocessors
    )
