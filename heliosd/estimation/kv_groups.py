"""Puts layers into groups that share a block table, with one size of block for all: as vLLM's cache manager does.

Layers that keep the same share a group. Where a model mixes kinds, pages are made equally large (small ones take more
tokens, states are padded), and every group gets as many layers as the scarcest kind has: what is missing is padding.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from heliosd.estimation.kv_kinds import Keeps
from heliosd.estimation.kv_launch import CacheLaunch, LayerSpec

LOCAL = (Keeps.SLIDING, Keeps.CHUNKED)


@dataclass(frozen=True, slots=True)
class Page:
    """What equal layers keep, cut into blocks."""

    spec: LayerSpec
    block_tokens: int
    page_bytes: int
    """Of a block of one layer, padding included."""


@dataclass(frozen=True, slots=True)
class Group:
    """Layers with one block table: of equal pages, or of several that need as many blocks."""

    parts: tuple[tuple[Page, tuple[int, ...]], ...]
    """Pages with the layers that have them."""

    @property
    def first(self) -> Page:
        return self.parts[0][0]

    @property
    def layers(self) -> int:
        return sum(len(layers) for _, layers in self.parts)

    def block_bytes(self, start: int, stop: int) -> int:
        """Of a block, for the layers of a pipeline stage: from `start` up to `stop`."""
        total = 0
        for page, layers in self.parts:
            inside = layers and start <= layers[0] and layers[-1] < stop
            number = len(layers) if inside else sum(start <= index < stop for index in layers)
            total += page.page_bytes * number
        return total


def groups_of(pages: Sequence[Page], launch: CacheLaunch) -> tuple[Group, ...]:
    """The groups of a model's layers, in the order of their first."""
    pages = merged(pages)
    if not pages:
        return ()
    if len(pages) == 1 or _one_kind(pages):
        return (Group(tuple((page, page.spec.layers) for page in pages)),)
    sizes = {page.page_bytes for page in pages}
    if len(sizes) > 1 and any(page.spec.role == "window" for page in pages):
        return _packed(pages)
    if len(sizes) > 1:
        pages = _equal(pages)
        if not pages:
            return ()
    return _evenly(merged(pages), launch)


def merged(pages: Sequence[Page]) -> tuple[Page, ...]:
    """Equal pages together; full layers that differ in what is only computed, not kept, are equal."""
    found: dict[Page, list[int]] = {}
    for page in pages:
        found.setdefault(page, []).extend(page.spec.layers)
    return tuple(_at(page, tuple(sorted(layers))) for page, layers in found.items())


def _at(page: Page, layers: tuple[int, ...]) -> Page:
    return page if page.spec.layers == layers else replace(page, spec=replace(page.spec, layers=layers))


def _one_kind(pages: Sequence[Page]) -> bool:
    """Whether all need the same number of blocks for a sequence, so that one table serves them."""
    first = pages[0]
    for page in pages:
        if page.block_tokens != first.block_tokens or page.spec.keeps is not first.spec.keeps:
            return False
        if (page.spec.role == "cross") != (first.spec.role == "cross"):
            return False
        if page.spec.keeps in LOCAL and page.spec.window != first.spec.window:
            return False
        if page.spec.keeps is Keeps.STATE and page.page_bytes != first.page_bytes:
            return False
    return True


def _equal(pages: Sequence[Page]) -> tuple[Page, ...]:
    """Pages as large as the largest: more tokens where that divides, else padding."""
    largest = max(page.page_bytes for page in pages)
    found: list[Page] = []
    for page in pages:
        if page.page_bytes == largest:
            found.append(page)
        elif page.spec.keeps is Keeps.STATE or largest % page.page_bytes:
            found.append(replace(page, page_bytes=largest))
        else:
            times = largest // page.page_bytes
            found.append(replace(page, page_bytes=largest, block_tokens=page.block_tokens * times))
    return tuple(found)


def _evenly(pages: Sequence[Page], launch: CacheLaunch) -> tuple[Group, ...]:
    """Groups of as many layers as the scarcest kind has; as the most frequent one, when it has few more."""
    counts = [len(page.spec.layers) for page in pages]
    size, most = min(counts), max(counts)
    if most < size * (1.5 if launch.version >= (0, 20) else 1.25):
        size = most
    found: list[Group] = []
    for page in pages:
        layers = page.spec.layers
        number = -(-len(layers) // size)
        found.extend(Group(((page, layers[start::number]),)) for start in range(number))
    return tuple(found)


def _packed(pages: Sequence[Page]) -> tuple[Group, ...]:
    """Pages of unequal sizes side by side in a block: DeepSeek V4.

    Kinds that need the same number of blocks are bundled. Bundles in which every size occurs equally often are split,
    so that each group covers the same number of repetitions.
    """
    bundles: list[list[Page]] = []
    for page in sorted(pages, key=lambda page: page.spec.layers[0]):
        home = next((bundle for bundle in bundles if _one_kind([*bundle, page])), None)
        if home is None:
            bundles.append([page])
        else:
            home.append(page)
    found: list[Group] = []
    by_size = [_by_size(bundle) for bundle in bundles]
    balanced = [len({len(places) for places in sizes.values()}) == 1 for sizes in by_size]
    repeats = [max(len(places) for places in sizes.values()) for sizes in by_size]
    described = list(zip(by_size, balanced, repeats, strict=True))
    floor = max((times for sizes, even, times in described if even and len(sizes) > 1), default=0)
    chunk = _least_padding([times for _, even, times in described if even], floor)
    for sizes, even, times in described:
        number = -(-times // chunk) if even and floor else 1
        for start in range(number):
            parts: dict[Page, list[int]] = {}
            for places in sizes.values():
                for page, index in places[start::number]:
                    parts.setdefault(page, []).append(index)
            found.append(Group(tuple((page, tuple(layers)) for page, layers in parts.items())))
    return tuple(found)


def _by_size(bundle: Sequence[Page]) -> dict[int, list[tuple[Page, int]]]:
    sizes: dict[int, list[tuple[Page, int]]] = {}
    for page in bundle:
        sizes.setdefault(page.page_bytes, []).extend((page, index) for index in page.spec.layers)
    for places in sizes.values():
        places.sort(key=lambda place: place[1])
    return sizes


def _least_padding(counts: Sequence[int], floor: int) -> int:
    """The number from `floor` up that rounds all counts up to its multiples with the least loss; the largest such."""
    if not counts:
        return 1
    choices = range(max(1, floor), max(*counts, floor, 1) + 1)
    return min(choices, key=lambda size: (sum(-count % size for count in counts), -size))
