"""A stand-in daemon on the test's own loop, and the screen fed by it."""

import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from heliosctl.place import UnixPlace
from tests.heliosctl.stand_in import StandIn, serving
from tests.tui.household import Household
from tui.app import HeliosTop
from tui.feed import Feed


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rewrite", action="store_true", help="write down what the screens look like today")


@pytest.fixture
def socket_path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="helios-") as folder:
        yield Path(folder) / "heliosd.sock"


@pytest.fixture
async def daemon(socket_path: Path) -> AsyncIterator[StandIn]:
    async with serving(StandIn(), socket_path) as stand_in:
        yield stand_in


@pytest.fixture
async def household(socket_path: Path) -> AsyncIterator[Household]:
    async with serving(Household(), socket_path) as stand_in:
        yield stand_in


@pytest.fixture
def feed(socket_path: Path) -> Feed:
    return Feed(UnixPlace(socket_path), first_retry_s=0.01)


@pytest.fixture
def top(feed: Feed) -> HeliosTop:
    return made(feed)


@pytest.fixture
def show(feed: Feed) -> Callable[..., HeliosTop]:
    """Makes the program with a screen to begin with, read-only if wanted."""
    return lambda screen="top", **more: made(feed, screen=screen, **more)


def made(feed: Feed, **more: object) -> HeliosTop:
    app = HeliosTop(feed, **more)
    app.animation_level = "none"
    return app


@pytest.fixture
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Times of day are local; here they are the same everywhere."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()
