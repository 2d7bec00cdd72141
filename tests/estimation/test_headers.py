"""The header parser believes a correct writer and nobody else."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heliosd.errors import CorruptData
from heliosd.estimation.headers import BITS, MAX_HEADER_BYTES, MAX_TENSORS, header_length, parse_header
from tests.effort import examples


def file_of(header: Any, data_bytes: int = 0) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(data_bytes)


def entry(dtype: Any = "F32", shape: Any = (2,), begin: Any = 0, end: Any = 8) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def refused(content: bytes) -> str:
    with pytest.raises(CorruptData) as caught:
        parse_header(content, len(content))
    return str(caught.value)


def test_what_a_file_holds() -> None:
    content = file_of(
        {
            "__metadata__": {"format": "pt"},
            "b": entry("BF16", [3, 2], 8, 20),
            "a": entry("F32", [2], 0, 8),
            "empty": entry("F32", [0, 5], 20, 20),
            "scalar": entry("U8", [], 20, 21),
            "packed": entry("F4", [4], 21, 23),
        },
        23,
    )
    header = parse_header(content, len(content))
    assert [tensor.name for tensor in header.tensors] == ["a", "b", "empty", "scalar", "packed"]
    assert header.metadata == {"format": "pt"}
    assert header.data_bytes == 23
    assert header.elements == 2 + 6 + 0 + 1 + 4
    assert header.bytes_by_dtype == {"F32": 8, "BF16": 12, "U8": 1, "F4": 2}


def test_only_the_header_is_needed() -> None:
    content = file_of({"a": entry()}, 8)
    needed = header_length(content[:8], len(content))
    assert needed == len(content) - 8
    assert parse_header(content[:needed], len(content)).data_bytes == 8
    with pytest.raises(CorruptData, match="bytes are needed"):
        parse_header(content[: needed - 1], len(content))


@pytest.mark.parametrize("dtype", sorted(BITS))
def test_every_dtype_is_counted(dtype: str) -> None:
    content = file_of({"a": entry(dtype, [8], 0, BITS[dtype])}, BITS[dtype])
    assert parse_header(content, len(content)).bytes_by_dtype == {dtype: BITS[dtype]}


@pytest.mark.parametrize(
    ("header", "data_bytes", "why"),
    [
        (b'{"a":1,"a":2}', 0, "given twice"),
        (b'{"a":{"dtype":"U8","dtype":"U8"}}', 0, "given twice"),
        (b"[]", 0, "no JSON object"),
        (b"{", 0, "no JSON"),
        (b' {"a":1}', 0, "no JSON object"),
        (b'{"a":' * 20_000, 0, "no JSON"),
        (b'{"\xff":1}', 0, "no JSON"),
        (b'{"a":' + b"9" * 5000 + b"}", 0, "no JSON"),
        ({"__metadata__": {"a": 1}}, 0, "no map of texts"),
        ({"a": 1}, 0, "exactly dtype"),
        ({"a": {**entry(), "extra": 1}}, 8, "exactly dtype"),
        ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8, 9]}}, 8, "exactly dtype"),
        ({"a": entry("F33")}, 8, "unknown dtype"),
        ({"a": entry(shape=[True, 2])}, 8, "impossible shape"),
        ({"a": entry(shape=[-2])}, 8, "impossible shape"),
        ({"a": entry(shape=[2.0])}, 8, "impossible shape"),
        ({"a": entry(shape=[1] * 33)}, 8, "impossible shape"),
        ({"a": entry(begin=-8, end=0)}, 8, "impossible offsets"),
        ({"a": entry(begin=8, end=0)}, 8, "impossible offsets"),
        ({"a": entry(end=2**63)}, 8, "impossible offsets"),
        ({"a": entry(shape=[3])}, 8, "which is 96 bits"),
        ({"a": entry(shape=[2**62, 2**62, 2**62])}, 8, "bits"),
        ({"a": entry("F4", [3], 0, 1)}, 1, "which is 12 bits"),
        ({"a": entry(), "b": entry(begin=4, end=12)}, 12, "overlaps"),
        ({"a": entry(), "b": entry(begin=12, end=20)}, 20, "leaves a hole"),
        ({"a": entry()}, 7, "end at 8, the file's data at 7"),
        ({"a": entry()}, 9, "end at 8, the file's data at 9"),
    ],
)
def test_what_a_correct_writer_would_not_write(header: Any, data_bytes: int, why: str) -> None:
    assert why in refused(file_of(header, data_bytes))


def test_a_header_longer_than_the_limit_is_not_even_read() -> None:
    with pytest.raises(CorruptData, match=r"the limit is 16\.0 MiB"):
        header_length((MAX_HEADER_BYTES + 1).to_bytes(8, "little"), 1 << 50)
    with pytest.raises(CorruptData, match="of a file of 100"):
        header_length((93).to_bytes(8, "little"), 100)
    with pytest.raises(CorruptData, match="too few"):
        header_length(b"1234567", 7)


def test_too_many_tensors() -> None:
    one = b'"%d":0,'
    text = b"{" + b"".join(one % number for number in range(MAX_TENSORS + 1))[:-1] + b"}"
    assert f"lists {MAX_TENSORS + 1} tensors" in refused(file_of(text))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
TENSOR = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(sorted(BITS)) | JSON,
        "shape": st.lists(st.integers(-1, 5) | st.booleans(), max_size=4) | JSON,
        "data_offsets": st.lists(st.integers(-1, 40), min_size=2, max_size=2) | JSON,
    }
)
HEADER = st.dictionaries(st.text(max_size=4) | st.just("__metadata__"), TENSOR | JSON, max_size=4)


@settings(max_examples=examples(150), deadline=None)
@given(
    st.binary(max_size=200)
    | st.tuples(HEADER, st.integers(0, 40)).map(lambda made: file_of(made[0], made[1]))
    | st.binary(max_size=60).map(lambda text: file_of(b"{" + text, 8)),
    st.integers(-3, 3),
)
def test_nothing_but_corrupt_data_is_raised(content: bytes, lie: int) -> None:
    try:
        header = parse_header(content, len(content) + lie)
    except CorruptData:
        return
    # What it accepts is consistent in itself.
    position = 0
    for tensor in header.tensors:
        assert tensor.begin == position
        assert tensor.size_bytes * 8 == tensor.elements * BITS[tensor.dtype]
        position = tensor.end
    assert header.data_bytes == position


@given(
    st.lists(
        st.tuples(st.sampled_from(["BF16", "F8_E4M3", "I64"]), st.lists(st.integers(0, 4), max_size=3)), max_size=5
    )
)
@settings(max_examples=examples(50), deadline=None)
def test_what_a_correct_writer_writes_is_accepted(tensors: list[tuple[str, list[int]]]) -> None:
    header, position = {}, 0
    for number, (dtype, shape) in enumerate(tensors):
        size = BITS[dtype] // 8
        for side in shape:
            size *= side
        header[f"t{number}"] = entry(dtype, shape, position, position + size)
        position += size
    content = file_of(header, position)
    assert parse_header(content, len(content)).data_bytes == position
