"""Work in threads ends before its caller does, also when the caller is cancelled."""

import asyncio
import threading

import pytest

from heliosd.store.threads import Threads


async def test_results_and_errors_come_back(threads: Threads) -> None:
    assert await threads.run(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await threads.run(divmod, 7, 0)


async def test_a_cancelled_caller_waits_for_its_thread(threads: Threads) -> None:
    started, finish = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()
    done: list[str] = []

    def work() -> None:
        loop.call_soon_threadsafe(started.set)
        finish.wait()
        done.append("work")

    async def call() -> None:
        try:
            await threads.run(work)
        finally:
            done.append("caller")

    async with asyncio.TaskGroup() as group:
        caller = group.create_task(call())
        await started.wait()
        caller.cancel()
        await asyncio.sleep(0)
        caller.cancel()  # an impatient second time changes nothing
        await asyncio.sleep(0)
        assert done == []
        finish.set()
    assert caller.cancelled()
    assert done == ["work", "caller"]
