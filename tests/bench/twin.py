"""A model of the same shape as another, with other weights: what a hot swap needs."""

import json
import os
import shutil
from pathlib import Path

import numpy as np

_ROWS = 8
"""Of a table of tokens or a matrix, whose signs are turned: enough for other answers."""


def twin(model: Path, folder: Path) -> Path:
    """Copy a safetensors model, its largest files of other kinds linked, and turn signs in each of its weight files."""
    folder.mkdir(parents=True)
    for file in model.iterdir():
        if file.suffix == ".safetensors":
            shutil.copyfile(file, folder / file.name)
            _turn(folder / file.name)
        else:
            os.link(file.resolve(), folder / file.name)
    return folder


def _turn(file: Path) -> None:
    """Of the first rows of every other matrix. The sign is the highest bit of any float, little-endian."""
    data = np.memmap(file, mode="r+")
    length = int.from_bytes(data[:8].tobytes(), "little")
    header = json.loads(data[8 : 8 + length].tobytes())
    sizes = {"BF16": 2, "F16": 2, "F32": 4}
    matrices = [
        each
        for name, each in sorted(header.items())
        if name != "__metadata__" and len(each["shape"]) > 1 and each["dtype"] in sizes
    ]
    for each in matrices[::2]:
        size = sizes[each["dtype"]]
        begin = 8 + length + each["data_offsets"][0]
        count = _ROWS * each["shape"][1] * size
        data[begin + size - 1 : begin + count : size] ^= 0x80
    data.flush()
