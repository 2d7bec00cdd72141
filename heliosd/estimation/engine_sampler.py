"""Which sampler the engine's profiling run takes in each release, and what of the logits lives at its peak.

Read from the releases' sources (`v1/sample/ops/topk_topp_sampler.py`, `topk_topp_triton.py`, `v1/worker/gpu/sample/`)
and from PyTorch's segmented sort. With `sampling_hidden_rows` and the matrix library's workspace it gives what logs of
0.10 to 0.19 print, to the hundredth of a GiB.
"""

from enum import StrEnum
from typing import assert_never

from heliosd.core.units import KiB, MiB
from heliosd.estimation.engine_cards import Card
from heliosd.estimation.launch import Platform, Version

SEGMENTED_ROWS = 128
"""From as many rows on PyTorch sorts segments; fewer are sorted as one array of pairs, which takes 12 bytes more."""
TRITON_ROWS = 8
"""Fewer rows were sorted until 0.29."""
_FLOAT = 4
_FLASHINFER_OLDEST, _FLASHINFER_NEWEST = (7, 5), (12, 1)


class SamplerPath(StrEnum):
    """What happens to the logits of the profiling run."""

    NONE = "none"
    """No logits are made: V1 of 0.6.4, pooling models."""
    LOGITS = "logits"
    """Made and dropped: V1 until 0.7, and the second runner from 0.26 on, which works on them in place."""
    COPY = "copy"
    """Copied to float32, then sampled in blocks: the second runner until 0.25."""
    SORT = "sort"
    """Sorted by PyTorch."""
    TRITON = "triton"
    """Masked in place by a Triton kernel with one row of scratch for each multiprocessor."""
    FLASHINFER = "flashinfer"
    """Masked and normalized by FlashInfer; from 0.21 on the profiling run takes the Triton path after it, too."""


def sampler_path(version: Version, rows: int, on: Card, *, v0: bool = False, runner2: bool = False) -> SamplerPath:
    """The path of an engine installed plainly; images that bring FlashInfer took it in 0.8 to 0.11.0 as well.

    Sources: gpu_model_runner.py of 0.7.3 (no sampling) and 0.8.0 (sampler run appears); topk_topp_sampler.py of 0.11.1
    (FlashInfer becomes opt-in) and 0.17.0 (Triton); 0.21.0 envs.py (FlashInfer on by default); 0.26.0
    v1/worker/gpu/sample/sampler.py.
    """
    if v0:
        return SamplerPath.SORT
    if runner2:
        return SamplerPath.LOGITS if version >= (0, 26, 0) else SamplerPath.COPY
    if version < (0, 8, 0):
        return SamplerPath.LOGITS if version >= (0, 6, 5) else SamplerPath.NONE
    if version < (0, 17, 0) or (rows < TRITON_ROWS and version < (0, 21, 0)):
        return SamplerPath.SORT
    capable = on.capability is not None and _FLASHINFER_OLDEST <= on.capability <= _FLASHINFER_NEWEST
    if version >= (0, 21, 0) and on.platform is Platform.CUDA and (capable or on.capability is None):
        return SamplerPath.FLASHINFER
    return SamplerPath.SORT if rows < TRITON_ROWS and version < (0, 30, 0) else SamplerPath.TRITON


def sampler_peak_bytes(
    path: SamplerPath, version: Version, rows: int, vocabulary: int, element_bytes: int, multiprocessors: int = 132
) -> int:
    """Bytes of everything as wide as the vocabulary at the peak, on every rank: logits are gathered before sampling.

    `rows`: sequences (all tokens of the step for V1 before 0.7.3). `vocabulary`: padded as the engine pads it.
    `element_bytes`: of the model's activations; half-precision logits stay alive beside their float32 copy.
    """
    logits = rows * vocabulary
    copy = 0 if element_bytes == _FLOAT else _FLOAT
    match path:
        case SamplerPath.NONE:
            return 0
        case SamplerPath.LOGITS:
            return logits * element_bytes
        case SamplerPath.COPY:
            return logits * (element_bytes + _FLOAT)
        case SamplerPath.SORT:
            return logits * (element_bytes + copy + _sort_bytes(rows))
        case SamplerPath.TRITON:
            return logits * (element_bytes + copy + 2 * _FLOAT) + _scratch(rows, vocabulary, multiprocessors)
        case SamplerPath.FLASHINFER:
            masked = logits * (element_bytes + copy + 2 * _FLOAT)
            if version < (0, 21, 0):
                return masked
            if rows < TRITON_ROWS and version < (0, 30, 0):
                return logits * (element_bytes + copy + _sort_bytes(rows))
            return masked + _scratch(rows, vocabulary, multiprocessors)
        case _:
            assert_never(path)


def sampling_hidden_rows(version: Version, rows: int, tokens: int, *, v0: bool = False, runner2: bool = False) -> int:
    """Rows of hidden states alive beside the logits: those of all tokens from 0.9.2 on, the sampled ones, their noise.

    Source: the end of `_dummy_run` and the start of `_dummy_sampler_run` in gpu_model_runner.py, 0.8.0 to 0.32.0.
    """
    if v0 or runner2 or version < (0, 8, 0):
        return tokens + rows
    if version < (0, 9, 0):
        return rows
    return 2 * rows + (tokens if version >= (0, 9, 2) else 0)


def matrix_workspace_bytes(on: Card) -> int:
    """What the matrix library takes through torch at the first product and keeps: 32 MiB from capability 9 on, else 8.

    Part of the printed activation peak until 0.26, of what stays from 0.27 on. Source: PyTorch's cuBLAS workspaces.
    """
    if on.platform is not Platform.CUDA:
        return 0
    recent = on.capability is not None and on.capability[0] >= 9
    return 32 * MiB if recent else 8 * MiB + 128 * KiB


def _sort_bytes(rows: int) -> int:
    """Sorted values 4, indices 8, indices handed in 8, the sorter's second buffers of keys and values 12."""
    return 4 + 8 + 8 + 12 if rows >= SEGMENTED_ROWS else 4 + 8 + 2 * 8 + 4 + 12


def _scratch(rows: int, vocabulary: int, multiprocessors: int) -> int:
    """One float32 row for each program of the kernel, rounded up to a power of two, at most one a multiprocessor."""
    programs = min(multiprocessors, rows)
    return min(1 << max(programs - 1, 0).bit_length(), multiprocessors) * vocabulary * _FLOAT
