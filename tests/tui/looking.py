"""What a person sees, and waiting for it."""

import asyncio
from collections.abc import Callable

from textual.pilot import Pilot

from tui.app import HeliosTop
from tui.frame import drawn, plain


def shown(top: HeliosTop) -> str:
    """What is on the screen now, as text."""
    return plain(drawn(top))


async def until(pilot: Pilot[object], condition: Callable[[], object]) -> None:
    """Let the screen work until the condition holds; if it never does, tell what is there instead."""
    try:
        async with asyncio.timeout(20):
            while not condition():
                await pilot.pause(0.01)
    except TimeoutError:
        raise AssertionError(f"that never came; the screen is\n{shown(pilot.app)}") from None


def sees(top: HeliosTop, *words: str) -> Callable[[], bool]:
    return lambda: all(word in shown(top) for word in words)
