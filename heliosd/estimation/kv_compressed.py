"""The caches of DeepSeek V4's layers: a window of every layer, and, of most, tokens compressed 4 or 128 to one.

A compressed layer also keeps the running state of its compressor; one that compresses by 4 has an indexer, with a cache
and a compressor of its own. Sizes as vLLM lays them out for the packed fp8 rows (584 bytes), which it always uses on
NVIDIA devices.
"""

from heliosd.estimation.fields import Fields
from heliosd.estimation.kv_kinds import Keeps
from heliosd.estimation.kv_launch import CacheLaunch, LayerSpec

ROW_BYTES = 584
"""448 numbers in fp8, 64 rotated ones in bf16, 8 bytes of scales."""
ROW_ALIGNMENT = 576
STATE_WIDTH = 4
WINDOW_BLOCK = 64


def compressed_specs(text: Fields, launch: CacheLaunch, count: int) -> tuple[LayerSpec, ...]:
    """By the ratio of each layer; `launch` changes nothing but the drafter's layers, which keep a window alone."""
    ratios = _ratios(text, count)
    head, index_head = text.whole("head_dim", default=512), text.whole("index_head_dim", default=128)
    every = tuple(range(count + launch.draft_layers))
    by = {ratio: tuple(index for index in range(count) if ratios[index] == ratio) for ratio in (4, 128)}
    span = text.whole("sliding_window", default=128)
    found = [
        LayerSpec(
            Keeps.SLIDING, every, 1, head, ROW_BYTES, window=span, latent=True, role="window",
            alignment=ROW_ALIGNMENT, own_block=WINDOW_BLOCK,
        )
    ]  # fmt: skip
    for ratio, layers in by.items():
        if not layers:
            continue
        found.append(_rows(layers, head, ROW_BYTES, ratio, "rows"))
        found.append(_compressor(layers, head, ratio, "compressor"))
        if ratio == 4:
            found.append(_rows(layers, index_head, index_head + index_head // 128 * 4, ratio, "indexer"))
            found.append(_compressor(layers, index_head, ratio, "index-compressor"))
    return tuple(found)


def _rows(layers: tuple[int, ...], head: int, entry: int, ratio: int, role: str) -> LayerSpec:
    return LayerSpec(
        Keeps.FULL, layers, 1, head, entry, latent=True, role=role, tokens_per_entry=ratio, alignment=ROW_ALIGNMENT
    )


def _compressor(layers: tuple[int, ...], head: int, ratio: int, role: str) -> LayerSpec:
    """Sums and scores in float32, of two overlapping groups where the ratio is 4."""
    groups = 2 if ratio == 4 else 1
    return LayerSpec(
        Keeps.SLIDING, layers, 1, 2 * groups * head, 2 * groups * head * STATE_WIDTH, window=groups * ratio,
        latent=True, role=role, alignment=ROW_ALIGNMENT, own_block=4 if ratio == 4 else 8,
    )  # fmt: skip


def _ratios(text: Fields, count: int) -> list[int]:
    """As listed; else two layers with a window alone, then 4 and 128 by turns."""
    listed = text.items("compress_ratios")
    if len(listed) >= count and all(isinstance(ratio, int) for ratio in listed[:count]):
        return [max(1, ratio) for ratio in listed[:count]]
    return [1 if index < 2 else (4 if index % 2 == 0 else 128) for index in range(count)]
