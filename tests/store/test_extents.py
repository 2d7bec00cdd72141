"""Sharing blocks, on file systems that can: made in an image and mounted here, where the machine allows that."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from heliosd.core.names import ModelRef
from heliosd.core.units import MiB
from heliosd.state.database import Database
from heliosd.store.extents import can_share, ranges, taken_bytes
from heliosd.store.store import Store
from heliosd.store.stored import Addition
from tests.store.related import KiB, folder, tuned


@pytest.fixture
def volume(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """An empty volume of a file system of that name."""
    make, image, where = f"mkfs.{request.param}", tmp_path / "image", tmp_path / "volume"
    if os.geteuid() or not shutil.which(make):
        pytest.skip(f"{make} and the right to mount are needed")
    with image.open("wb") as file:
        file.truncate(400 * MiB)
    where.mkdir()
    subprocess.run([make, image], check=True, capture_output=True)
    mounted = subprocess.run(["mount", "-o", "loop", image, where], check=False, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"this machine mounts no image: {mounted.stderr.strip()}")
    try:
        yield where
    finally:
        subprocess.run(["umount", "--lazy", where], check=True)


def used_bytes(volume: Path) -> int:
    os.sync()
    found = os.statvfs(volume)
    return (found.f_blocks - found.f_bfree) * found.f_frsize


@pytest.mark.parametrize("volume", ["btrfs"], indirect=True)
def test_btrfs_would_not_give_back_what_is_shared(volume: Path) -> None:
    assert not can_share(volume)


@pytest.mark.parametrize("volume", ["xfs"], indirect=True)
async def test_fine_tunes_share_blocks_and_stay_whole(volume: Path, tmp_path: Path) -> None:
    assert can_share(volume)
    database = Database(tmp_path / "state.sqlite")
    await database.open()
    store = Store(volume / "store", database, shared_file_bytes=64 * KiB, shared_run_bytes=16 * KiB)
    await store.open()
    contents = {"base": tuned(layer_bytes=MiB), "a": tuned({3: 1, 17: 1}, layer_bytes=MiB)}
    contents["b"] = tuned({9: 1, 25: 1}, layer_bytes=MiB)
    models = {}
    for name, content in contents.items():
        source = Addition("directory", str(folder(tmp_path / name, content)), ModelRef(name))
        models[name] = await store.add(source, lambda _: None)
    before = used_bytes(volume)
    found = await store.share()
    assert found.files == 2
    assert before - used_bytes(volume) == pytest.approx(found.freed_bytes, abs=MiB)
    assert (await store.sizes())[1] < 1.2 * len(contents["base"])
    for name, model in models.items():
        file = await store.directory(model.revision) / "model-0.safetensors"
        assert file.is_symlink()
        assert file.read_bytes() == contents[name]
    assert (await store.share(again=True)).freed_bytes == 0
    # The base may go: what the others have of it stays, and is then counted once among them.
    for name in contents:
        usage = await store.usage()
        (mine,) = [each for each in usage.models if each.ref == name]
        assert await store.remove(ModelRef(name)) == mine.frees_bytes
        del models[name]
        assert (await store.usage()).physical_bytes == usage.physical_bytes - mine.frees_bytes
        for each, model in models.items():
            assert (await store.directory(model.revision) / "model-0.safetensors").read_bytes() == contents[each]
    assert (await store.usage()).physical_bytes == 0
    await store.close()
    await database.close()


def test_where_blocks_cannot_be_shared_nothing_is_left_of_the_trial(tmp_path: Path) -> None:
    can_share(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_is_shared_is_counted_once() -> None:
    assert taken_bytes([]) == 0
    assert taken_bytes([[(0, 10), (20, 30)], [(5, 25)]]) == 30
    assert taken_bytes([[(0, 10)], [(0, 10)], [(10, 12)]]) == 12


def test_where_a_file_lies(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x" * 10_000)
    try:
        found = ranges(file)
    except OSError:
        pytest.skip("this file system does not tell where files lie")
    assert sum(end - begin for begin, end in found) == 12_288
