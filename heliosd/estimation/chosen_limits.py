"""Limits chosen smaller than the engine's defaults, so that a model fits on a device that takes its weights.

In this order: a smaller KV cache, fewer CUDA graphs, fewer sequences at once, fewer tokens of a step, shorter requests.
The first that suffices is taken, and no more of it than is needed; shorter requests are the last resort, because
clients notice. What the operator set is never changed.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

from heliosd.core.units import format_bytes
from heliosd.estimation.capture_choice import SMALL, capture_sizes, given, with_sizes
from heliosd.estimation.estimate import Estimate, Wishes
from heliosd.estimation.known import Known
from heliosd.estimation.resolve import resolve

SEQUENCES = (128, 64, 32, 16)
"""Fewer at once, and a server is no server."""
STEP_TOKENS = (4096, 2048)
"""Fewer in a step, and prompts are read slowly for want of work."""
LEAST_LENGTH = 2048
"""A model that cannot hold a conversation of so many tokens is refused instead."""
STEP = "max_num_batched_tokens"

Predict = Callable[[Wishes, int | None], Estimate]
"""An estimate of wishes, whose KV cache stays within a room of so many bytes, or of any size."""


def within(room_bytes: int, wishes: Wishes, known: Known, predict: Predict) -> Estimate:
    """The estimate of `wishes`, with limits chosen so that it takes at most `room_bytes` of each device.

    As it is where it fits anyway, where nothing that is ours to choose makes it fit, and where nothing is known of the
    model but its size.
    """
    whole = predict(wishes, None)
    if whole.per_device.total_bytes <= room_bytes or known.model is None or whole.per_device.weights_bytes > room_bytes:
        return whole
    for tried, why in _ways(wishes, whole, room_bytes, known):
        found = predict(tried, room_bytes)
        if found.per_device.total_bytes <= room_bytes and found.max_model_len >= whole.max_model_len:
            return _told(found, whole, why, room_bytes)
    # The last of the ways frees most; requests get what is left then, or without it where that is nearly as much.
    shorter = [predict(tried, room_bytes) for tried in (wishes, tried)]
    least = min(LEAST_LENGTH, whole.max_model_len)
    plain, narrow = (
        each if each.per_device.total_bytes <= room_bytes and each.max_model_len >= least else None for each in shorter
    )
    if plain is not None and (narrow is None or plain.max_model_len >= narrow.max_model_len // 2):
        return plain
    return whole if narrow is None else _told(narrow, whole, why, room_bytes)


def _ways(wishes: Wishes, whole: Estimate, room_bytes: int, known: Known) -> Iterator[tuple[Wishes, str]]:
    """Ever smaller limits, with what was changed in words; first those asked for, with a smaller KV cache."""
    tried, changed = wishes, ""
    yield tried, changed
    if graphs := _fewer_graphs(wishes, whole, room_bytes, known):
        yield graphs
    if wishes.max_num_seqs is None:
        for count in SEQUENCES:
            if count < whole.max_num_seqs:
                tried, changed = replace(tried, max_num_seqs=count), f"max_num_seqs {whole.max_num_seqs} -> {count}"
                yield tried, changed
    said = {name.replace("-", "_") for name in wishes.engine_args}
    default = _step_tokens(whole, known)
    fewer = changed
    if STEP not in said:
        for tokens in STEP_TOKENS:
            if tokens < default:
                tried = replace(tried, engine_args={**wishes.engine_args, STEP: tokens})
                changed = ", ".join(each for each in (fewer, f"{STEP} {default} -> {tokens}") if each)
                yield tried, changed


def _fewer_graphs(wishes: Wishes, whole: Estimate, room_bytes: int, known: Known) -> tuple[Wishes, str] | None:
    """As many graphs as there is room for beside all else and one request's KV cache; None where those are not ours to
    choose, or even the small ones do not fit."""
    model, launch = known.model, whole.launch
    if model is None or launch is None or given(wishes) or model.sizes.pooling:
        return None
    usual = resolve(model, launch).defaults.capture_sizes
    graphs = max((each.graphs.likely_bytes for each in whole.accounts), default=0)
    if not usual or not graphs:
        return None
    each = -(-graphs // len(usual))
    now = whole.per_device
    spare = now.kv_cache_bytes - whole.kv_least_bytes if whole.kv_least_bytes else 0
    left_bytes = room_bytes - (now.total_bytes - graphs - spare)
    sizes = capture_sizes(usual, usual[-1], each, left_bytes)
    if len(sizes) < len(SMALL) or len(sizes) == len(usual):
        return None
    return with_sizes(wishes, sizes), f"CUDA graphs of {len(usual)} batch sizes -> {len(sizes)} up to {sizes[-1]}"


def _step_tokens(whole: Estimate, known: Known) -> int:
    """What the engine would take for a step by itself; 0 where it needs them all: an image, or what is pooled, must go
    through in one step."""
    model = known.model
    if model is None or whole.launch is None:
        return 0
    sizes = model.sizes
    if sizes.pooling or sizes.tower is not None or sizes.audio or sizes.encoder_positions > 0:
        return 0
    return resolve(model, whole.launch).defaults.max_num_batched_tokens


def _told(found: Estimate, whole: Estimate, changed: str, room_bytes: int) -> Estimate:
    over = whole.per_device.total_bytes - room_bytes
    kv, before = found.per_device.kv_cache_bytes, whole.per_device.kv_cache_bytes
    what = [changed] if changed else []
    what += [f"KV cache {format_bytes(before)} -> {format_bytes(kv)}"] if kv < before else []
    why = f"{' and '.join(what)}: with the usual limits it would need {format_bytes(over)} more than a device offers"
    return replace(found, notes=(*found.notes, why))
