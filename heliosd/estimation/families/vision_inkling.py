"""Inkling: pictures folded step by step into one vector each, without attention; sounds as tokens.

The widths follow the class's own plan: patches grow by their prime factors, first in space, then in time, and each
layer takes the scale nearest to an even progression of the logarithms of their sizes.
"""

import itertools
import math

from heliosd.estimation.families.sizes import contradiction, positive
from heliosd.estimation.families.vision_blocks import Tensors, depth_of, table
from heliosd.estimation.families.vision_language import needed
from heliosd.estimation.fields import Fields
from heliosd.estimation.layout import Split, linear, norm

_MOST = 4096
"""Pixels along a patch, and frames, beyond which a configuration is refused."""
Scale = tuple[int, int, int]
"""Frames, pixels along a side, channels."""


def inkling(fields: Fields, text: int) -> Tensors:
    seen = needed(fields, "vision_config", "inkling_vision")
    heard = needed(fields, "audio_config", "inkling_audio")
    width = positive(seen, "text_hidden_size", default=text)
    plan = scales(seen)
    made: Tensors = ()
    for index, (start, end) in enumerate(itertools.pairwise(plan)):
        folded = (end[0] // start[0]) * (end[1] // start[1]) ** 2
        last = index == len(plan) - 2
        out = width if last else end[2]
        made += linear(f"model.visual.vision_encoder.layers.{index}.proj", out, start[2] * folded, Split.WHOLE)
        made += () if last else norm(f"model.visual.vision_encoder.layers.{index}.norm", out)
    sounds = positive(heard, "num_codebooks", "n_mel_bins") * positive(heard, "codebook_size", "mel_vocab_size")
    wide = positive(heard, "hidden_size", "text_hidden_size", default=text)
    return (
        *made,
        *norm("model.visual.final_norm", width),
        table("model.audio.embed_audio_tokens", sounds, wide),
        *norm("model.audio.norm", positive(heard, "text_hidden_size", default=text)),
    )


def scales(fields: Fields) -> list[Scale]:
    """One more than the tower has layers."""
    patch, frames = positive(fields, "patch_size"), positive(fields, "temporal_patch_size")
    channels = positive(fields, "num_channels", default=3)
    depth = depth_of(fields, "n_layers", "num_hidden_layers")
    if patch > _MOST or frames > _MOST or not depth:
        raise contradiction("its patches have absurd sizes or there are no layers", "patch_size")
    grown, seen = [], 1
    for prime in _primes(patch):
        seen *= prime
        grown.append((1, seen, -(-seen * seen * channels // 64) * 64))
    passed = 1
    for prime in _primes(frames):
        passed *= prime
        grown.append((passed, seen, seen * seen * channels * passed * 64))
    steps: list[Scale] = [(1, 1, channels), *grown]
    sizes = [math.log(one[0] * one[1] * one[1]) for one in steps]
    whole = math.log(patch * patch * frames * channels)
    ideal = [whole * index / depth for index in range(depth + 1)]
    chosen = _nearest(ideal, sizes) if depth >= len(steps) else _assigned(ideal, sizes)
    chosen[0], chosen[-1] = 0, len(steps) - 1
    return [steps[index] for index in chosen]


def _nearest(ideal: list[float], sizes: list[float]) -> list[int]:
    return [min(range(len(sizes)), key=lambda index: abs(sizes[index] - one)) for one in ideal]


def _assigned(ideal: list[float], sizes: list[float]) -> list[int]:
    """Each its own scale at the least total distance; both lists ascend, so the best choice does too."""
    best: list[tuple[float, tuple[int, ...]]] = [(0.0, ())] * (len(sizes) + 1)
    for row, one in enumerate(ideal):
        following: list[tuple[float, tuple[int, ...]]] = [(math.inf, ())]
        for column in range(1, len(sizes) + 1):
            cost, taken = best[column - 1]
            here = (cost + abs(one - sizes[column - 1]), (*taken, column - 1))
            usable = column > row and len(taken) == row
            following.append(min(following[-1], here, key=lambda pair: pair[0]) if usable else following[-1])
        best = following
    return list(best[-1][1])


def _primes(number: int) -> list[int]:
    """Prime factors, the largest first."""
    found, factor = [], 2
    while number > 1:
        while number % factor == 0:
            found.append(factor)
            number //= factor
        factor += 1
    return found[::-1]
