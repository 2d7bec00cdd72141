"""Colours and glyphs. Whatever a colour tells, a glyph tells too.

The colours are those of Okabe and Ito's set, which people with any of the usual colour blindnesses tell apart.
"""

from dataclasses import dataclass

BLUE = "#0072b2"
SKY = "#56b4e9"
GREEN = "#009e73"
YELLOW = "#f0e442"
ORANGE = "#e69f00"
VERMILION = "#d55e00"
PURPLE = "#cc79a7"
GREY = "#808080"


@dataclass(frozen=True, slots=True)
class Kind:
    """A part of memory. The glyphs differ, so that nobody needs the colours."""

    name: str
    glyph: str
    style: str


WEIGHTS = Kind("weights", "█", BLUE)
KV_USED = Kind("KV used", "▓", GREEN)
KV_RESERVED = Kind("KV reserved", "▒", SKY)
OVERHEAD = Kind("activations+graphs", "#", ORANGE)
SLEEPERS = Kind("sleepers", "z", PURPLE)
FOREIGN = Kind("foreign", "x", VERMILION)
SAFETY = Kind("safety", "-", YELLOW)
FREE = Kind("free", "·", GREY)
KINDS = (WEIGHTS, KV_USED, KV_RESERVED, OVERHEAD, SLEEPERS, FOREIGN, SAFETY, FREE)

_STATES = {
    "ready": ("●", GREEN),
    "asleep": ("z", PURPLE),
    "sleeping": ("z", PURPLE),
    "waking": (">", SKY),
    "planned": (">", SKY),
    "fetching": (">", SKY),
    "starting": (">", SKY),
    "draining": ("v", ORANGE),
    "stopping": ("v", ORANGE),
    "failed": ("!", f"bold {VERMILION}"),
    "self": ("●", GREEN),
    "alive": ("●", GREEN),
    "suspect": ("?", ORANGE),
    "dead": ("!", f"bold {VERMILION}"),
    "left": ("-", GREY),
}


def state_mark(state: str) -> tuple[str, str]:
    """The glyph before a state, and the style of both."""
    return _STATES.get(state, (" ", ""))
