"""GGUF files, converted by the real libraries in a child process."""

import asyncio
import os
import struct
import sys
from pathlib import Path

import psutil
import pytest

from heliosd.core.units import TiB
from heliosd.errors import BadRequest, NotFound, SourceFailed, Unavailable
from heliosd.estimation.headers import parse_header
from heliosd.store.sources.source import Progress
from heliosd.store.store import Store
from heliosd.store.stored import Addition, StoredModel

HIDDEN, LAYERS, WORDS = 64, 2, 300


async def add(store: Store, file: Path | str, seen: list[Progress] | None = None) -> StoredModel:
    return await store.add(Addition("gguf", str(file)), (seen if seen is not None else []).append)


async def test_what_is_no_gguf_file(store: Store, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGML" + bytes(100))
    with pytest.raises(BadRequest, match="it is no GGUF file"):
        await add(store, tmp_path / "m.gguf")
    with pytest.raises(NotFound):
        await add(store, tmp_path / "none.gguf")
    with pytest.raises(BadRequest, match="absolute path"):
        await add(store, "m.gguf")
    with pytest.raises(BadRequest, match="one of several pieces"):
        await add(store, tmp_path / "m-00001-of-00002.gguf")


def write_gguf(path: Path) -> bytes:
    """A tiny Llama with a byte-level vocabulary; returns its output norm as little-endian float32."""
    import gguf
    import numpy

    random = numpy.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(LAYERS)
    writer.add_context_length(256)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(2 * HIDDEN)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(WORDS)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(["w", "1", *(f"w{number}" for number in range(1, WORDS - 1))])
    writer.add_token_types([1] * WORDS)
    writer.add_token_merges(["w 1"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_chat_template("{{ messages[0]['content'] }}")
    shapes = {"token_embd.weight": (WORDS, HIDDEN), "output_norm.weight": (HIDDEN,)}
    for layer in range(LAYERS):
        shapes |= {
            f"blk.{layer}.attn_norm.weight": (HIDDEN,),
            f"blk.{layer}.attn_q.weight": (HIDDEN, HIDDEN),
            f"blk.{layer}.attn_k.weight": (HIDDEN // 2, HIDDEN),
            f"blk.{layer}.attn_v.weight": (HIDDEN // 2, HIDDEN),
            f"blk.{layer}.attn_output.weight": (HIDDEN, HIDDEN),
            f"blk.{layer}.ffn_norm.weight": (HIDDEN,),
            f"blk.{layer}.ffn_gate.weight": (2 * HIDDEN, HIDDEN),
            f"blk.{layer}.ffn_up.weight": (2 * HIDDEN, HIDDEN),
            f"blk.{layer}.ffn_down.weight": (HIDDEN, 2 * HIDDEN),
        }
    norm = b""
    for name, shape in shapes.items():
        values = random.standard_normal(shape).astype(numpy.float32)
        if name == "output_norm.weight":
            norm = values.tobytes()
        if len(shape) == 1:
            writer.add_tensor(name, values)
        else:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return norm


def bfloat16(data: bytes) -> list[float]:
    return [struct.unpack("<f", b"\0\0" + data[at : at + 2])[0] for at in range(0, len(data), 2)]


@pytest.mark.slow
async def test_a_file_becomes_a_model_in_bfloat16(store: Store, tmp_path: Path) -> None:
    had_torch = "torch" in sys.modules  # other tests of this process may need it
    norm = write_gguf(tmp_path / "Tiny.Q8_0.gguf")
    seen: list[Progress] = []
    model = await add(store, tmp_path / "Tiny.Q8_0.gguf", seen)
    assert str(model.ref) == "Tiny.Q8_0"
    assert model.profile.dtype == "bfloat16"
    assert (model.profile.layers, model.profile.kv_heads, model.profile.vocab_size) == (LAYERS, 1, WORDS)
    directory = await store.directory(model.revision)
    assert "messages[0]['content']" in (directory / "chat_template.jinja").read_text()
    assert (directory / "tokenizer.json").exists()
    content = (directory / "model.safetensors").read_bytes()
    header = parse_header(content, len(content))
    (tensor,) = (tensor for tensor in header.tensors if tensor.name == "model.norm.weight")
    start = len(content) - header.data_bytes + tensor.begin
    got = bfloat16(content[start : start + tensor.size_bytes])
    wanted = struct.unpack(f"<{HIDDEN}f", norm)
    assert all(abs(a - b) <= abs(b) / 128 for a, b in zip(got, wanted, strict=True))
    phases = list(dict.fromkeys(line.phase for line in seen))
    assert phases == ["convert", "verify", "commit"]
    assert ("torch" in sys.modules) == had_torch, "the converter's libraries stay in the child"
    assert list((tmp_path / "store/incoming").iterdir()) == []


def write_huge(path: Path) -> None:
    """A file of 4 TiB, all hole, with one tensor of 1 Ti elements."""
    import gguf
    import numpy

    writer = gguf.GGUFWriter(path, "llama")
    dtype = numpy.dtype(numpy.float32)
    writer.add_tensor_info("token_embd.weight", [1 << 20, 1 << 20], dtype, 4 * TiB)  # type: ignore[arg-type]
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    os.truncate(path, 4 * TiB + 4096)


@pytest.mark.slow
async def test_too_little_memory_is_known_before(store: Store, tmp_path: Path) -> None:
    write_huge(tmp_path / "m.gguf")
    wanted = r"cannot convert m\.gguf: it needs 10\.0 TiB of memory, .* are available"
    with pytest.raises(Unavailable, match=wanted) as caught:
        await add(store, tmp_path / "m.gguf")
    assert caught.value.code == "memory_full"
    assert list((tmp_path / "store/incoming").iterdir()) == []


@pytest.mark.slow
async def test_a_broken_file_says_what_the_reader_says(store: Store, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF" + bytes(40))
    with pytest.raises(SourceFailed, match=r"cannot convert m\.gguf: \w*Error") as caught:
        await add(store, tmp_path / "m.gguf")
    assert caught.value.code == "conversion_failed"
    assert list((tmp_path / "store/incoming").iterdir()) == []


@pytest.mark.slow
async def test_cancelling_kills_the_converter(store: Store, tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf")
    running = asyncio.Event()
    tell = lambda line: running.set() if line.item != "starting" else None  # noqa: E731
    async with asyncio.TaskGroup() as group:
        adding = group.create_task(store.add(Addition("gguf", str(tmp_path / "m.gguf")), tell))
        await running.wait()
        (child,) = (one for one in psutil.Process().children() if "heliosd.store.sources.gguf_convert" in one.cmdline())
        adding.cancel()
    assert not child.is_running()
    assert list((tmp_path / "store/incoming").iterdir()) == []
