"""Blocks, and the ring of buffers, with a device made of host memory: copies happen as late as the ring allows."""

import json
import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from heliosd.engines.loader_staging import Ring, Wait  # noqa: E402
from heliosd.engines.loader_staging_plan import ALIGNMENT_BYTES, GAP_BYTES, Piece, blocks  # noqa: E402
from heliosd.engines.tensor_files import Part, open_tensor_file  # noqa: E402
from heliosd.errors import CorruptData  # noqa: E402
from tests.effort import examples  # noqa: E402

BLOCK = 4 * ALIGNMENT_BYTES
HERE = Path("file")


def test_small_tensors_share_a_block_and_large_ones_take_several() -> None:
    pieces = [
        Piece(0, 0, Part(HERE, 10, 100)),
        Piece(1, 0, Part(HERE, 110, 50)),
        Piece(2, 0, Part(HERE, 160, 3 * BLOCK)),
    ]
    found = list(blocks(pieces, BLOCK))
    assert [copy.tensor for copy in found[0].copies] == [0, 1, 2]
    assert {copy.tensor for block in found[1:] for copy in block.copies} == {2}
    assert len(found) == 4


def test_what_nobody_wants_is_skipped_when_it_is_large() -> None:
    far = 10 + 100 + GAP_BYTES + 1
    pieces = [Piece(0, 0, Part(HERE, 10, 100)), Piece(1, 0, Part(HERE, far, 100))]
    assert [block.offset for block in blocks(pieces, 64 * GAP_BYTES)] == [0, far - far % ALIGNMENT_BYTES]


@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), st.integers(0, 9000), st.integers(0, 50_000)), max_size=12))
@settings(max_examples=examples(200), deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_each_byte_is_copied_once_from_where_it_lies(steps: list[tuple[str, int, int]]) -> None:
    pieces, position = [], {"a": 0, "b": 0}
    for number, (name, gap, size_bytes) in enumerate(steps):
        pieces.append(Piece(number, 7, Part(Path(name), position[name] + gap, size_bytes)))
        position[name] += gap + size_bytes
    done = dict.fromkeys(range(len(pieces)), 0)
    for block in blocks(pieces, BLOCK):
        assert block.offset % ALIGNMENT_BYTES == block.size_bytes % ALIGNMENT_BYTES == 0
        assert block.needed_bytes <= block.size_bytes <= BLOCK
        for copy in block.copies:
            piece = pieces[copy.tensor]
            assert copy.block_offset + copy.size_bytes <= block.needed_bytes
            assert copy.tensor_offset == 7 + done[copy.tensor]
            assert (block.path, block.offset + copy.block_offset) == (
                piece.at.path,
                piece.at.offset + done[copy.tensor],
            )
            done[copy.tensor] += copy.size_bytes
    assert list(done.values()) == [piece.at.size_bytes for piece in pieces]


class Late:
    """A device whose copies happen only when somebody waits for them, or at the end: the worst case for the ring."""

    def __init__(self) -> None:
        self.buffers: list[Any] = []
        self.pending: list[list[tuple[Any, Any]]] = []

    def buffer(self, size_bytes: int) -> Any:
        # As aligned as pinned memory is, which O_DIRECT asks for.
        memory = torch.empty(size_bytes + ALIGNMENT_BYTES, dtype=torch.uint8)
        skipped = -memory.data_ptr() % ALIGNMENT_BYTES
        self.buffers.append(memory[skipped : skipped + size_bytes])
        return self.buffers[-1]

    def room(self, size_bytes: int) -> Any:
        return torch.full((size_bytes,), 255, dtype=torch.uint8)

    def copy(self, pairs: Sequence[tuple[Any, Any]]) -> Wait:
        waiting = list(pairs)
        self.pending.append(waiting)

        def wait() -> None:
            for target, source in waiting:
                target.copy_(source)
            waiting.clear()

        return wait


def write(path: Path, tensors: dict[str, bytes]) -> None:
    entries, position = {}, 0
    for name, data in tensors.items():
        entries[name] = {"dtype": "U8", "shape": [len(data)], "data_offsets": [position, position + len(data)]}
        position += len(data)
    header = json.dumps(entries).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"".join(tensors.values()))


SIZES = [10, 0, 5000, 3, 100_000, 17, 4096, 65_536, 1, 0]


@pytest.mark.parametrize("slots", [1, 2, 5])
@pytest.mark.parametrize("skip", [set(), {"t4"}, {"t0", "t9"}])
def test_all_arrives_and_no_buffer_is_used_too_early(tmp_path: Path, slots: int, skip: set[str]) -> None:
    tensors = {f"t{number}": os.urandom(size) for number, size in enumerate(SIZES)}
    write(tmp_path / "m.safetensors", tensors)
    file = open_tensor_file(tmp_path / "m.safetensors")
    wanted = [each for each in file.header.tensors if each.name not in skip]
    device = Late()
    with Ring(device, slots=slots, block_bytes=BLOCK) as ring:
        found = dict(ring.tensors(file, wanted, {"U8": torch.uint8}))
    assert {name: bytes(tensor.numpy()) for name, tensor in found.items()} == {
        name: data for name, data in tensors.items() if name not in skip
    }
    assert len(device.buffers) == slots, "host memory is not bounded"


def test_a_file_that_shrinks_while_it_is_read_is_refused_and_no_thread_is_left(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    write(path, {"a": os.urandom(20 * BLOCK)})
    file = open_tensor_file(path)
    os.truncate(path, 3 * BLOCK + 100)
    ring = Ring(Late(), slots=2, block_bytes=BLOCK)
    with pytest.raises(CorruptData, match="has become shorter while it was read"), ring:
        list(ring.tensors(file, file.header.tensors, {"U8": torch.uint8}))
    with pytest.raises(RuntimeError):
        ring._pool.submit(print)
