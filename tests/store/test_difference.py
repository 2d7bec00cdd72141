"""What differs between two revisions, told by file, tensor and key."""

import json
from pathlib import Path
from typing import Any

import pytest

from heliosd.core.names import ModelRef, kept_ref
from heliosd.errors import NotFound
from heliosd.store import difference
from heliosd.store.sources.source import Progress
from heliosd.store.store import Store
from tests.store.models import config, model_files, write_folder
from tests.store.test_history import M, add

Tensors = dict[str, tuple[str, list[int], bytes]]


def tensors(**named: tuple[str, list[int], bytes]) -> bytes:
    header: dict[str, Any] = {}
    data = b""
    for name, (dtype, shape, content) in named.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


A = ("U8", [8], b"abcdefgh")
B = ("F32", [2], b"12345678")
C = ("F16", [2, 2], b"ABCDEFGH")


async def compared(
    store: Store, folder: Path, before: dict[str, bytes], after: dict[str, bytes]
) -> difference.Difference:
    await add(store, write_folder(folder / "before", before))
    await add(store, write_folder(folder / "after", after))
    return (await store.compare(M, None, lambda _: None)).found


async def test_each_kind_of_change_of_a_tensor(store: Store, tmp_path: Path) -> None:
    rest = {"config.json": config()}
    before = tensors(same=A, moved=B, bytes=C, dtype=A, shape=C, gone=B)
    after = tensors(
        fresh=B, moved=B, same=A, bytes=("F16", [2, 2], b"ABCDEFGX"), dtype=("I8", [8], A[2]), shape=("F16", [4], C[2])
    )
    found = await compared(store, tmp_path, rest | {"model.safetensors": before}, rest | {"model.safetensors": after})
    assert {each.name: (each.change, each.before, each.after) for each in found.tensors} == {
        "bytes": ("bytes", "F16 [2, 2]", "F16 [2, 2]"),
        "dtype": ("dtype", "U8 [8]", "I8 [8]"),
        "fresh": ("added", None, "F32 [2]"),
        "gone": ("removed", "F32 [2]", None),
        "shape": ("shape", "F16 [2, 2]", "F16 [4]"),
    }
    assert (found.equal_tensors, found.equal_files) == (2, 1)
    assert found.files == (difference.FileDifference("model.safetensors", "changed", len(before), len(after)),)


async def test_tensors_that_move_between_shards_are_the_same(store: Store, tmp_path: Path) -> None:
    found = await compared(
        store,
        tmp_path,
        {"config.json": config(), "one.safetensors": tensors(a=A, b=B)},
        {"config.json": config(), "one.safetensors": tensors(a=A), "two.safetensors": tensors(b=B)},
    )
    assert found.tensors == ()
    assert found.equal_tensors == 2
    assert [(each.path, each.change) for each in found.files] == [
        ("one.safetensors", "changed"),
        ("two.safetensors", "added"),
    ]


async def test_configurations_key_by_key(store: Store, tmp_path: Path) -> None:
    found = await compared(
        store,
        tmp_path,
        model_files() | {"config.json": config(rope={"theta": 1, "kind": "x"}, gone=1, list=[1, 2])},
        model_files() | {"config.json": config(rope={"theta": 2, "kind": "x"}, fresh=None, list=[1, 3])},
    )
    assert [(each.key, each.change, each.before, each.after) for each in found.keys] == [
        ("fresh", "added", None, None),
        ("gone", "removed", 1, None),
        ("list", "changed", [1, 2], [1, 3]),
        ("rope.theta", "changed", 1, 2),
    ]
    assert found.tensors == ()


async def test_a_byte_in_the_last_piece_is_found(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(difference, "PIECE_BYTES", 1000)
    before = model_files()
    weights = bytearray(before["model.safetensors"])
    weights[-1] ^= 1
    await add(store, write_folder(tmp_path / "a", before))
    await add(store, write_folder(tmp_path / "b", before | {"model.safetensors": bytes(weights)}))
    told: list[Progress] = []
    found = (await store.compare(M, None, told.append)).found
    assert [each.change for each in found.tensors] == ["bytes"]
    assert [step.done_bytes for step in told] == [0, 1000, 2000, 3000, 4000, 4096]
    assert {(step.phase, step.item, step.total_bytes) for step in told} == {
        ("compare", "model.embed_tokens.weight", 4096)
    }


async def test_what_is_compared_with_what(store: Store, tmp_path: Path) -> None:
    old = await add(store, write_folder(tmp_path / "a", model_files()))
    with pytest.raises(NotFound, match="only one revision"):
        await store.compare(M, None, lambda _: None)
    new = await add(store, write_folder(tmp_path / "b", model_files(seed=1)))
    other = await add(store, write_folder(tmp_path / "c", model_files(seed=2)), ModelRef("other"))
    first, second = kept_ref(M, old.revision), kept_ref(M, new.revision)
    third = kept_ref(other.ref, other.revision)
    for given, pair in (
        ((M, None), (first, second)),
        ((first, None), (first, second)),
        ((second, None), (first, second)),
        ((M, first), (second, first)),
        ((first, ModelRef("other")), (first, third)),
        ((M, M), (second, second)),
    ):
        told = await store.compare(*given, lambda _: None)
        assert (told.before, told.after) == pair, given
    with pytest.raises(NotFound, match="cannot compare org/m with nobody"):
        await store.compare(M, ModelRef("nobody"), lambda _: None)
