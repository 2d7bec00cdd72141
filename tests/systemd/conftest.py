"""Helios installed below a folder with spaces, from an environment with an awkward name."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

INSTALL = Path(__file__).parents[2] / "systemd" / "install.sh"


@dataclass(frozen=True, slots=True)
class Installed:
    destdir: Path
    venv: Path

    @property
    def lib(self) -> Path:
        return self.destdir / "usr/local/lib"

    def unit(self, name: str) -> Path:
        return self.lib / "systemd/system" / name

    def install(self, *flags: str, **environ: str) -> subprocess.CompletedProcess[str]:
        own = {"PATH": os.environ["PATH"], "DESTDIR": str(self.destdir), "VENV": str(self.venv)}
        return subprocess.run(
            [str(INSTALL), *flags], env=own | environ, capture_output=True, text=True, timeout=600, check=False
        )


@pytest.fixture
def installed(tmp_path: Path) -> Installed:
    venv = tmp_path / "100% my & venv $HOME"
    (venv / "bin").mkdir(parents=True)
    for name in ("heliosd", "heliosctl"):
        (venv / "bin" / name).write_text("#!/bin/sh\n")
        (venv / "bin" / name).chmod(0o755)
    made = Installed(tmp_path / "a package", venv)
    done = made.install()
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return made
