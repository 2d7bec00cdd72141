"""Weights onto a real GPU through the ring of pinned buffers: the same bytes as vLLM's own loader, in bounded memory.

Run by `make test-gpu`.
"""

from pathlib import Path

import psutil
import pytest

from heliosd.core.units import GiB, MiB
from heliosd.engines.loader_staging import BLOCK_BYTES, SLOTS, Cuda, Ring
from heliosd.engines.tensor_files import open_tensor_file

torch = pytest.importorskip("torch")

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA here")]


def test_what_arrives_is_what_the_file_has(smol_dir: Path) -> None:
    from safetensors.torch import load_file

    from heliosd.engines.loader import DTYPES

    path = smol_dir / "model.safetensors"
    expected = load_file(path)
    file = open_tensor_file(path)
    with Ring(Cuda()) as ring:
        for name, tensor in ring.tensors(file, file.header.tensors, DTYPES):
            assert tensor.is_cuda
            assert torch.equal(tensor.cpu(), expected.pop(name)), name
    assert not expected


def test_memory_is_bounded_however_large_the_file(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "large.safetensors"
    save_file({f"t{number}": torch.ones(32 * MiB, dtype=torch.uint8) * number for number in range(64)}, path)
    file = open_tensor_file(path)
    torch.cuda.reset_peak_memory_stats()
    before, on_device = psutil.Process().memory_info().rss, torch.cuda.memory_allocated()
    with Ring(Cuda()) as ring:
        for name, tensor in ring.tensors(file, file.header.tensors, {"U8": torch.uint8}):
            assert int(tensor[-1]) == int(name[1:])
    # The one that the reader of the loop still has, the one under way, and the one that begins in the same block.
    assert torch.cuda.max_memory_allocated() - on_device <= 3 * 32 * MiB
    assert psutil.Process().memory_info().rss - before < SLOTS * BLOCK_BYTES + GiB // 4
