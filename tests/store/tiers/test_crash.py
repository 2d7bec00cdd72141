"""The daemon is killed at random moments of promotions and demotions; then nothing is lost, wrong or left over."""

import asyncio
import hashlib
import random
import sys
from pathlib import Path

import pytest

from heliosd.store.tiers.tiers import TierLimits
from tests.store.conftest import OpenStore
from tests.store.models import model_files, write_folder

pytestmark = pytest.mark.slow

PROJECT = Path(__file__).parents[3]
KILLS = 15


async def killed(root: Path, folders: list[str], steps: int, after_s: float) -> None:
    """Let the child take so many steps, then kill it a little later."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.store.tiers.crash_child", str(root), *folders),
        stdout=asyncio.subprocess.PIPE,
        cwd=PROJECT,
    )
    assert process.stdout is not None
    try:
        for _ in range(steps + 1):
            assert await process.stdout.readline(), "the child ended by itself"
        asyncio.get_running_loop().call_later(after_s, process.kill)
        while await process.stdout.readline():
            pass
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


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
        await killed(tmp_path, folders, chance.randrange(4), chance.uniform(0.0, 0.04))
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
