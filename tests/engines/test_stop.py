"""A stop interrupts what is awaited, now or at the next wait, and nothing else does."""

import asyncio

import pytest

from heliosd.engines.stop import Stop


async def forever() -> str:
    await asyncio.get_running_loop().create_future()
    return "never"


async def soon() -> str:
    await asyncio.sleep(0)
    return "done"


async def test_work_that_ends_first_gives_its_result() -> None:
    assert await Stop().unless(soon()) == "done"


async def test_asked_while_waiting() -> None:
    stop = Stop()
    asyncio.get_running_loop().call_soon(stop.ask)
    assert await stop.unless(forever()) is None


async def test_asked_before() -> None:
    stop = Stop()
    stop.ask()
    assert await stop.unless(forever()) is None


async def test_a_timeout_of_the_works_own_is_not_a_stop() -> None:
    async def too_slow() -> None:
        async with asyncio.timeout(0):
            await forever()

    with pytest.raises(TimeoutError):
        await Stop().unless(too_slow())


async def test_asked_twice_is_asked_once() -> None:
    stop = Stop()
    loop = asyncio.get_running_loop()
    loop.call_soon(stop.ask)
    loop.call_soon(stop.ask)
    assert await stop.unless(forever()) is None
    stop.ask()
