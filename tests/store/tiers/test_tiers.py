"""Blobs on their way between the store and a slower volume, and in RAM: on real files."""

import resource
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from heliosd.core.names import Digest, parse_ref
from heliosd.core.retention import Tier
from heliosd.core.units import KiB, MiB
from heliosd.errors import ConfigError, Conflict, CorruptData, Unavailable
from heliosd.store.store import Store
from heliosd.store.stored import Addition, StoredModel
from heliosd.store.tiers.tiers import TierLimits
from tests.store.conftest import OpenStore
from tests.store.models import model_files, write_folder


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    return tmp_path / "disk"


@pytest.fixture
async def store(open_store: OpenStore, disk: Path) -> AsyncIterator[Store]:
    async with open_store(tiers=TierLimits(disk_dir=disk, host_memory_bytes=64 * MiB)) as store:
        yield store


async def add(store: Store, folder: Path, seed: int = 0, size_bytes: int = 1 * MiB) -> StoredModel:
    folder = write_folder(folder / f"m{seed}", model_files(size_bytes, seed))
    return await store.add(Addition("directory", str(folder), parse_ref(f"me/m{seed}")), lambda _: None)


def weights(model: StoredModel) -> Digest:
    return max(model.manifest.files, key=lambda file: file.size_bytes).digest


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]


async def test_a_blob_on_the_disk_stays_under_its_path_and_comes_back(store: Store, tmp_path: Path, disk: Path) -> None:
    model = await add(store, tmp_path)
    digest = weights(model)
    path = await store.directory(model.revision) / "model.safetensors"
    content = path.read_bytes()
    assert await store.tiers.move(digest, Tier.DISK) == len(content)
    blob = path.resolve()
    assert blob.is_relative_to(disk) and blob.stat().st_mode & 0o777 == 0o444
    assert path.read_bytes() == content
    assert (await store.directory(model.revision) / "model.safetensors").read_bytes() == content
    seen = await store.tiers.survey()
    assert seen.disk == {digest: len(content)} and digest not in seen.nvme
    assert await store.tiers.move(digest, Tier.DISK) == 0
    assert await store.tiers.move(digest, Tier.NVME) == len(content)
    assert path.read_bytes() == content and path.resolve().is_relative_to(tmp_path / "store")
    assert files(disk / "blobs") == [] and list((tmp_path / "store/incoming").iterdir()) == []


async def test_adding_what_is_on_the_disk_copies_nothing_and_removing_frees_both(
    store: Store, tmp_path: Path, disk: Path
) -> None:
    model = await add(store, tmp_path)
    await store.tiers.move(weights(model), Tier.DISK)
    again = await store.add(Addition("directory", str(tmp_path / "m0"), parse_ref("me/other")), lambda _: None)
    assert weights(again) in (await store.tiers.survey()).disk
    assert await store.remove(parse_ref("me/m0")) == 0
    assert len(files(disk / "blobs")) == 1
    assert await store.remove(parse_ref("me/other")) == model.manifest.size_bytes
    assert files(disk / "blobs") == [] and files(tmp_path / "store/blobs") == []
    assert not any(path.is_symlink() for path in (tmp_path / "store/blobs").rglob("*"))


async def test_what_is_in_use_is_not_moved(store: Store, tmp_path: Path, disk: Path) -> None:
    model = await add(store, tmp_path)
    async with store.hold(model.revision):
        with pytest.raises(Conflict, match="it is in use"):
            await store.tiers.move(weights(model), Tier.DISK)

        async def none() -> None:
            raise AssertionError("nothing is copied")

        with pytest.raises(Conflict):
            await store.tiers.move(weights(model), Tier.DISK, none)
    assert files(disk / "blobs") == files(disk / "incoming") == []


async def test_who_begins_to_use_it_during_the_move_keeps_it_where_it_is(store: Store, tmp_path: Path, disk: Path):
    model = await add(store, tmp_path, size_bytes=5 * MiB)
    held = store.hold(model.revision)

    async def begin() -> None:
        if not store.tiers.held:
            await held.__aenter__()

    with pytest.raises(Conflict, match="it is in use"):
        await store.tiers.move(weights(model), Tier.DISK, begin)
    await held.__aexit__(None, None, None)
    assert files(disk / "blobs") == files(disk / "incoming") == []
    assert (await store.tiers.survey()).disk == {}


async def test_who_removes_it_during_the_move_leaves_nothing(store: Store, tmp_path: Path, disk: Path) -> None:
    model = await add(store, tmp_path, size_bytes=5 * MiB)
    ref = model.ref

    async def remove() -> None:
        if await store.find(ref):
            await store.remove(ref)

    with pytest.raises(Conflict, match="removed meanwhile"):
        await store.tiers.move(weights(model), Tier.DISK, remove)
    assert files(disk / "blobs") == files(disk / "incoming") == files(tmp_path / "store/blobs") == []


async def test_a_damaged_blob_is_not_moved_on_as_if_it_were_whole(store: Store, tmp_path: Path, disk: Path) -> None:
    model = await add(store, tmp_path)
    path = (await store.directory(model.revision) / "model.safetensors").resolve()
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(1000)
        file.write(b"damage")
    with pytest.raises(CorruptData, match=f"cannot move the blob {weights(model)}: .* reads as"):
        await store.tiers.move(weights(model), Tier.DISK)
    assert files(disk / "blobs") == files(disk / "incoming") == []


async def test_a_disk_that_is_gone_is_named_and_what_is_left_over_is_swept(
    open_store: OpenStore, tmp_path: Path, disk: Path
) -> None:
    limits = TierLimits(disk_dir=disk)
    async with open_store(tiers=limits) as store:
        model = await add(store, tmp_path)
        await store.tiers.move(weights(model), Tier.DISK)
        (there,) = files(disk / "blobs")
        there.rename(tmp_path / "aside")
        with pytest.raises(CorruptData, match=f"is not on the disk that it was moved to .{there}.; mount that"):
            await store.directory(model.revision)
        (tmp_path / "aside").rename(there)
    stray = there.parent / ("f" * 64)
    stray.write_bytes(b"left by a crash")
    (disk / "incoming" / "half.part").write_bytes(b"half")
    async with open_store(tiers=limits) as store:
        assert files(disk / "blobs") == [there] and files(disk / "incoming") == []
        assert (await store.directory(model.revision) / "model.safetensors").stat().st_size > MiB


async def test_a_disk_of_another_store_is_left_alone(open_store: OpenStore, tmp_path: Path, disk: Path) -> None:
    async with open_store(tiers=TierLimits(disk_dir=disk)) as store:
        await store.tiers.move(weights(await add(store, tmp_path)), Tier.DISK)
    (tmp_path / "store/store-id").unlink()
    with pytest.raises(ConfigError, match="it belongs to another store"):
        async with open_store(tiers=TierLimits(disk_dir=disk)):
            pass
    assert len(files(disk / "blobs")) == 1


async def test_a_budget_is_a_refusal_before_anything_is_written(open_store: OpenStore, tmp_path: Path) -> None:
    async with open_store(tiers=TierLimits(nvme_budget_bytes=1500 * KiB)) as store:
        await add(store, tmp_path)
        with pytest.raises(
            Unavailable, match=r"it needs 1.0 MiB of disk and .*, which may hold 1.5 MiB, has 4"
        ) as caught:
            await add(store, tmp_path, seed=1)
        assert caught.value.code == "disk_full"
        assert list((tmp_path / "store/incoming").iterdir()) == []


async def test_what_is_in_ram_is_locked_or_read_ahead_and_let_go(store: Store, tmp_path: Path) -> None:
    model = await add(store, tmp_path, size_bytes=2 * MiB)
    tiers, digest = store.tiers, weights(model)
    before = _locked_bytes()
    size_bytes = await tiers.stage(digest)
    assert tiers.staged == {digest: size_bytes} and size_bytes > 2 * MiB
    assert await tiers.stage(digest) == 0
    if tiers.locked:
        assert _locked_bytes() - before >= 2 * MiB
    await tiers.unstage(digest)
    assert tiers.staged == {} and _locked_bytes() <= before
    tiers.host_limit_bytes = 1 * MiB
    assert await tiers.stage(digest) == 0 and tiers.staged == {}


async def test_without_the_right_to_lock_it_is_read_ahead_and_said_once(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = await add(store, tmp_path, size_bytes=2 * MiB)
    soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, hard))
    try:
        for file in model.manifest.files:
            await store.tiers.stage(file.digest)
        assert len(store.tiers.staged) == 3
        if not store.tiers.locked:  # root may lock whatever the limit says
            assert caplog.text.count("cannot lock models in host memory") == 1
    finally:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (soft, hard))


def _locked_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * KiB for line in lines if line.startswith("VmLck"))


async def test_a_move_takes_it_out_of_ram_first(store: Store, tmp_path: Path) -> None:
    model = await add(store, tmp_path)
    await store.tiers.stage(weights(model))
    await store.tiers.move(weights(model), Tier.DISK)
    assert store.tiers.staged == {}
    assert await store.tiers.stage(weights(model)) > 0, "from the disk, through the link"
