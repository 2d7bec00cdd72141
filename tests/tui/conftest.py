"""A stand-in daemon on the test's own loop, and the screen fed by it."""

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from heliosctl.place import UnixPlace
from tests.heliosctl.stand_in import StandIn, serving
from tui.app import HeliosTop
from tui.feed import Feed


@pytest.fixture
def socket_path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="helios-") as folder:
        yield Path(folder) / "heliosd.sock"


@pytest.fixture
async def daemon(socket_path: Path) -> AsyncIterator[StandIn]:
    async with serving(StandIn(), socket_path) as stand_in:
        yield stand_in


@pytest.fixture
def feed(socket_path: Path) -> Feed:
    return Feed(UnixPlace(socket_path), first_retry_s=0.01)


@pytest.fixture
def top(feed: Feed) -> HeliosTop:
    app = HeliosTop(feed)
    app.animation_level = "none"
    return app
