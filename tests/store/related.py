"""Models that have layers in common, as fine-tunes and requantizations of one base do. Equal arguments, equal bytes."""

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.store.models import config

KiB = 1024


def weights(layers: Mapping[str, Sequence[tuple[int, int]]], metadata: str | None = None) -> bytes:
    """A safetensors file. Each name has the tensors `name.0`, `name.1`, … given as (size in bytes, seed)."""
    header: dict[str, object] = {} if metadata is None else {"__metadata__": {"note": metadata}}
    data = bytearray()
    for name, tensors in layers.items():
        for number, (size_bytes, seed) in enumerate(tensors):
            begin = len(data)
            data += random.Random(f"{name}.{number} {seed}").randbytes(size_bytes)
            offsets = [begin, len(data)]
            header[f"{name}.{number}"] = {"dtype": "U8", "shape": [size_bytes], "data_offsets": offsets}
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(data)


def tuned(changed: Mapping[int, int] | None = None, *, layers: int = 30, layer_bytes: int = 64 * KiB) -> bytes:
    """A model of that many layers, each a large tensor and a small one. `changed`: layer to the seed of its change."""
    seeds = {number: (changed or {}).get(number, 0) for number in range(layers)}
    sizes = (layer_bytes - 512, 512)
    return weights({f"layers.{number}": [(size, seed) for size in sizes] for number, seed in seeds.items()})


def folder(path: Path, *files: bytes, **more: bytes) -> Path:
    """A model whose shards these are."""
    path.mkdir()
    (path / "config.json").write_bytes(config(name=path.name))
    for number, content in enumerate(files):
        (path / f"model-{number}.safetensors").write_bytes(content)
    for name, content in more.items():
        (path / name).write_bytes(content)
    return path
