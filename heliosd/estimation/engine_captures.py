"""Which batch sizes the engine captures as CUDA graphs, by release.

V0 captures decoding steps up to `max_num_seqs`; V1 steps of any kind, every 8th size (from 0.11.1 on every 16th beyond
256) up to 512, no more than twice the sequences since 0.10. Sizes that a draft's kernels round up are not modelled.
"""

from heliosd.estimation.engine_cards import Card
from heliosd.estimation.launch import Launch, Version


def captures(launch: Launch, on: Card, seqs: int, tokens: int) -> tuple[int, ...]:
    """Batch sizes whose CUDA graphs are captured, ascending.

    Sources: 0.2.7 and 0.3.3 worker/model_runner.py; 0.6.5, 0.8.0, 0.10.0, 0.11.1, 0.13.0, 0.20.1, 0.28.0, 0.29.0 and
    0.31.0 config, `_set_cudagraph_sizes`.
    """
    if launch.capture_sizes:
        return tuple(sorted({size for size in launch.capture_sizes if size <= tokens}))
    if launch.v0:
        return _captures_v0(launch, seqs)
    version, width = launch.version, 1 + (launch.speculative_tokens if launch.version >= (0, 13, 0) else 0)
    ceiling = 1024 if version >= (0, 28, 0) and on.data_centre_blackwell else 512
    largest = launch.max_capture_size or (min(2 * seqs * width, ceiling) if version >= (0, 10, 0) else 512)
    if version < (0, 11, 1):
        sizes = [1, 2, 4, *range(8, largest + 1, 8)]
        return tuple(size for size in sizes if size <= tokens or version < (0, 8, 0))
    largest = min(largest, tokens)
    found = {size for size in (1, 2, 4) if size <= largest} | set(_steps(largest))
    if version >= (0, 20, 1) and tokens <= largest:
        found.add(tokens)
    if launch.max_capture_size is None:
        found |= {size for size in _decoding_sizes(version, seqs, width, largest, ceiling) if size <= tokens}
    return tuple(sorted(found))


def _steps(largest: int) -> tuple[int, ...]:
    return (*range(8, min(largest + 1, 256), 8), *range(256, largest + 1, 16))


def _decoding_sizes(version: Version, seqs: int, width: int, largest: int, ceiling: int) -> set[int]:
    """Sizes of steps in which every sequence decodes `width` tokens: with drafts since 0.29, all of them since 0.31."""
    if width == 1:
        return {seqs} if version >= (0, 31, 0) and seqs <= largest else set()
    if version < (0, 29, 0):
        return set()
    most = min(seqs, ceiling)
    counts = {count for count in (1, 2, 4) if count <= most} | set(_steps(most)) | {most}
    return {count * width for count in counts if count * width <= largest}


def _captures_v0(launch: Launch, seqs: int) -> tuple[int, ...]:
    possible = [1, 2, 4, *range(8, (8193 if launch.version >= (0, 6, 0) else 257), 8)]
    largest = launch.max_capture_size
    if largest is None:
        padded = next((size for size in possible if size >= seqs), possible[-1])
        largest = padded if launch.version >= (0, 3, 0) else possible[-1]
    return tuple(size for size in possible if size <= largest)
