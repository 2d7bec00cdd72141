"""The daemon is killed at random moments of promotions and demotions; then nothing is lost, wrong or left over."""

import hashlib
import random
from pathlib import Path

import pytest

from heliosd.store.tiers.tiers import TierLimits
from tests.store.conftest import OpenStore
from tests.store.killed_child import killed
from tests.store.models import model_files, write_folder

pytestmark = pytest.mark.slow

KILLS = 15


async def test_killing_at_random_moments_loses_nothing_and_leaves_nothing(
    open_store: OpenStore, tmp_path: Path
) -> None:
    folders = [
        str(write_folder(tmp_path / f"m{number}", model_files(3 << 20, seed=number) | {"v.json": b"%d" % number}))
        for number in range(3)
    ]
    chance = random.Random(7)
    ever_on_disk = 0
    for _ in range(KILLS):
        steps, after_s = chance.randrange(4), chance.uniform(0.0, 0.04)
        await killed("tests.store.tiers.crash_child", str(tmp_path), *folders, steps=steps, after_s=after_s)
        async with open_store(tiers=TierLimits(disk_dir=tmp_path / "disk")) as store:
            models = await store.models()
            known = {file.digest for model in models for file in model.manifest.files}
            for model in models:
                directory = await store.directory(model.revision)
                for file in model.manifest.files:
                    assert hashlib.sha256((directory / file.path).read_bytes()).hexdigest() == file.digest
            entries = {path.name for path in (tmp_path / "store/blobs/sha256").glob("*/*")}
            assert entries == known
            seen = await store.tiers.survey()
            ever_on_disk += len(seen.disk)
            assert {path.name for path in (tmp_path / "disk/blobs").rglob("*") if path.is_file()} == seen.disk.keys()
            assert list((tmp_path / "store/incoming").iterdir()) == []
            assert list((tmp_path / "disk/incoming").iterdir()) == []
    assert ever_on_disk, "no kill came while anything was on the disk"
