"""What models take on the disk: each by itself, together, and what would be free again without one. Pure."""

from collections import Counter
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from heliosd.core.manifest import Manifest
from heliosd.core.names import Digest
from heliosd.store.extents import Range, taken_bytes
from heliosd.store.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Holdings:
    """The catalog at one moment."""

    refs: tuple[tuple[str, Manifest], ...]
    others: tuple[Manifest, ...]
    """Revisions that are kept and that no ref means or has meant."""
    recipes: Mapping[Digest, Recipe]
    sizes: Mapping[Digest, int]
    """Of every blob."""
    past: Mapping[str, tuple[Manifest, ...]] = field(default_factory=dict)
    """By ref: the revisions that it meant earlier and that go when it is removed."""
    ranges: Mapping[Digest, tuple[Range, ...]] = field(default_factory=dict)
    """Of the blobs that share blocks with others: where they lie on the disk."""

    def taken_bytes(self, blobs: AbstractSet[Digest]) -> int:
        """What these blobs take on the disk together."""
        apart = sum(self.sizes.get(blob, 0) for blob in blobs if blob not in self.ranges)
        return apart + taken_bytes(self.ranges[blob] for blob in blobs & self.ranges.keys())

    def freed_bytes(self, gone: AbstractSet[Digest]) -> int:
        """What would be free without these blobs."""
        apart = sum(self.sizes.get(blob, 0) for blob in gone if blob not in self.ranges)
        if not gone & self.ranges.keys():
            return apart
        left = (its for blob, its in self.ranges.items() if blob not in gone)
        return apart + taken_bytes(self.ranges.values()) - taken_bytes(left)

    def blobs_of(self, manifest: Manifest) -> frozenset[Digest]:
        """The blobs that its files are or are made of."""
        recipes = {file.digest: self.recipes.get(file.digest) for file in manifest.files}
        return frozenset().union(*(recipe.blobs if recipe else {digest} for digest, recipe in recipes.items()))


@dataclass(frozen=True, slots=True)
class ModelUsage:
    ref: str
    logical_bytes: int
    """Of its files, as if nothing was shared."""
    alone_bytes: int
    """Of blobs that nobody else uses."""
    shared_bytes: int
    """Of blobs that others use too."""
    frees_bytes: int
    """What removing it frees now: of what it alone uses or has meant all that is not in use, and its unfinished
    download."""


@dataclass(frozen=True, slots=True)
class Usage:
    models: tuple[ModelUsage, ...]
    logical_bytes: int
    physical_bytes: int
    whole_bytes: int
    """Of files put together for engines that read whole files only; not among the physical ones."""

    @property
    def ratio(self) -> float:
        """Physical to logical; 1 when there is nothing."""
        return self.physical_bytes / self.logical_bytes if self.logical_bytes else 1.0


def usage_of(
    known: Holdings,
    claims: Mapping[str, AbstractSet[str]],
    parts: Mapping[str, int],
    here: Mapping[str, int],
    held: AbstractSet[Digest],
    whole_bytes: int,
) -> Usage:
    """The account of a store.

    `claims`: what unfinished downloads of each ref want kept; `parts`: bytes of the parts that only that one wants;
    `here`: the sizes of what is claimed and is a blob already; `held`: blobs in use.
    """
    blobs = [known.blobs_of(manifest) for _, manifest in known.refs]
    whole = [
        mine.union(*map(known.blobs_of, known.past.get(ref, ())))
        for (ref, _), mine in zip(known.refs, blobs, strict=True)
    ]
    users = Counter(blob for each in (*whole, *map(known.blobs_of, known.others)) for blob in each)
    models = []
    for (ref, manifest), mine, with_past in zip(known.refs, blobs, whole, strict=True):
        alone = {blob for blob in mine if users[blob] == 1}
        goes = {blob for blob in with_past if users[blob] == 1}
        claimed = {key: here.get(key, 0) for key in claims.get(ref, frozenset()) if key not in users}
        spared = held | {key for other, keys in claims.items() if other != ref for key in keys}
        alone_bytes = known.freed_bytes(alone)
        going_bytes = known.freed_bytes(goes - spared) + sum(size for key, size in claimed.items() if key not in spared)
        models.append(
            ModelUsage(
                ref,
                manifest.size_bytes,
                alone_bytes,
                known.taken_bytes(mine) - alone_bytes,
                going_bytes + parts.get(ref, 0),
            )
        )
    logical_bytes = sum(manifest.size_bytes for _, manifest in known.refs)
    return Usage(tuple(models), logical_bytes, known.taken_bytes(known.sizes.keys()), whole_bytes)
