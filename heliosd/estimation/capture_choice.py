"""Which batch sizes are worth a CUDA graph: up to twice what is worked on at once, as the engine's own rule has it for
the most it may work on, and never more than there is room for.

A step of more tokens than the largest size runs without a graph, one between two sizes is filled up to the larger. Each
size costs its share of the graphs' memory, and its time at every start.
"""

from collections.abc import Sequence
from dataclasses import replace

from heliosd.core.hardware import DeviceKind
from heliosd.estimation.estimate import Place, Wishes, launch_of
from heliosd.estimation.known import Known
from heliosd.estimation.launch import Version
from heliosd.estimation.resolve import resolve

CAPTURES = "cudagraph_capture_sizes"
"""The engine's argument; it becomes `compilation_config.cudagraph_capture_sizes`."""
THEIRS = frozenset(
    {CAPTURES, "max_cudagraph_capture_size", "compilation_config", "enforce_eager", "performance_mode"}
    | {"optimization_level", "cudagraph_metrics"}
)
"""Where the operator set one of these, he chose."""
SMALL = (1, 2, 4, 8)
"""Kept in any case: with few requests a graph saves most, because launching kernels takes longer than they do."""


def capture_sizes(
    usual: Sequence[int], at_once: int, each_bytes: int, left_bytes: int | None = None
) -> tuple[int, ...]:
    """Of the `usual` sizes, ascending: those up to twice `at_once` requests, one token each, and the next.

    `left_bytes`: on the device for graphs, each of which takes `each_bytes`; None: room for any. Where that is too
    little, small sizes stay, and of the others every so manieth, the largest first. Empty: none fits.
    """
    top = next((size for size in usual if size >= 2 * at_once), usual[-1] if usual else 0)
    wanted = tuple(size for size in usual if size <= top)
    if left_bytes is None or each_bytes <= 0 or len(wanted) * each_bytes <= left_bytes:
        return wanted
    return thinned(wanted, max(0, left_bytes) // each_bytes)


def thinned(sizes: Sequence[int], count: int) -> tuple[int, ...]:
    """At most `count` of them, with the small ones, and the largest if more than those may stay."""
    small = [size for size in sizes if size in SMALL]
    if count <= len(small):
        return tuple(small[:count])
    large = [size for size in sizes if size not in SMALL]
    places = min(count - len(small), len(large))
    step = len(large) / places if places else 0.0
    chosen = {large[len(large) - 1 - int(number * step)] for number in range(places)}
    return tuple(sorted({*small, *chosen}))


def given(wishes: Wishes) -> bool:
    """Whether the operator chose what is captured."""
    return bool(THEIRS & {str(name).replace("-", "_") for name in wishes.engine_args})


def usual_sizes(known: Known, wishes: Wishes, place: Place, version: Version) -> tuple[int, ...]:
    """What the engine would capture by itself; empty where that is nothing, or nothing of ours to choose: on the host,
    and for models that embed, whose steps are as large as their texts are long."""
    model = known.model
    if model is None or place.kind not in (DeviceKind.CUDA, DeviceKind.MIG) or given(wishes) or model.sizes.pooling:
        return ()
    return resolve(model, launch_of(wishes, place, model, version)).defaults.capture_sizes


def for_use(known: Known, wishes: Wishes, place: Place, version: Version, at_once: int | None) -> tuple[Wishes, str]:
    """The wishes with fewer sizes where the model is known to work on few requests at once, and why; else as they are.

    `at_once`: to be expected at most; None: nobody knows.
    """
    usual = usual_sizes(known, wishes, place, version) if at_once is not None else ()
    sizes = capture_sizes(usual, at_once or 0, 0)
    if not sizes or len(sizes) == len(usual):
        return wishes, ""
    why = (
        f"CUDA graphs of {len(sizes)} batch sizes up to {sizes[-1]} instead of {len(usual)} up to {usual[-1]}: at most "
        f"{at_once} requests at once are expected, by what it worked on here"
    )
    return with_sizes(wishes, sizes), why


def with_sizes(wishes: Wishes, sizes: Sequence[int]) -> Wishes:
    return replace(wishes, engine_args={**wishes.engine_args, CAPTURES: list(sizes)})
