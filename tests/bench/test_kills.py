"""A dozen of the kills that `python -m tests.bench.kills` deals out."""

from pathlib import Path

import pytest

from tests.bench.kills import killed


@pytest.mark.slow
async def test_a_dozen_kills_lose_corrupt_and_leak_nothing(tmp_path: Path) -> None:
    found = await killed(tmp_path, kills=12, seed=7)
    assert found.faults == []
    assert found.kills == 12
    assert found.said["open"] > 0
