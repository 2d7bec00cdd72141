"""Tensor files, whole and as recipes: what is read is what was written, and no file can do more than be refused."""

import itertools
import json
import mmap
import os
import random
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from heliosd.engines.tensor_files import (
    MAX_RECIPE_BYTES,
    TensorFile,
    open_tensor_file,
    read,
    recipes_in,
    weight_files,
)
from heliosd.engines.tensor_files_mapped import MappedFile
from heliosd.errors import CorruptData
from tests.effort import examples

RNG = random.Random(7)
TENSORS = {"a": RNG.randbytes(64), "b": RNG.randbytes(12_000), "c": b"", "d": RNG.randbytes(3)}


def safetensors(tensors: dict[str, bytes] = TENSORS) -> bytes:
    entries, position = {}, 0
    for name, data in tensors.items():
        entries[name] = {"dtype": "U8", "shape": [len(data)], "data_offsets": [position, position + len(data)]}
        position += len(data)
    header = json.dumps(entries).encode()
    return struct.pack("<Q", len(header)) + header + b"".join(tensors.values())


def recipe_of(folder: Path, name: str, content: bytes, cuts: list[int], **changes: Any) -> Path:
    """The content spread over two files, in pieces that end at `cuts`, and the recipe that puts it together."""
    edges = [0, *sorted(cut for cut in cuts if 0 < cut < len(content)), len(content)]
    files = [bytearray(b"x" * 5), bytearray()]
    parts = []
    for number, (begin, end) in enumerate(itertools.pairwise(edges)):
        into = files[number % 2]
        parts.append({"path": f"blobs/{number % 2}", "offset": len(into), "size_bytes": end - begin})
        into += content[begin:end]
    (folder / "blobs").mkdir(exist_ok=True)
    for number, file in enumerate(files):
        (folder / "blobs" / str(number)).write_bytes(file)
    said = {"format": 1, "size_bytes": len(content), "sha256": "0" * 64, "parts": parts} | changes
    (folder / f"{name}.recipe").write_text(json.dumps(said))
    return folder / name


def contents(file: TensorFile) -> dict[str, bytes]:
    mapped = MappedFile(file)
    found = {}
    for tensor in file.header.tensors:
        mapped.fetch(tensor.begin, tensor.end)
        view = mapped.view(tensor.begin, tensor.end)
        together = bytes(mapped.copy(tensor.begin, tensor.end))
        if view is not None:
            assert bytes(memoryview(view.memory)[view.offset : view.offset + view.size_bytes]) == together
        found[tensor.name] = together
    return found


def test_a_whole_file_is_mapped_in_place(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(safetensors())
    file = open_tensor_file(path)
    mapped = MappedFile(file)
    assert contents(file) == TENSORS
    assert all(mapped.view(t.begin, t.end) is not None for t in file.header.tensors if t.size_bytes)


@given(cuts=st.lists(st.integers(1, len(safetensors())), max_size=12))
@settings(max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_recipe_is_read_like_the_file_it_stands_for(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int]
) -> None:
    path = recipe_of(tmp_path_factory.mktemp("recipe"), "m.safetensors", safetensors(), cuts)
    file = open_tensor_file(path)
    assert contents(file) == TENSORS
    assert read(file, 0, file.size_bytes) == safetensors()


def test_writing_to_what_is_mapped_does_not_reach_the_file(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(safetensors())
    path.chmod(0o444)
    mapped = MappedFile(open_tensor_file(path))
    view = mapped.view(0, 64)
    assert view is not None
    view.memory[view.offset : view.offset + 64] = b"!" * 64
    assert path.read_bytes() == safetensors()


def test_files_are_found_with_those_that_recipes_stand_for(tmp_path: Path) -> None:
    (tmp_path / "b.safetensors").write_bytes(safetensors())
    (tmp_path / "b.safetensors.recipe").write_text("{}")
    (tmp_path / "notes.txt").write_text("")
    recipe_of(tmp_path, "a.safetensors", safetensors(), [100])
    assert [path.name for path in weight_files(tmp_path)] == ["a.safetensors", "b.safetensors"]
    assert [path.name for path in recipes_in(tmp_path)] == ["a.safetensors.recipe"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"format": 2}, "format 1"),
        ({"size_bytes": 5}, "bytes together, not 5"),
        ({"parts": [{"path": "/etc/passwd", "offset": 0, "size_bytes": 8}]}, "impossible path"),
        ({"parts": [{"path": "a\0b", "offset": 0, "size_bytes": 8}]}, "impossible path"),
        ({"parts": [{"path": "\ud800", "offset": 0, "size_bytes": 8}]}, "impossible path"),
        ({"parts": [{"path": "x" * 5000, "offset": 0, "size_bytes": 8}]}, "cannot load m.safetensors"),
        ({"parts": [{"path": "blobs/none", "offset": 0, "size_bytes": 8}]}, "No such file"),
        ({"parts": [{"path": "blobs", "offset": 0, "size_bytes": 8}]}, "no regular file"),
        ({"parts": [{"path": "pipe", "offset": 0, "size_bytes": 8}]}, "no regular file"),
        ({"parts": [{"path": "blobs/0", "offset": 1, "size_bytes": 10**30}]}, "does not lie in"),
        ({"parts": [{"path": "blobs/0", "offset": -1, "size_bytes": 8}]}, "does not lie in"),
        ({"parts": [{"path": "blobs/0", "offset": 0}]}, "does not have path, offset and size_bytes"),
        ({"parts": []}, "bytes together, not"),
        ({"parts": [], "size_bytes": 0}, "too few for the length of a header"),
        ({"parts": 7}, "format 1"),
    ],
)
def test_a_recipe_that_promises_what_is_not_there_is_refused(tmp_path: Path, changes: Any, says: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    path = recipe_of(tmp_path, "m.safetensors", safetensors(), [50, 90], **changes)
    with pytest.raises(CorruptData, match=r"^cannot load m\.safetensors") as refused:
        open_tensor_file(path)
    assert says in refused.value.message


def test_a_recipe_that_a_model_brought_along_is_refused(tmp_path: Path) -> None:
    path = recipe_of(tmp_path, "m.safetensors", safetensors(), [50])
    recipe = tmp_path / "m.safetensors.recipe"
    recipe.rename(tmp_path / "blob")
    recipe.symlink_to("blob")
    with pytest.raises(CorruptData, match="the store did not write it"):
        open_tensor_file(path)


def test_an_enormous_recipe_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "m.safetensors.recipe").open("wb") as file:
        file.truncate(MAX_RECIPE_BYTES + 1)
    with pytest.raises(CorruptData, match="the limit is"):
        open_tensor_file(tmp_path / "m.safetensors")


def test_a_file_that_shrank_after_it_was_checked_is_not_mapped(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(safetensors())
    file = open_tensor_file(path)
    os.truncate(path, 100)
    with pytest.raises(CorruptData, match="has become shorter"):
        MappedFile(file)


def test_a_file_that_is_gone_or_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.safetensors")
    for name in ("pipe.safetensors", "gone.safetensors"):
        with pytest.raises(CorruptData, match=f"cannot load {name}"):
            open_tensor_file(tmp_path / name)


def refused_or_right(path: Path) -> None:
    try:
        file = open_tensor_file(path)
    except CorruptData as error:
        assert error.message.startswith("cannot load ")
        return
    assert all(0 <= each.begin <= each.end <= file.size_bytes - file.data_at for each in file.header.tensors)
    contents(file)


@given(data=st.data())
@settings(max_examples=examples(300), deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_bytes_do_more_than_be_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    content = bytearray(safetensors())
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, 300))
        content[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=6))
    content = content[: data.draw(st.integers(0, len(content)))] + data.draw(st.binary(max_size=9))
    path = tmp_path_factory.mktemp("fuzz") / "m.safetensors"
    path.write_bytes(content)
    refused_or_right(path)


@given(data=st.data())
@settings(max_examples=examples(200), deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_recipe_does_more_than_be_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    path = recipe_of(folder, "m.safetensors", safetensors(), [40, 200, 5000])
    recipe = folder / "m.safetensors.recipe"
    text = bytearray(recipe.read_bytes())
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(text)))
        text[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=6))
    recipe.write_bytes(text)
    refused_or_right(path)


def test_reading_ahead_covers_a_file_of_many_tensors(tmp_path: Path) -> None:
    tensors = {f"t{number}": RNG.randbytes(mmap.PAGESIZE * 3 + number) for number in range(40)}
    path = tmp_path / "m.safetensors"
    path.write_bytes(safetensors(tensors))
    assert contents(open_tensor_file(path)) == tensors
