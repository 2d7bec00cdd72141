"""Files of weights for benchmarks of the storage."""

import json
import os
import struct
from collections.abc import Iterable
from pathlib import Path


def write_tensors(path: Path, tensors: Iterable[tuple[str, int, bytes]]) -> None:
    """A safetensors file of tensors, each so many bytes, made of a block repeated: real blocks, no holes."""
    listed = list(tensors)
    entries, position = {}, 0
    for name, size_bytes, _ in listed:
        entries[name] = {"dtype": "U8", "shape": [size_bytes], "data_offsets": [position, position + size_bytes]}
        position += size_bytes
    header = json.dumps(entries).encode()
    header += b" " * (-(len(header) + 8) % 64)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        for _, size_bytes, block in listed:
            for offset in range(0, size_bytes, len(block)):
                file.write(block[: size_bytes - offset])
        file.flush()
        os.fsync(file.fileno())
