"""Measuring the storage: on which file, what is kept of it, and what is refused."""

import asyncio
import json
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from heliosd.core.manifest import ManifestFile, manifest_of
from heliosd.core.names import Digest
from heliosd.core.retention import Tier
from heliosd.core.storage_speed import Speed
from heliosd.errors import Conflict, HeliosError, NotFound
from heliosd.state.database import Database
from heliosd.state.storage import StorageSpeeds
from heliosd.storage_check import StorageCheck
from heliosd.store.away import AwayFile
from heliosd.store.stored import StoredModel
from tests.api.world import stored


class Models:
    """A store whose models all lie in one folder."""

    def __init__(self, folder: Path, **sizes: int) -> None:
        self.folder = folder
        self.held = 0
        self.gone: dict[Digest, AwayFile] = {}
        self.all = tuple(self._model(name, size) for name, size in sizes.items())

    def _model(self, name: str, size_bytes: int) -> StoredModel:
        files = [
            ManifestFile("config.json", Digest("a" * 64), 10**12),
            ManifestFile(f"{name}.safetensors", Digest("b" * 64), size_bytes),
        ]
        return replace(stored(name), manifest=manifest_of(files))

    async def models(self) -> tuple[StoredModel, ...]:
        return self.all

    async def away(self) -> dict[Digest, AwayFile]:
        return self.gone

    @asynccontextmanager
    async def hold(self, revision: Digest) -> AsyncIterator[Path]:
        self.held += 1
        yield self.folder
        self.held -= 1


@pytest.fixture
async def kept(tmp_path: Path) -> AsyncIterator[StorageSpeeds]:
    database = Database(tmp_path / "state.db")
    await database.open()
    yield StorageSpeeds(database)
    await database.close()


def write(path: Path, size_bytes: int = 2**20) -> None:
    header = json.dumps({"t": {"dtype": "U8", "shape": [size_bytes], "data_offsets": [0, size_bytes]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(size_bytes))


async def test_the_largest_file_is_measured_each_way_and_engines_learn_of_it(
    tmp_path: Path, kept: StorageSpeeds
) -> None:
    write(tmp_path / "big.safetensors")
    kind = SimpleNamespace(speeds=())
    models = Models(tmp_path, small=10, big=2**20)
    check = StorageCheck(models, kept, [kind], on_cuda=False, smallest_bytes=2**19)
    report = await check.measure()
    assert report.file == "big.safetensors of big"
    assert report.load_format == "helios"
    by_name = {speed.method: speed for speed in report.speeds}
    assert {"read", "helios", "direct"} <= by_name.keys()
    for name in ("read", "helios"):
        assert by_name[name].note is None
        assert (by_name[name].cold_bytes_per_s or 0) > 0
        assert (by_name[name].warm_bytes_per_s or 0) > 0
    assert kind.speeds == report.speeds == await kept.all()
    assert models.held == 0
    later = SimpleNamespace(speeds=())
    await StorageCheck(models, kept, [later], on_cuda=False).recall()
    assert later.speeds == report.speeds


async def test_what_is_kept_as_a_recipe_is_passed_over(tmp_path: Path, kept: StorageSpeeds) -> None:
    write(tmp_path / "small.safetensors")
    (tmp_path / "big.safetensors.recipe").write_text("{}")
    check = StorageCheck(Models(tmp_path, small=2**20, big=2**21), kept, [], on_cuda=False, smallest_bytes=2**19)
    assert (await check.measure()).file == "small.safetensors of small"
    (tmp_path / "small.safetensors.recipe").write_text("{}")
    with pytest.raises(NotFound, match="all that are there share bytes"):
        await check.measure()


async def test_what_is_measured_again_replaces_what_was_known(kept: StorageSpeeds) -> None:
    await kept.replace((Speed("read", 1.0, 2.0), Speed("helios", None, 2.0, "mapped")), 5.0)
    await kept.replace((Speed("read", 3.0, 4.0),), 6.0)
    assert await kept.all() == (Speed("read", 3.0, 4.0),)


@pytest.mark.parametrize("sizes", [{}, {"small": 2**20}])
async def test_without_a_large_file_it_says_what_to_do(
    tmp_path: Path, kept: StorageSpeeds, sizes: dict[str, int]
) -> None:
    with pytest.raises(NotFound, match=r"takes a safetensors file of 64\.0 MiB or more.*add a larger model first"):
        await StorageCheck(Models(tmp_path, **sizes), kept, [], on_cuda=False).measure()


async def test_what_was_let_go_is_not_fetched_to_measure_with(tmp_path: Path, kept: StorageSpeeds) -> None:
    models = Models(tmp_path, big=2**21)
    models.gone = {Digest("b" * 64): AwayFile(2**21, Tier.PEER)}
    with pytest.raises(NotFound, match="it has none"):
        await StorageCheck(models, kept, [], on_cuda=False, smallest_bytes=2**19).measure()


async def test_a_file_that_is_damaged_is_told_for_each_way(tmp_path: Path, kept: StorageSpeeds) -> None:
    (tmp_path / "bad.safetensors").write_bytes(b"\xff" * 2**20)
    report = await StorageCheck(Models(tmp_path, bad=2**20), kept, [], on_cuda=False, smallest_bytes=1).measure()
    [ours] = [speed for speed in report.speeds if speed.method == "helios"]
    assert ours.cold_bytes_per_s is None
    assert "cannot load bad.safetensors" in (ours.note or "")


async def test_a_file_that_is_gone_is_an_error_with_its_name(tmp_path: Path, kept: StorageSpeeds) -> None:
    with pytest.raises(HeliosError, match=r"cannot measure the storage: .*gone\.safetensors"):
        await StorageCheck(Models(tmp_path, gone=2**20), kept, [], on_cuda=False, smallest_bytes=1).measure()


async def test_two_at_once_would_measure_each_other(tmp_path: Path, kept: StorageSpeeds) -> None:
    write(tmp_path / "big.safetensors")
    check = StorageCheck(Models(tmp_path, big=2**20), kept, [], on_cuda=False, smallest_bytes=1)
    async with asyncio.TaskGroup() as group:
        first = group.create_task(check.measure())
        await asyncio.sleep(0)
        with pytest.raises(Conflict, match="being measured just now"):
            await check.measure()
    assert first.result().speeds
