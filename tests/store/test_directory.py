"""A folder as a source: nothing outside it is read."""

import os
from pathlib import Path

import pytest

from heliosd.errors import BadRequest, NotAllowed, NotFound, SourceFailed
from heliosd.store.blobs import Blobs
from heliosd.store.sources.directory import DirectorySource
from heliosd.store.sources.source import SourceFile
from heliosd.store.store import Store
from heliosd.store.stored import Addition
from heliosd.store.threads import Threads
from tests.store.models import model_files, write_folder


async def add(store: Store, folder: Path | str) -> None:
    await store.add(Addition("directory", str(folder)), lambda _: None)


async def test_what_is_no_folder(store: Store, tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="absolute path"):
        await add(store, "models/m")
    with pytest.raises(NotFound, match="no such folder"):
        await add(store, tmp_path / "none")
    (tmp_path / "file").write_text("x")
    with pytest.raises(NotFound):
        await add(store, tmp_path / "file")


async def test_links_inside_the_folder_are_read(store: Store, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m", model_files())
    (folder / "generation_config.json").symlink_to("config.json")
    await add(store, folder)


async def test_the_hub_cache_is_read_through_its_links(store: Store, tmp_path: Path) -> None:
    repository = tmp_path / "models--org--m"
    snapshot = repository / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    for number, (path, content) in enumerate(model_files().items()):
        write_folder(repository / "blobs", {str(number): content})
        (snapshot / path).symlink_to(f"../../blobs/{number}")
    await add(store, snapshot)


@pytest.mark.parametrize("name", ["secret.json", "config.json"])
async def test_links_out_of_the_folder_are_refused(store: Store, tmp_path: Path, name: str) -> None:
    folder = write_folder(tmp_path / "m", model_files())
    (tmp_path / "secret.json").write_text("{}")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to("../secret.json")
    with pytest.raises(NotAllowed, match="outside the folder"):
        await add(store, folder)
    assert await store.models() == ()


async def test_links_to_folders_are_refused(store: Store, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m", model_files())
    (folder / "etc").symlink_to("/etc")
    with pytest.raises(NotAllowed, match="a link to a folder"):
        await add(store, folder)


async def test_a_link_in_the_way_leads_nowhere(blobs: Blobs, threads: Threads, tmp_path: Path) -> None:
    """A folder on the way is exchanged for a link between listing and reading."""
    folder = write_folder(tmp_path / "m", {"sub/config.json": b"{}"})
    write_folder(tmp_path / "outside", {"config.json": b"{}"})
    source = DirectorySource(folder, blobs, threads)
    (listed,) = (await source.list(lambda _: None)).files
    (folder / "sub").rename(folder / "was")
    (folder / "sub").symlink_to(tmp_path / "outside")
    with blobs.hold() as hold, pytest.raises(NotAllowed):
        await source.deliver(listed, hold, lambda _: None)


async def test_a_pipe_is_no_file(blobs: Blobs, threads: Threads, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m", model_files())
    os.mkfifo(folder / "extra.json")
    source = DirectorySource(folder, blobs, threads)
    listing = await source.list(lambda _: None)
    assert "extra.json" not in [file.path for file in listing.files]
    with blobs.hold() as hold, pytest.raises(NotAllowed, match="no plain file"):
        await source.deliver(SourceFile("extra.json", 0), hold, lambda _: None)


async def test_a_file_that_grows_meanwhile(blobs: Blobs, threads: Threads, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m", {"config.json": b"{}"})
    source = DirectorySource(folder, blobs, threads)
    (listed,) = (await source.list(lambda _: None)).files
    (folder / "config.json").write_text("{   }")
    with blobs.hold() as hold, pytest.raises(SourceFailed, match="had 2 bytes when listed and 5 when read"):
        await source.deliver(listed, hold, lambda _: None)
