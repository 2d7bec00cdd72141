"""A store on an empty disk, and a hub on this machine."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from heliosd.state.database import Database
from heliosd.store.blobs import Blobs
from heliosd.store.durable import make_directory
from heliosd.store.layout import Layout
from heliosd.store.sources.hub import HubAccess
from heliosd.store.sources.wanted import Patience
from heliosd.store.store import Store
from heliosd.store.threads import Threads
from tests.store.hub_server import HubServer, running

IMPATIENT = Patience(attempts=3, first_wait_s=0.001, silence_s=5.0)

OpenStore = Callable[..., AbstractAsyncContextManager[Store]]


@pytest.fixture
def open_store(tmp_path: Path) -> OpenStore:
    """Open the store of this test, again and again if need be; keywords go to `Store`."""

    @asynccontextmanager
    async def opened(*, endpoint: str | None = None, token: str | None = None, **more: object) -> AsyncIterator[Store]:
        database = Database(tmp_path / "state.sqlite")
        await database.open()
        hub = HubAccess(endpoint=endpoint, token=token, offline=endpoint is None)
        store = Store(tmp_path / "store", database, **{"hub": hub, "patience": IMPATIENT, **more})  # type: ignore[arg-type]
        try:
            await store.open()
            yield store
        finally:
            await store.close()
            await database.close()

    return opened


@pytest.fixture
async def store(open_store: OpenStore) -> AsyncIterator[Store]:
    async with open_store() as store:
        yield store


@pytest.fixture
async def hub() -> AsyncIterator[HubServer]:
    async with running(HubServer()) as hub:
        yield hub


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path / "store")
    for folder in (layout.blobs, layout.incoming, layout.revisions):
        make_directory(folder)
    return layout


@pytest.fixture
async def threads() -> AsyncIterator[Threads]:
    threads = Threads(4)
    yield threads
    threads.close()


@pytest.fixture
def blobs(layout: Layout, threads: Threads) -> Blobs:
    return Blobs(layout, threads)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = Database(tmp_path / "state.sqlite")
    await database.open()
    yield database
    await database.close()
