"""What `gc` removes from the store, and what stays and why: a plan first, which then is carried out as it stands.

Nothing that is in use goes: a revision that is held, and a download that is under way.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Literal

from heliosd.core.names import SHOWN_DIGITS, Digest, ModelRef, kept_ref
from heliosd.core.units import format_seconds
from heliosd.store.claims import Claim
from heliosd.store.stored import PastRevision

Kind = Literal["revision", "download", "blobs", "directory"]


@dataclass(frozen=True, slots=True)
class Item:
    """One thing, and why it goes or stays."""

    kind: Kind
    name: str
    """A revision's ref, a download's ref, how many blobs, a directory."""
    size_bytes: int
    """What its going frees, or of what stays what it holds that nothing else does."""
    why: str


@dataclass(frozen=True, slots=True)
class Plan:
    goes: tuple[Item, ...]
    stays: tuple[Item, ...]
    """Only what is near going: earlier revisions, interrupted downloads, what is still in use."""
    revisions: tuple[tuple[ModelRef, Digest], ...]
    claims: tuple[Claim, ...]
    blobs: frozenset[Digest]
    """Those that belong to nothing."""
    directories: tuple[Digest, ...]

    @property
    def freed_bytes(self) -> int:
        return sum(item.size_bytes for item in self.goes)


@dataclass(frozen=True, slots=True)
class Found:
    """The state of the store that a plan is made of."""

    now: float
    past: Sequence[PastRevision]
    """Of every ref that has meant more than it means now, ref after ref, the last one first."""
    references: AbstractSet[tuple[ModelRef, Digest]]
    """Every ref with each revision that it means or has meant."""
    blobs: Mapping[Digest, AbstractSet[Digest]]
    """What each revision of the catalog is made of."""
    sizes: Mapping[Digest, int]
    """Bytes of every blob on the disk."""
    parts: Mapping[str, int]
    """Bytes of what interrupted downloads left, by key."""
    claims: Sequence[Claim]
    busy: AbstractSet[str]
    """Refs that are being added or removed."""
    held: AbstractSet[Digest]
    """Revisions in use."""
    held_blobs: AbstractSet[Digest]
    directories: AbstractSet[str]
    users: Mapping[str, Sequence[str]]
    """Who uses a revision, for people: replicas, by the revision."""


def plan(found: Found, keep: Callable[[ModelRef], int], interrupted_s: float) -> Plan:
    """`keep`: how many revisions of a ref stay; `interrupted_s`: a download interrupted for so long goes."""
    return _Planning(found, keep, interrupted_s).run()


class _Planning:
    """Each blob and part is counted once, for the first thing that goes with it: so the sizes add up."""

    def __init__(self, found: Found, keep: Callable[[ModelRef], int], interrupted_s: float) -> None:
        self._found = found
        self._keep = keep
        self._interrupted_s = interrupted_s
        self._goes: list[Item] = []
        self._stays: list[Item] = []
        self._counted: set[str] = set()
        self._files = found.blobs

    def run(self) -> Plan:
        found = self._found
        old = self._old_revisions()
        forgotten = {(past.ref, past.revision) for past in old}
        going = {past.revision for past in old} - {rev for ref, rev in found.references if (ref, rev) not in forgotten}
        claims = [claim for claim in found.claims if self._given_up(claim)]
        claimed = {key for claim in found.claims if claim not in claims for key in claim.keys}
        known = {digest for revision, files in self._files.items() if revision not in going for digest in files}
        safe = known | claimed | found.held_blobs
        for past in old:
            self._revision(past, safe, shared=past.revision not in going)
        for claim in found.claims:
            self._download(claim, safe, claimed, goes=claim in claims)
        loose = frozenset(found.sizes) - safe - self._counted
        if loose:
            self._go("blobs", count(len(loose), "file"), self._count(loose), "of no model and no download")
        stale = sorted(found.directories - found.blobs.keys() - found.held)
        for name in stale:
            self._go("directory", f"revisions/{name[:SHOWN_DIGITS]}", 0, "stands for no revision any more")
        self._removed_but_held(known | claimed)
        return Plan(
            tuple(self._goes),
            tuple(self._stays),
            tuple((past.ref, past.revision) for past in old),
            tuple(claims),
            loose,
            tuple(Digest(name) for name in stale),
        )

    def _old_revisions(self) -> list[PastRevision]:
        """The earlier revisions that go; those that stay are told of."""
        found, ranks = self._found, Counter[ModelRef]()
        uses = Counter(digest for files in self._files.values() for digest in files)
        old: list[PastRevision] = []
        for past in found.past:
            ranks[past.ref] += 1
            kept = self._keep(past.ref)
            if past.current:
                continue
            if ranks[past.ref] <= kept:
                why = f"one of the {kept} of {past.ref} that are kept"
            elif past.revision in found.held:
                why = f"beyond the {kept} of {past.ref} that are kept, but in use{self._by(past.revision)}"
            else:
                old.append(past)
                continue
            own = [digest for digest in self._files.get(past.revision, ()) if uses[digest] == 1]
            size_bytes = sum(found.sizes.get(digest, 0) for digest in own)
            self._stays.append(Item("revision", str(kept_ref(past.ref, past.revision)), size_bytes, why))
        return old

    def _revision(self, past: PastRevision, safe: AbstractSet[str], *, shared: bool) -> None:
        kept = self._keep(past.ref)
        why = f"beyond the {kept} of {past.ref} that {'is' if kept == 1 else 'are'} kept"
        if shared:
            why += "; another model has the same files"
        size_bytes = 0 if shared else self._count(set(self._files.get(past.revision, ())) - safe)
        self._go("revision", str(kept_ref(past.ref, past.revision)), size_bytes, why)

    def _given_up(self, claim: Claim) -> bool:
        return claim.ref not in self._found.busy and self._found.now - claim.at >= self._interrupted_s

    def _download(self, claim: Claim, safe: AbstractSet[str], claimed: AbstractSet[str], *, goes: bool) -> None:
        found = self._found
        since = _span(max(0.0, found.now - claim.at))
        blobs = {Digest(key) for key in claim.keys if key in found.sizes}
        if goes:
            parts = {key for key in claim.keys - claimed if f"part {key}" not in self._counted}
            self._counted |= {f"part {key}" for key in parts}
            size_bytes = sum(found.parts.get(key, 0) for key in parts) + self._count(blobs - safe)
            self._go("download", claim.ref, size_bytes, f"interrupted {since} ago")
            return
        models = {digest for files in self._files.values() for digest in files}
        size_bytes = sum(found.parts.get(key, 0) for key in claim.keys)
        size_bytes += sum(found.sizes[digest] for digest in blobs - models)
        limit = _span(self._interrupted_s)
        why = "under way" if claim.ref in found.busy else f"interrupted {since} ago, goes after {limit}"
        self._stays.append(Item("download", claim.ref, size_bytes, why))

    def _removed_but_held(self, wanted: AbstractSet[str]) -> None:
        """What was removed while an engine used it: it goes when that ends, without anybody's doing."""
        found = self._found
        loose = (found.held_blobs & found.sizes.keys()) - wanted
        gone = sorted(found.held - found.blobs.keys())
        if gone:
            by = ", ".join(name for revision in gone for name in found.users.get(revision, ())) or "an engine"
            size_bytes = sum(found.sizes[digest] for digest in loose)
            self._stays.append(
                Item("blobs", count(len(loose), "file"), size_bytes, f"of a removed model, in use by {by}")
            )

    def _by(self, revision: Digest) -> str:
        users = self._found.users.get(revision)
        return f" by {', '.join(users)}" if users else ""

    def _count(self, digests: AbstractSet[Digest]) -> int:
        """Bytes of those that are here and not counted yet."""
        fresh = digests - self._counted
        self._counted |= fresh
        return sum(self._found.sizes.get(Digest(digest), 0) for digest in fresh)

    def _go(self, kind: Kind, name: str, size_bytes: int, why: str) -> None:
        self._goes.append(Item(kind, name, size_bytes, why))


def count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _span(seconds: float) -> str:
    days = round(seconds / 86400)
    return f"{days} days" if days > 1 else format_seconds(seconds)
