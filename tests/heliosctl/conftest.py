"""A stand-in daemon beside the test, and heliosctl called in-process against it."""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from heliosctl.__main__ import main
from tests.heliosctl.stand_in import StandIn, serving_from_a_thread


@pytest.fixture
def socket_path() -> Iterator[Path]:
    # Not tmp_path: with a long test name it exceeds the 108 bytes a Unix socket's path may have.
    with tempfile.TemporaryDirectory(prefix="helios-") as folder:
        yield Path(folder) / "heliosd.sock"


@pytest.fixture
def daemon(socket_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    for name in ("HELIOS_SOCKET", "HELIOS_URL", "HELIOS_KEY"):
        monkeypatch.delenv(name, raising=False)
    stand_in = StandIn()
    with serving_from_a_thread(stand_in, socket_path):
        yield stand_in


@dataclass(frozen=True, slots=True)
class Ended:
    code: int
    out: str
    err: str


@pytest.fixture
def ctl(socket_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """Run heliosctl with these words; gives its exit code, stdout and stderr."""

    def run(*words: str) -> Ended:
        capsys.readouterr()
        try:
            code = main(["--socket", str(socket_path), *words])
        except SystemExit as left:
            code = int(left.code or 0)
        captured = capsys.readouterr()
        return Ended(code, captured.out, captured.err)

    return run
