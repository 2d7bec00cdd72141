"""Measures how late the event loop runs what is due: the one number that tells of a blocking call."""

import asyncio
from collections.abc import Callable


async def watch_loop(observe: Callable[[float], None], *, period_s: float = 0.25) -> None:
    """Tell `observe`, once a period and for ever, by how many seconds the loop was late. Run it in a task group."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + period_s
        await asyncio.sleep(period_s)
        observe(max(0.0, loop.time() - due))
