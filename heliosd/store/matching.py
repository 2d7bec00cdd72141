"""Which tensors of one safetensors file may be those of another, and how the file is then cut into pieces. Pure.

Two files are compared tensor by tensor, because that is how fine-tunes and requantizations differ: a layer is changed
or it is not, and where it lies in the file says nothing.
"""

import hashlib
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from heliosd.core.names import Digest
from heliosd.estimation.headers import Header
from heliosd.store.recipe import Piece, Recipe, joined

BORDER_BYTES = 4096
"""What is changed begins at a multiple of this in its blob, so that it can be mapped."""

Key = tuple[str, str, tuple[int, ...]]
"""Name, dtype and shape of a tensor; of a file's header the digest of its bytes."""


@dataclass(frozen=True, slots=True)
class Span:
    """A tensor where it lies in its file, or the file's header."""

    key: Key
    begin: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Run:
    """A range of a file, and the place with the same bytes in another; None: there is none."""

    begin: int
    size_bytes: int
    place: Piece | None


def spans_of(head: bytes, header: Header) -> tuple[Span, ...]:
    """A file's spans, one after the other without a gap. `head`: its bytes up to the first tensor."""
    first = Span(("", hashlib.sha256(head).hexdigest(), ()), 0, len(head))
    tensors = (
        Span((tensor.name, tensor.dtype, tensor.shape), len(head) + tensor.begin, tensor.size_bytes)
        for tensor in header.tensors
        if tensor.size_bytes
    )
    return (first, *tensors)


def signature_of(spans: Iterable[Span]) -> "array[int]":
    """What `likely_bytes` needs to know of a file, in eight bytes a tensor. It holds for this process only."""
    return array("q", (hash(span.key) for span in spans))


def sizes_of(spans: Iterable[Span]) -> dict[int, int]:
    """The spans of a file by what a signature has of each."""
    return {hash(span.key): span.size_bytes for span in spans}


def likely_bytes(sizes: Mapping[int, int], other: "array[int]") -> int:
    """How much of the file with these sizes could be equal to what is in the file of that signature."""
    return sum(sizes.get(key, 0) for key in other)


def runs_of(spans: Sequence[Span], places: Mapping[Span, Piece], *, least_bytes: int) -> tuple[Run, ...]:
    """The file as runs. One that is found elsewhere but is shorter than `least_bytes` counts as changed: it is not
    worth a piece of its own."""
    found = _merged(Run(span.begin, span.size_bytes, places.get(span)) for span in spans)
    return _merged(
        run if run.place is None or run.size_bytes >= least_bytes else Run(run.begin, run.size_bytes, None)
        for run in found
    )


def _merged(runs: Iterable[Run]) -> tuple[Run, ...]:
    found: list[Run] = []
    for run in runs:
        last = found[-1] if found else None
        if last is not None and last.place is None and run.place is None:
            found[-1] = Run(last.begin, last.size_bytes + run.size_bytes, None)
        elif last is not None and _continues(last.place, run.place):
            assert last.place is not None
            size_bytes = last.size_bytes + run.size_bytes
            found[-1] = Run(last.begin, size_bytes, Piece(last.place.blob, last.place.offset, size_bytes))
        else:
            found.append(run)
    return tuple(found)


def _continues(last: Piece | None, next_: Piece | None) -> bool:
    return last is not None and next_ is not None and last.blob == next_.blob and last.end == next_.offset


def spans_in(spans: Iterable[Span], runs: Iterable[Run]) -> Iterator[Span]:
    """Those spans that lie in runs which are to be found elsewhere."""
    rest = iter(spans)
    for run in runs:
        left_bytes = run.size_bytes
        while left_bytes:
            span = next(rest)
            left_bytes -= span.size_bytes
            if run.place is not None:
                yield span


def block_steps(run: Run, block_bytes: int, step_bytes: int) -> Iterator[tuple[int, Piece]]:
    """What of a run lies in whole blocks of both files, in steps: where in the file, and where in the other."""
    if run.place is None or (run.begin - run.place.offset) % block_bytes:
        return
    begin = -(-run.begin // block_bytes) * block_bytes
    end = (run.begin + run.size_bytes) // block_bytes * block_bytes
    for at in range(begin, end, step_bytes):
        yield at, Piece(run.place.blob, run.place.offset + at - run.begin, min(step_bytes, end - at))


def delta_offsets(runs: Iterable[Run]) -> tuple[tuple[Run, int], ...]:
    """The changed runs, and where each begins in the blob that holds them."""
    found, end = [], 0
    for run in runs:
        if run.place is None:
            begin = -(-end // BORDER_BYTES) * BORDER_BYTES
            found.append((run, begin))
            end = begin + run.size_bytes
    return tuple(found)


def delta_bytes(runs: Iterable[Run]) -> int:
    """The size of the blob that holds the changed runs."""
    changed = delta_offsets(runs)
    return changed[-1][1] + changed[-1][0].size_bytes if changed else 0


def recipe_of(runs: Iterable[Run], delta: Digest | None) -> Recipe:
    """The file as pieces. `delta`: the blob with the changed runs, None when there are none."""
    runs = tuple(runs)
    offsets = dict(delta_offsets(runs))
    pieces = []
    for run in runs:
        if run.place is not None:
            pieces.append(run.place)
        else:
            assert delta is not None
            pieces.append(Piece(delta, offsets[run], run.size_bytes))
    return joined(pieces)
