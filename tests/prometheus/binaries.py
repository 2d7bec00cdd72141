"""Finds Prometheus and its promtool, or fetches Debian's package and unpacks it into `build/` of the checkout.

`python -m tests.prometheus.binaries` says where they are. Nothing is installed.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

BUILD = Path(__file__).parents[2] / "build"
OWN = BUILD / "prometheus"
PACKAGE = "prometheus"


def find(name: str) -> Path | None:
    """`prometheus` or `promtool`: the one on the PATH, else the unpacked one."""
    on_path, own = shutil.which(name), OWN / "usr" / "bin" / name
    return Path(on_path) if on_path else own if own.exists() else None


def fetch() -> None:
    """Raises OSError or CalledProcessError where there is no apt, or no way to its mirror."""
    BUILD.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=BUILD) as folder:
        subprocess.run(
            ["apt-get", "download", "-qq", PACKAGE], cwd=folder, check=True, capture_output=True, timeout=120
        )
        (package,) = Path(folder).glob("*.deb")
        unpacked = Path(folder) / "unpacked"
        subprocess.run(["dpkg", "-x", str(package), str(unpacked)], check=True, capture_output=True, timeout=120)
        if not OWN.exists():  # another may have been faster
            unpacked.rename(OWN)


def found_or_why(name: str) -> Path | str:
    """Where it is; or why it cannot be had."""
    if there := find(name):
        return there
    try:
        fetch()
    except (OSError, subprocess.SubprocessError) as error:
        return f"{name} is not installed and cannot be fetched: {error}"
    return find(name) or f"Debian's package {PACKAGE} has no {name}"


if __name__ == "__main__":
    for wanted in ("prometheus", "promtool"):
        print(f"{wanted}: {found_or_why(wanted)}", file=sys.stdout)
