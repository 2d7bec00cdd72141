"""The child process that turns a GGUF file into a folder that engines load: `python -m … FILE FOLDER`.

Its standard output is one JSON object a line: `{"step", "done", "total"}`, at last `{"finished": true}` or
`{"error", "code"}`. Its standard input is held open by the parent; at its end the child dies, so it cannot outlive
a killed daemon. The only module of the store that loads torch.
"""

import json
import os
import shutil
import sys
import threading
from pathlib import Path
from typing import Any

from heliosd.core.units import MiB, format_bytes

LIBRARIES_BYTES = 512 * MiB
"""Measured: what torch and transformers hold before the first tensor."""


def tell(**fields: object) -> None:
    """Write one line for the parent."""
    os.write(1, json.dumps(fields).encode() + b"\n")


def die_with_the_parent() -> None:
    """Read standard input until it ends; then nobody wants the result."""

    def wait() -> None:
        os.read(0, 1)
        os._exit(3)

    threading.Thread(target=wait, daemon=True).start()


def report_bars() -> None:
    """Let transformers' progress bars become lines. Must be called before transformers is imported."""
    import tqdm.auto  # type: ignore[import-untyped]

    class Lines(tqdm.auto.tqdm):  # type: ignore[misc]
        def display(self, *_: Any, **__: Any) -> None:
            tell(step=str(self.desc or "").rstrip(". "), done=self.n, total=self.total)

    tqdm.auto.tqdm = Lines


def needed_bytes(source: Path) -> tuple[int, int]:
    """What the result takes on the disk, two bytes for every element, and what making it takes of memory.

    All of the result is in memory at once, and two float32 copies of the tensor just being dequantized.
    """
    from gguf import GGUFReader

    elements = [int(tensor.n_elements) for tensor in GGUFReader(source).tensors]
    return 2 * sum(elements), 2 * sum(elements) + 8 * max(elements, default=0) + LIBRARIES_BYTES


def missing(source: Path, folder: Path) -> dict[str, str] | None:
    """What there is too little of, as the last line for the parent; None when the conversion can begin."""
    import psutil

    disk_bytes, memory_bytes = needed_bytes(source)
    free_bytes, available_bytes = shutil.disk_usage(folder).free, psutil.virtual_memory().available
    if memory_bytes > available_bytes:
        needs, has = format_bytes(memory_bytes), format_bytes(available_bytes)
        return {
            "error": f"it needs {needs} of memory, {has} are available; stop replicas on the CPU, or convert elsewhere",
            "code": "memory_full",
        }
    if disk_bytes > free_bytes:
        needs, has = format_bytes(disk_bytes), format_bytes(free_bytes)
        return {"error": f"the result needs {needs} of disk, {has} are free", "code": "disk_full"}
    return None


def convert(source: Path, folder: Path) -> None:
    """Dequantize to bfloat16 and save weights, configuration, tokenizer and chat template into `folder`."""
    report_bars()
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    tell(step="reading the tokenizer", done=0, total=None)
    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    tell(step="reading the weights", done=0, total=None)
    model = AutoModelForCausalLM.from_pretrained(
        source.parent,
        gguf_file=source.name,
        dtype=torch.bfloat16,
        quantization_config=GgufConfig(dequantize=True),
    )
    # It is no longer quantized, and says so; otherwise it refuses to be saved.
    model.hf_quantizer, model.is_quantized = None, False
    tell(step="writing the weights", done=0, total=None)
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def main(source: Path, folder: Path) -> int:
    die_with_the_parent()
    try:
        if lack := missing(source, folder):
            tell(**lack)
            return 1
        convert(source, folder)
    except Exception as error:
        # Whatever the libraries find wrong with the file is the answer; the parent gives it to the caller.
        tell(error=f"{type(error).__name__}: {error}"[:4000], code="conversion_failed")
        return 1
    tell(finished=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
