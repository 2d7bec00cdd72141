"""A blocked event loop is noticed, and an idle one is not accused."""

import asyncio
import time

from heliosd.telemetry.loop_lag import watch_loop


async def test_blocking_shows_as_lag() -> None:
    seen: asyncio.Queue[float] = asyncio.Queue()
    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(watch_loop(seen.put_nowait, period_s=0.01))
        await seen.get()
        time.sleep(0.15)
        lag_s = max([await seen.get() for _ in range(2)])
        watching.cancel()
    assert lag_s > 0.1
