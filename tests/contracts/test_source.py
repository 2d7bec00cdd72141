"""What every source of models promises, over each of them."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from heliosd.core.manifest import manifest_of
from heliosd.errors import NotFound
from heliosd.store.blobs import Blobs
from heliosd.store.durable import make_directory
from heliosd.store.inspection import inspect
from heliosd.store.layout import Layout
from heliosd.store.selection import choose
from heliosd.store.sources.directory import DirectorySource
from heliosd.store.sources.fetch import Fetcher
from heliosd.store.sources.gguf import GgufSource
from heliosd.store.sources.hub import HubAccess, HubSource
from heliosd.store.sources.source import Progress, Source
from heliosd.store.sources.wanted import Patience
from heliosd.store.threads import Threads
from tests.store.hub_server import HubServer, running
from tests.store.models import model_files, write_folder
from tests.store.test_gguf import write_gguf

Make = Callable[[bool], Source]
"""A source of a model that exists, or of one that does not."""


class Room:
    """A store's insides, for a source to deliver into."""

    def __init__(self, root: Path) -> None:
        self.layout = Layout(root)
        for folder in (self.layout.blobs, self.layout.incoming):
            make_directory(folder)
        self.threads = Threads(4)
        self.blobs = Blobs(self.layout, self.threads)


@pytest.fixture
async def room(tmp_path: Path) -> AsyncIterator[Room]:
    room = Room(tmp_path / "store")
    yield room
    room.threads.close()


@pytest.fixture(params=["directory", "hub", pytest.param("gguf", marks=pytest.mark.slow)])
async def make(request: pytest.FixtureRequest, room: Room, tmp_path: Path) -> AsyncIterator[Make]:
    match request.param:
        case "directory":
            folder = write_folder(tmp_path / "m", model_files(1 << 20))
            yield lambda there: DirectorySource(folder if there else tmp_path / "none", room.blobs, room.threads)
        case "gguf":
            write_gguf(tmp_path / "m.gguf")
            yield lambda there: GgufSource(
                tmp_path / ("m.gguf" if there else "none.gguf"), room.layout, room.blobs, room.threads
            )
        case "hub":
            patience = Patience(attempts=2, first_wait_s=0.001)
            fetcher = Fetcher(room.layout, room.blobs, room.threads, patience)
            async with running(HubServer(files={"org/m": model_files(1 << 20)})) as hub:
                access = HubAccess(endpoint=hub.url, offline=False)
                yield lambda there: HubSource("org/m" if there else "org/none", None, access, fetcher)
                await fetcher.close()


async def test_a_listed_model_is_delivered_and_right(make: Make, room: Room) -> None:
    source = make(True)
    seen: list[Progress] = []
    listing = await source.list(seen.append)
    assert seen, "listing says what it is doing"
    assert {"kind", "location"} <= listing.origin.keys()
    files = choose(listing.files, "it", allow_pickle=False)
    done: list[int] = []

    def told(count: int, /, *, here: bool = False) -> None:
        done.append(count)

    with room.blobs.hold() as hold:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(source.deliver(file, hold, told)) for file in files]
        manifest = manifest_of(task.result() for task in tasks)
        assert {file.digest for file in manifest.files} <= room.blobs.held
    await source.close()
    assert [(file.path, file.size_bytes) for file in manifest.files] == [(file.path, file.size_bytes) for file in files]
    assert sum(done) == manifest.size_bytes
    for file in manifest.files:
        assert hashlib.sha256(room.blobs.path(file.digest).read_bytes()).hexdigest() == file.digest
    assert inspect(manifest, room.blobs.path).facts.profile.weights_bytes > 0
    assert list(room.layout.incoming.iterdir()) == []


async def test_what_is_not_there_is_not_found(make: Make, room: Room) -> None:
    source = make(False)
    with pytest.raises(NotFound, match=r"^cannot "):
        await source.list(lambda _: None)
    await source.close()
    await source.close()
    assert list(room.layout.incoming.iterdir()) == []


async def test_a_cancelled_delivery_leaves_no_open_file(make: Make, room: Room) -> None:
    source = make(True)
    listing = await source.list(lambda _: None)
    (file,) = (file for file in listing.files if file.path == "model.safetensors")
    begun = asyncio.Event()

    def told(count: int, /, *, here: bool = False) -> None:
        begun.set()

    with room.blobs.hold() as hold:
        async with asyncio.TaskGroup() as group:
            delivery = group.create_task(source.deliver(file, hold, told))
            await begun.wait()
            delivery.cancel()
    await source.close()
    kept = {path.suffix for path in room.layout.incoming.iterdir()}
    assert kept <= ({".part", ".journal"} if listing.resumable else set())
    assert _open_files(room.layout.root) == []


def _open_files(root: Path) -> list[Path]:
    """What this process has open under `root`."""
    return [path for path in map(_target, Path("/proc/self/fd").iterdir()) if path.is_relative_to(root)]


def _target(handle: Path) -> Path:
    try:
        return handle.readlink()
    except OSError:
        return Path()  # the handle of the listing itself
