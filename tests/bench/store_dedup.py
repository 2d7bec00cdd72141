"""What fine-tunes of one base take on the disk together, in sizes of one of them, beside what whole tensors allow.

A model has the layers and the embedding of SmolLM2-135M. Every byte of a changed layer is new, so each distinct tensor
has to be kept once, and no way of sharing equal bytes goes below that.
"""

import asyncio
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from heliosd.core.units import MiB
from heliosd.state.database import Database
from heliosd.store.store import Store
from heliosd.store.stored import Addition
from tests.bench.tensors import write_tensors

LAYERS = 30
LAYER_BYTES = 27 * MiB // 4
EMBEDDING_BYTES = 54 * MiB
ONE_BYTES = LAYERS * LAYER_BYTES + EMBEDDING_BYTES

Changed = Sequence[int]
"""The layers in which a model differs from the base; none: it is the base."""
PAIR: tuple[Changed, ...] = ((5, 6), (5, 6))
"""Two fine-tunes that change the same 2 of 30 layers."""
PAIR_APART: tuple[Changed, ...] = ((5, 6), (10, 11))
FAMILY: tuple[Changed, ...] = ((), *PAIR_APART)
"""With their base."""


@dataclass(frozen=True, slots=True)
class Taken:
    ratio: float
    """Of the disk's blocks, in sizes of one model."""
    bound: float
    """The same if every distinct tensor was kept once and nothing else."""


def bound(models: Sequence[Changed]) -> float:
    """In sizes of one model."""
    kept = {layer for changed in models for layer in set(range(LAYERS)) - set(changed)}
    new = sum(len(changed) for changed in models)
    return ((len(kept) + new) * LAYER_BYTES + EMBEDDING_BYTES) / ONE_BYTES


async def taken(folder: Path, models: Sequence[Changed]) -> Taken:
    """Add these models to a store in the empty `folder`, have it share, and look at the disk."""
    folder.mkdir()
    base = [(f"layer{number}", LAYER_BYTES, os.urandom(LAYER_BYTES)) for number in range(LAYERS)]
    base.append(("embedding", EMBEDDING_BYTES, os.urandom(EMBEDDING_BYTES)))
    database = Database(folder / "state.db")
    await database.open()
    store = Store(folder / "store", database)
    await store.open()
    try:
        one_bytes = 0
        for number, changed in enumerate(models):
            tensors = list(base)
            for layer in changed:
                tensors[layer] = tensors[layer][0], LAYER_BYTES, os.urandom(LAYER_BYTES)
            source = folder / f"model{number}"
            source.mkdir()
            write_tensors(source / "model.safetensors", tensors)
            (source / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"]}))
            await store.add(Addition("directory", str(source)), lambda progress: None)
            one_bytes = sum(path.stat().st_size for path in source.iterdir())
        await store.share()
        ratio = await asyncio.to_thread(physical_bytes, folder / "store") / one_bytes
    finally:
        await store.close()
        await database.close()
    return Taken(ratio, bound(models))


def physical_bytes(root: Path) -> int:
    """Of the blocks that the files under `root` have, each file once however many names it has."""
    seen = {}
    for folder, _, names in os.walk(root):
        for name in names:
            status = Path(folder, name).lstat()
            seen[status.st_dev, status.st_ino] = status.st_blocks * 512
    return sum(seen.values())
