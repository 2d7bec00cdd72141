"""The installer: below a DESTDIR, twice, over an existing configuration, and away again."""

import os
import subprocess
from pathlib import Path

import pytest

from heliosd.__main__ import main
from tests.systemd.conftest import INSTALL, Installed


def _tree(folder: Path) -> dict[str, bytes | str]:
    """Every file with its content, every link with its goal."""
    found: dict[str, bytes | str] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            found[str(path.relative_to(folder))] = str(path.readlink())
        elif path.is_file():
            found[str(path.relative_to(folder))] = path.read_bytes()
    return found


def test_everything_is_in_its_place(installed: Installed) -> None:
    tree = _tree(installed.destdir)
    assert list(tree) == [
        "etc/helios/helios.toml",
        "usr/local/bin/heliosctl",
        "usr/local/bin/heliosd",
        "usr/local/lib/systemd/system/heliosd.service",
        "usr/local/lib/systemd/system/heliosd.socket",
        "usr/local/lib/sysusers.d/helios.conf",
        "usr/local/lib/tmpfiles.d/helios.conf",
    ]
    assert tree["usr/local/bin/heliosctl"] == f"{installed.venv}/bin/heliosctl"
    assert (installed.destdir / "etc/helios").stat().st_mode & 0o777 == 0o750


def test_the_configuration_it_leaves_is_right(installed: Installed, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check", "--config", str(installed.destdir / "etc/helios/helios.toml")]) == 0
    assert capsys.readouterr().out.startswith("ok: ")


def test_twice_is_as_once_and_keeps_the_configuration(installed: Installed) -> None:
    config = installed.destdir / "etc/helios/helios.toml"
    config.write_text("[api]\nport = 1\n")
    before = _tree(installed.destdir)
    assert installed.install().returncode == 0
    assert _tree(installed.destdir) == before


def test_uninstall_leaves_only_the_configuration(installed: Installed) -> None:
    for _ in range(2):
        done = installed.install("--uninstall")
        assert (done.returncode, done.stderr) == (0, "")
        assert list(_tree(installed.destdir)) == ["etc/helios/helios.toml"]
    assert (installed.venv / "bin/heliosd").exists()


def test_it_refuses_what_it_cannot_do(installed: Installed, tmp_path: Path) -> None:
    done = installed.install(VENV=str(tmp_path / "nowhere"))
    assert done.returncode == 1
    assert done.stderr == f"install.sh: cannot use VENV={tmp_path}/nowhere: it has no bin/heliosd\n"
    done = installed.install(VENV="", PREFIX="opt/helios")
    assert (done.returncode, "an absolute path is needed" in done.stderr) == (1, True)
    done = installed.install(VENV="/it's")
    assert (done.returncode, "systemd starts nothing" in done.stderr) == (1, True)
    full = installed.destdir / "opt/full"
    full.mkdir(parents=True)
    (full / "precious").touch()
    done = installed.install(VENV="", PREFIX="/opt/full")
    assert (done.returncode, "not made by this script" in done.stderr) == (1, True)
    assert installed.install("--uninstall", VENV="", PREFIX="/opt/full").returncode == 0
    assert (full / "precious").exists()
    done = installed.install("--purge")
    assert (done.returncode, done.stderr.startswith("usage: ")) == (2, True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to the system")
def test_only_root_writes_to_the_system(installed: Installed) -> None:
    done = installed.install(DESTDIR="")
    assert (done.returncode, "run it as root, or set DESTDIR" in done.stderr) == (1, True)


@pytest.mark.slow
def test_an_environment_of_its_own_works_where_it_will_be(tmp_path: Path) -> None:
    """Made below DESTDIR, moved to its final place, asked for its version there. Without dependencies: no engine."""
    destdir, prefix = tmp_path / "a package", tmp_path / "opt helios"
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "DESTDIR": str(destdir),
        "PREFIX": str(prefix),
        "PIP_NO_DEPS": "1",
        "PYTHON": "python3.11",
    }
    for _ in range(2):
        done = subprocess.run([str(INSTALL)], env=environ, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, done.stderr
    made = Path(f"{destdir}{prefix}")
    made.rename(prefix)
    asked = subprocess.run([str(prefix / "bin/heliosd"), "--version"], capture_output=True, text=True, check=True)
    assert asked.stdout.startswith("heliosd ")
    prefix.rename(made)
    subprocess.run([str(INSTALL), "--uninstall"], env=environ, capture_output=True, text=True, timeout=60, check=True)
    assert not made.exists()
