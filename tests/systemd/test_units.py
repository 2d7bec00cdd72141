"""The units as systemd itself judges them, after the installer has filled them in."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from heliosd.__main__ import Exit
from heliosd.config import ApiSection, DrainSection
from heliosd.config_places import usual_places
from tests.systemd.conftest import Installed

pytestmark = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")


def _run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=60, check=False)


def _value(unit: str, key: str) -> str:
    (value,) = re.findall(rf"^{key}=(.*)$", unit, re.MULTILINE)
    return str(value)


def test_systemd_finds_nothing_to_say_about_the_units(installed: Installed) -> None:
    done = _run("systemd-analyze", "verify", installed.unit("heliosd.service"), installed.unit("heliosd.socket"))
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "")


def test_systemd_does_find_faults(installed: Installed, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.service"
    wrong.write_text(installed.unit("heliosd.service").read_text().replace("WatchdogSec=", "WatchdogSecs="))
    assert "WatchdogSecs" in _run("systemd-analyze", "verify", wrong).stderr


def test_the_service_is_little_exposed(installed: Installed) -> None:
    done = _run("systemd-analyze", "security", "--offline=true", "--no-pager", installed.unit("heliosd.service"))
    exposure = re.search(r"Overall exposure level for heliosd\.service: ([0-9.]+)", done.stdout)
    assert exposure, done.stdout + done.stderr
    assert float(exposure[1]) < 3.0


def test_the_units_and_the_daemon_agree(installed: Installed) -> None:
    service = installed.unit("heliosd.service").read_text()
    socket = installed.unit("heliosd.socket").read_text()
    assert set(map(int, _value(service, "RestartPreventExitStatus").split())) == {Exit.USAGE, Exit.CONFIG}
    drain_s = DrainSection().deadline_s
    assert float(_value(service, "TimeoutStopSec").removesuffix("s")) > drain_s
    assert _value(service, "User") == _value(socket, "SocketUser")
    assert _value(socket, "SocketGroup") == ApiSection.model_fields["socket_group"].default
    environ = {name: f"{folder}/{_value(service, name)}" for name, folder in _FOLDERS.items()}
    places = usual_places(
        {"STATE_DIRECTORY": environ["StateDirectory"], "RUNTIME_DIRECTORY": environ["RuntimeDirectory"]}, root=False
    )
    assert places == usual_places({}, root=True)
    assert _value(socket, "ListenStream") == str(places.runtime_dir / "heliosd.sock")


_FOLDERS = {"StateDirectory": "/var/lib", "RuntimeDirectory": "/run"}


def test_user_and_folders_can_be_made(installed: Installed, tmp_path: Path) -> None:
    root = tmp_path / "another root"
    (root / "etc").mkdir(parents=True)
    done = _run("systemd-sysusers", f"--root={root}", installed.lib / "sysusers.d/helios.conf")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^helios:x:\d+:\d+:Helios model server:/var/lib/helios:", (root / "etc/passwd").read_text())
    groups = (root / "etc/group").read_text()
    assert re.search(r"^helios:", groups, re.MULTILINE)
    for group in ("video", "render"):
        assert re.search(rf"^{group}:.*:helios$", groups, re.MULTILINE)
    done = _run("systemd-tmpfiles", f"--root={root}", "--create", installed.lib / "tmpfiles.d/helios.conf")
    assert (done.returncode, done.stderr) == (0, "")
    modes = {
        path: (root / path).stat().st_mode & 0o777 for path in ("run/helios", "var/lib/helios", "etc/helios/conf.d")
    }
    assert modes == {"run/helios": 0o755, "var/lib/helios": 0o750, "etc/helios/conf.d": 0o750}
