"""A store that has the models already, made once and shared by all daemons of the tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.daemon import a_folder, heliosd, share

SMOL = "HuggingFaceTB/SmolLM2-135M-Instruct"
TINY = "test/tiny"
OTHER = "test/other"


@pytest.fixture(scope="session")
def stock(smol_dir: Path, tiny_dir: Path) -> Iterator[Path]:
    """A state directory with SmolLM2 (alias smollm2), and the tiny model under two names."""
    with a_folder() as kept, heliosd(config="[engines]\npreload = false\n") as daemon:
        daemon.bring(smol_dir, SMOL, "smollm2")
        daemon.bring(tiny_dir, TINY, "tiny")
        daemon.bring(tiny_dir, OTHER)
        daemon.stop()
        share(daemon.state, kept / "state")
        yield kept / "state"
