"""Tensors onto a GPU: several threads read blocks into a ring of pinned buffers, from which they are copied while the
next ones are read.

However large the file, host memory taken is `SLOTS` times `BLOCK_BYTES`; on the device it is the tensors that were not
consumed yet: the one under way, and what else ended in the same block. A buffer is read into again only when the copy
from it has happened.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import torch

from heliosd.core.units import MiB
from heliosd.engines.loader_staging_plan import Block, Piece, blocks
from heliosd.engines.tensor_files import TensorFile, open_regular
from heliosd.errors import CorruptData
from heliosd.estimation.headers import Tensor

BLOCK_BYTES = 16 * MiB
SLOTS = 8
THREADS = 4

Wait = Callable[[], None]
"""Returns when copies that were begun have happened. Called in another thread."""


class Target(Protocol):
    """Where tensors go."""

    def buffer(self, size_bytes: int) -> Any:
        """Host memory to copy from, as a tensor of bytes."""
        ...

    def room(self, size_bytes: int) -> Any:
        """Memory of the device, as a tensor of bytes."""
        ...

    def copy(self, pairs: Sequence[tuple[Any, Any]]) -> Wait:
        """Begin to copy, each second into its first. What is asked of the device next comes after it."""
        ...


class Cuda:
    """The current GPU, with copies on a stream of their own."""

    def __init__(self) -> None:
        self._stream = torch.cuda.Stream()

    def buffer(self, size_bytes: int) -> Any:
        return torch.empty(size_bytes, dtype=torch.uint8, device="cpu", pin_memory=True)

    def room(self, size_bytes: int) -> Any:
        return torch.empty(size_bytes, dtype=torch.uint8, device="cuda")

    def copy(self, pairs: Sequence[tuple[Any, Any]]) -> Wait:
        now = torch.cuda.current_stream()
        self._stream.wait_stream(now)  # the room may have been somebody's who is not done with it there
        copied: Any = torch.cuda.Event()
        with torch.cuda.stream(self._stream):
            for target, source in pairs:
                target.copy_(source, non_blocking=True)
            copied.record(self._stream)
        now.wait_event(copied)

        def wait() -> None:
            copied.synchronize()

        return wait


Reading = deque[tuple[Block, int, Future[None]]]
"""Blocks with the buffers that they are read into, the first begun first."""


class Ring:
    """Buffers that are read into and copied from in turn. Use as a context: at its end no thread is left."""

    def __init__(self, target: Target, *, slots: int = SLOTS, block_bytes: int = BLOCK_BYTES) -> None:
        self._target = target
        self._block_bytes = block_bytes
        self._buffers = [target.buffer(block_bytes) for _ in range(slots)]
        self._free: list[Wait] = [lambda: None] * slots
        self._pool = ThreadPoolExecutor(min(THREADS, slots), thread_name_prefix="staging")
        self._open: dict[Path, tuple[int, bool]] = {}

    def __enter__(self) -> "Ring":
        return self

    def __exit__(self, *why: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        for free in self._free:
            free()
        for descriptor, _ in self._open.values():
            os.close(descriptor)

    def tensors(
        self, file: TensorFile, wanted: Sequence[Tensor], dtypes: Mapping[str, Any]
    ) -> Iterator[tuple[str, Any]]:
        """The wanted tensors, which lie in the file in this order. Raises CorruptData when it has become shorter."""
        under_way: Reading = deque()
        rooms: dict[int, Any] = {}
        ready = 0
        for number, block in enumerate(blocks(_pieces(file, wanted), self._block_bytes)):
            if len(under_way) == len(self._buffers):
                last = self._copy_first(under_way, wanted, rooms)
                yield from self._ready(wanted[ready:last], range(ready, last), rooms, dtypes)
                ready = last
            self._begin(under_way, number, block)
        while under_way:
            last = self._copy_first(under_way, wanted, rooms)
            yield from self._ready(wanted[ready:last], range(ready, last), rooms, dtypes)
            ready = last
        yield from self._ready(wanted[ready:], range(ready, len(wanted)), rooms, dtypes)

    def _ready(
        self, tensors: Sequence[Tensor], numbers: Iterable[int], rooms: dict[int, Any], dtypes: Mapping[str, Any]
    ) -> Iterator[tuple[str, Any]]:
        for number, tensor in zip(numbers, tensors, strict=True):
            room = rooms.pop(number, None)
            room = self._target.room(0) if room is None else room  # a tensor of no bytes
            yield tensor.name, room.view(dtypes[tensor.dtype]).view(tensor.shape)

    def _begin(self, under_way: Reading, number: int, block: Block) -> None:
        slot = number % len(self._buffers)
        descriptor, direct = self._descriptor(block.path)
        under_way.append((block, slot, self._pool.submit(self._read, block, slot, descriptor, direct)))

    def _descriptor(self, path: Path) -> tuple[int, bool]:
        if path not in self._open:
            try:
                self._open[path] = open_regular(path, os.O_DIRECT), True
            except OSError:  # a file system without it
                self._open[path] = open_regular(path), False
        return self._open[path]

    def _read(self, block: Block, slot: int, descriptor: int, direct: bool) -> None:
        self._free[slot]()
        into, done = memoryview(self._buffers[slot].numpy()), 0
        while done < block.needed_bytes:
            got = os.preadv(descriptor, [into[done : block.size_bytes]], block.offset + done)
            if not got:
                raise CorruptData(f"cannot load {block.path.name}: it has become shorter while it was read")
            done += got
            if direct and done < block.needed_bytes and done % 512:
                raise CorruptData(f"cannot load {block.path.name}: it has become shorter while it was read")

    def _copy_first(self, under_way: Reading, wanted: Sequence[Tensor], rooms: dict[int, Any]) -> int:
        """Wait for the block that was begun first and copy it; return up to which tensor all are complete."""
        block, slot, reading = under_way.popleft()
        reading.result()
        pairs, complete = [], 0
        for copy in block.copies:
            end = copy.tensor_offset + copy.size_bytes
            if copy.tensor not in rooms:
                rooms[copy.tensor] = self._target.room(wanted[copy.tensor].size_bytes)
            source = self._buffers[slot][copy.block_offset : copy.block_offset + copy.size_bytes]
            pairs.append((rooms[copy.tensor][copy.tensor_offset : end], source))
            complete = copy.tensor + (end == wanted[copy.tensor].size_bytes)
        self._free[slot] = self._target.copy(pairs)
        return complete


def _pieces(file: TensorFile, wanted: Sequence[Tensor]) -> Iterator[Piece]:
    for number, tensor in enumerate(wanted):
        done = 0
        for part in file.pieces(file.data_at + tensor.begin, file.data_at + tensor.end):
            yield Piece(number, done, part)
            done += part.size_bytes
