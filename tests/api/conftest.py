"""One API in memory for each test, on the event loop that the daemon runs on."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
import uvloop

from tests.api.world import World, world


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def it() -> AsyncIterator[World]:
    async with world() as made:
        yield made
