"""promtool and Prometheus, or a skipped test with the reason."""

from pathlib import Path

import pytest

from tests.prometheus.binaries import found_or_why


@pytest.fixture(scope="session")
def promtool() -> Path:
    return _or_skip("promtool")


@pytest.fixture(scope="session")
def prometheus() -> Path:
    return _or_skip("prometheus")


def _or_skip(name: str) -> Path:
    found = found_or_why(name)
    if isinstance(found, str):
        pytest.skip(found)
    return found
