"""The store: models by ref, their files as blobs, verified on the way in. What the rest of Helios asks.

It decides nothing about memory or use; whoever uses a revision holds it, and then its files stay.
"""

import asyncio
import errno
import fcntl
import logging
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

from heliosd.core.manifest import Manifest
from heliosd.core.names import Digest, ModelRef, kept_ref, parse_ref
from heliosd.core.retention import Tier
from heliosd.core.units import MiB
from heliosd.errors import Conflict, HeliosError, NotFound, SourceFailed, Unavailable
from heliosd.estimation.known import Known
from heliosd.state.database import Database
from heliosd.store.adding import Adding
from heliosd.store.away import Away, AwayFile
from heliosd.store.blobs import Blobs
from heliosd.store.catalog import Catalog
from heliosd.store.claims import MAX_AGE_S, Claims
from heliosd.store.difference import Difference, Side, difference
from heliosd.store.durable import make_directory
from heliosd.store.extents import Range, ranges
from heliosd.store.garbage import Found, Plan, plan
from heliosd.store.holding import Holding
from heliosd.store.inspections import Inspections
from heliosd.store.joined import Additions, Watch
from heliosd.store.layout import Layout
from heliosd.store.letting_go import LettingGo
from heliosd.store.listing import Listings
from heliosd.store.revisions import Revisions
from heliosd.store.serving import MayGive, Serving
from heliosd.store.sharing import Calm, Shared, Sharing, at_once
from heliosd.store.sources.bandwidth import Bandwidth
from heliosd.store.sources.directory import DirectorySource
from heliosd.store.sources.fetch import CONNECTIONS, WITH_PEERS, Fetcher
from heliosd.store.sources.gguf import GgufSource
from heliosd.store.sources.hub import HubAccess, HubSource
from heliosd.store.sources.nearby import Nearby
from heliosd.store.sources.peers import HubOrPeers, PeerSource
from heliosd.store.sources.source import Progress, Source, Tell
from heliosd.store.sources.transfer import CHUNK_BYTES
from heliosd.store.sources.wanted import Patience
from heliosd.store.stored import (
    Addition,
    PastRevision,
    Record,
    StoredModel,
    checked_alias,
    default_ref,
)
from heliosd.store.stubs import Stubs
from heliosd.store.sweep import Swept, sweep
from heliosd.store.threads import Threads
from heliosd.store.tiers.tiers import TierLimits, Tiers
from heliosd.store.usage import Holdings, Usage, usage_of
from heliosd.store.whole import Whole

log = logging.getLogger("heliosd.store")

THREADS = 6
SHARED_FILE_BYTES = 64 * MiB
SHARED_RUN_BYTES = 1 * MiB


class Identified(Protocol):
    """A model as far as its files are asked for."""

    @property
    def revision(self) -> Digest: ...
    @property
    def manifest(self) -> Manifest: ...


@dataclass(frozen=True, slots=True)
class Compared:
    before: ModelRef
    """With the beginning of the revision's digest."""
    after: ModelRef
    found: Difference


class Store:
    """The models of this machine. One daemon per root; `open` before use, `close` at the end.

    `database` must be open and outlive the store.
    """

    def __init__(
        self,
        root: Path,
        database: Database,
        *,
        hub: HubAccess | None = None,
        patience: Patience | None = None,
        connections: int = CONNECTIONS,
        max_download_rate: int = 0,
        chunk_bytes: int = CHUNK_BYTES,
        keep: Callable[[ModelRef], int] = lambda ref: 2,
        clock: Callable[[], float] = time.time,
        changed: Callable[[], None] = lambda: None,
        shared_file_bytes: int = SHARED_FILE_BYTES,
        shared_run_bytes: int = SHARED_RUN_BYTES,
        tiers: TierLimits | None = None,
        may_give: MayGive = lambda ref, origin: True,
        with_peers: Patience = WITH_PEERS,
    ) -> None:
        """`keep`: how many revisions of a ref stay when garbage is collected. `changed` is called on the event loop
        right after each commit that changes what `models` tells.

        Fetches with so many `connections` at once, together at most so many bytes a second; 0: without a limit.
        `share` leaves alone smaller files than `shared_file_bytes`, and shorter runs than `shared_run_bytes`.
        `may_give`: which models other nodes may fetch from here.
        """
        self._layout = Layout(root)
        self._hub = hub or HubAccess()
        self._clock = clock
        self.keep = keep
        """How many revisions of a ref stay when garbage is collected."""
        self._threads = Threads(THREADS)
        self._catalog = Catalog(database, self._committed)
        self._blobs = Blobs(self._layout, self._threads, self._catalog.recipes)
        self.tiers = Tiers(self._layout, self._blobs, self._threads, tiers or TierLimits())
        self._revisions = Revisions(self._layout, self._threads)
        self._whole = Whole(self._layout, self._threads)
        self._claims = Claims(self._layout, self._threads)
        self._bandwidth = Bandwidth(max_download_rate)
        self._fetcher = Fetcher(
            self._layout,
            self._blobs,
            self._threads,
            patience or Patience(),
            connections=connections,
            bandwidth=self._bandwidth,
            chunk_bytes=chunk_bytes,
            with_peers=with_peers,
        )
        self._adding = Adding(
            layout=self._layout,
            blobs=self._blobs,
            revisions=self._revisions,
            catalog=self._catalog,
            claims=self._claims,
            threads=self._threads,
            clock=clock,
            room=self.tiers.room_bytes,
            collectable=self._collectable_bytes,
        )
        self.serving = Serving(self._catalog, self._blobs, self._adding.wanted, may_give)
        """Gives files to other nodes."""
        self.share_due = asyncio.Event()
        """Set when `share` may find something: files came, or are no longer in use. Whoever calls it clears this."""
        self.share_due.set()
        self.watch: Watch = lambda ref, wanted, progress: None
        """Told on the event loop how far additions are, whoever asked for them."""
        self._additions = Additions(self._watched)
        self._busy: set[ModelRef] = set()
        stubs = Stubs(self._layout)
        self._inspections = Inspections(database, stubs.place, self._threads, self._catalog.recipes)
        self._letting_go = LettingGo(
            away=Away(database),
            stubs=stubs,
            blobs=self._blobs,
            claims=self._claims,
            fetcher=self._fetcher,
            serving=self.serving,
            hub=self._hub,
            threads=self._threads,
            room=self.tiers.room_bytes,
            wanted=self._adding.wanted,
            clock=clock,
            changed=self._committed,
        )
        self._holding = Holding(
            catalog=self._catalog,
            blobs=self._blobs,
            revisions=self._revisions,
            whole=self._whole,
            inspections=self._inspections,
            letting_go=self._letting_go,
            wanted=self._adding.wanted,
            released=self.share_due.set,
        )
        self._listings = Listings(self._catalog, self._inspections)
        self._sharing = Sharing(
            layout=self._layout,
            blobs=self._blobs,
            revisions=self._revisions,
            catalog=self._catalog,
            wanted=self._adding.wanted,
            tidy=self._holding.drop_directory,
            clock=clock,
            file_bytes=shared_file_bytes,
            run_bytes=shared_run_bytes,
        )
        self._changed = changed
        self._lock: int | None = None

    async def open(self) -> Swept:
        """Make the folders, take the lock, and sweep up after a crash.

        Raises Conflict when another daemon uses this root, HeliosError when it cannot be written.
        """
        await self._threads.run(self._prepare)
        await self.tiers.open()
        swept = await sweep(
            layout=self._layout,
            blobs=self._blobs,
            revisions=self._revisions,
            catalog=self._catalog,
            claims=self._claims,
            threads=self._threads,
            now=self._clock(),
        )
        await self._letting_go.tidy()
        return swept

    def _prepare(self) -> None:
        try:
            for folder in (self._layout.blobs, self._layout.incoming, self._layout.revisions):
                make_directory(folder)
            lock = os.open(self._layout.lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise HeliosError(f"cannot use the store at {self._layout.root}: {error}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(lock)
            raise Conflict(f"cannot use the store at {self._layout.root}: another daemon has it") from error
        self._lock = lock

    async def close(self) -> None:
        """Close connections, end the threads, let go of the root."""
        await self._fetcher.close()
        self._sharing.close()
        self.serving.close()
        await self.tiers.close()
        self._threads.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @property
    def fetched(self) -> Mapping[str, int]:
        """Bytes that came since the store was made, from the `hub` and from a `peer`."""
        return {source: self._bandwidth.taken[source] for source in ("hub", "peer")}

    @property
    def fetch_speeds(self) -> Mapping[str, float]:
        """Bytes a second at which one file came of late from the `hub` and from a `peer`; what was not measured is
        left out."""
        return self._bandwidth.measured

    def ask_nearby(self, nearby: Nearby) -> None:
        """Fetch from these nodes, too, from now on."""
        self._fetcher.nearby = nearby

    def limit_downloads(self, bytes_per_s: int) -> None:
        """How fast all downloads together may be from now on; 0: without a limit."""
        self._bandwidth.bytes_per_s = bytes_per_s

    def _committed(self) -> None:
        self._listings.changed()
        self.serving.changed()
        self._inspections.mended()  # whoever adds a damaged model again makes it whole
        self._changed()

    async def models(self) -> tuple[StoredModel, ...]:
        """Every ref, by name."""
        return (await self._listings.now()).models

    async def find(self, ref: ModelRef) -> StoredModel | None:
        """The model of that ref or alias, or the revision of a model that is asked for by its digest.

        Raises BadRequest when several revisions begin with the digits given.
        """
        return await self._listings.find(ref)

    async def by_name(self, name: str) -> StoredModel | None:
        """The model that this is a ref or an alias of; None for whatever else it may be."""
        try:
            return await self.find(parse_ref(name))
        except ValueError:
            return None

    async def blobs_of(self, manifests: Iterable[Manifest]) -> Mapping[Digest, frozenset[Digest]]:
        """For each file the blobs that its bytes are in: one of its own, or those of its recipe."""
        digests = {file.digest for manifest in manifests for file in manifest.files}
        recipes = await self._catalog.recipes(digests)
        return {each: recipes[each].blobs if each in recipes else frozenset({each}) for each in digests}

    async def adapters(self, base: ModelRef) -> tuple[StoredModel, ...]:
        """The adapters of a model, by name."""
        return tuple(each for each in await self.models() if each.adapter and each.adapter.base == base)

    async def known(self, model: Identified) -> Known:
        """What estimates of a model rest on, read from its files; nothing when they cannot be read any more."""
        return await self._inspections.known(model.revision, model.manifest)

    async def directory(self, revision: Digest) -> Path:
        """The revision as a directory that an engine loads from, its links and the blobs' sizes just checked.

        Raises NotFound for a revision that is not here, CorruptData when a blob is gone or cut.
        """
        return await self._holding.directory(revision)

    def hold(self, revision: Digest, *, whole: bool = False) -> AbstractAsyncContextManager[Path]:
        """The revision's directory, whose files stay for the length of the block whatever is added or removed.

        In it a file X may be kept as a recipe, `X.recipe`; with `whole` all are put together, in a directory that
        lasts as long as the block. What nobody refers to any more is deleted when the last holder leaves. Raises as
        `directory` does, OSError and sqlite3.Error on the way in, with `whole` also Unavailable for want of disk;
        nothing on the way out.
        """
        return self._holding.hold(revision, whole=whole)

    async def bring_back(self, revision: Digest) -> bool:
        """Fetch again what of a revision was let go; whether anything had to be.

        `hold` does the same: this is for who wants to tell how long it took. Raises as `hold` does.
        """
        return await self._holding.bring_back(revision)

    async def let_go(self, ref: ModelRef, tier: Literal[Tier.PEER, Tier.HUB]) -> int:
        """Remove the weights of a model that another node, or the hub, has too; returns the bytes freed.

        Holding it brings them back. Raises NotFound, and Conflict when somebody uses it or nobody else has it.
        """
        record = await self._catalog.find(ref)
        if record is None:
            raise NotFound(f"cannot let go of {ref}: the store does not have it", code="model_not_found")
        if record.of is not None:
            raise Conflict(f"cannot let go of {ref}: only of what {record.of} means now")
        with self._alone(record.ref):
            return await self._letting_go.let_go(record, tier)

    async def away(self) -> Mapping[Digest, AwayFile]:
        """The files that were let go."""
        return await self._letting_go.all_away()

    @property
    def returning(self) -> Mapping[Digest, Progress]:
        """How far each revision is that is being brought back."""
        return self._letting_go.returning

    async def share(self, *, again: bool = False, calm: Calm = at_once) -> Shared:
        """Keep files that are partly equal to older ones as recipes, which takes less room on the disk.

        Only files that were not compared yet are looked at, unless `again`. What is in use is left alone. `calm` is
        awaited often, so that it goes on only when nothing more urgent is under way. Cancelled or failed, it leaves
        the file it was at as it was. Raises Unavailable when the disk is full, OSError.
        """
        return await self._sharing.share(again=again, calm=calm)

    async def sizes(self) -> tuple[int, int]:
        """Bytes of all models' files as if nothing was shared, and of what is on the disk for them."""
        logical_bytes, physical_bytes = await self._catalog.sizes()
        if await self._catalog.extents():
            known = await self._holdings()
            physical_bytes = known.taken_bytes(known.sizes.keys())
        return logical_bytes, physical_bytes

    async def _holdings(self) -> Holdings:
        """The catalog's, with where those blobs lie that share blocks."""
        known, involved = await self._catalog.holdings(), await self._catalog.extents()

        def look() -> dict[Digest, tuple[Range, ...]]:
            paths = {blob: self._blobs.path(blob) for blob in involved}
            return {blob: ranges(path) for blob, path in paths.items() if path.is_file() and not path.is_symlink()}

        return replace(known, ranges=await self._threads.run(look)) if involved else known

    async def usage(self) -> Usage:
        """What the models take on the disk, together and each."""
        now = self._clock()
        known, claims = await self._holdings(), await self._claims.all(now)
        parts = {claim.ref: await self._claims.parts_bytes(claim, now) for claim in claims}
        here = {key: await self._blobs.size(Digest(key)) or 0 for claim in claims for key in claim.keys}
        return usage_of(
            known, {claim.ref: claim.keys for claim in claims}, parts, here, self._blobs.held, self._whole.size_bytes
        )

    async def add(self, wanted: Addition, progress: Tell) -> StoredModel:
        """Bring a model in and return it. `progress` is called on the event loop.

        A ref that exists means the new revision afterwards; what it meant before stays, as one of its `past`. Who asks
        for what is being added already waits for that. Raises Conflict when the same ref is being added from elsewhere
        or removed, and what the source or the verification found wrong. Cancelled, it leaves nothing but what the next
        attempt goes on with.
        """
        ref = wanted.ref or default_ref(wanted)
        if wanted.alias is not None and checked_alias(wanted.alias) == str(ref):
            wanted = replace(wanted, alias=None)
        return await self._additions.join(ref, wanted, progress, lambda tell: self._add(ref, wanted, tell))

    def _watched(self, ref: ModelRef, wanted: Addition, progress: Progress | None) -> None:
        self.watch(ref, wanted, progress)

    async def _add(self, ref: ModelRef, wanted: Addition, progress: Tell) -> StoredModel:
        with self._alone(ref), _disk_errors(wanted.location):
            await self._catalog.check_names(ref, wanted.alias)
            seen = await self._adding.run(wanted, ref, self._source(wanted), progress)
            record = await self._catalog.find(ref)
            if record is not None:
                await self._inspections.note(record.revision, seen)
        found = await self.find(ref)
        if found is None:
            raise Conflict(f"cannot show {ref}: it was removed just after it was added")
        self.share_due.set()
        log.info("model added", extra={"model": str(ref), "revision": found.revision})
        return found

    @contextmanager
    def _alone(self, ref: ModelRef) -> Iterator[None]:
        """One addition or removal of a ref at a time."""
        if ref in self._busy:
            raise Conflict(f"cannot change {ref}: it is being added or removed just now; wait until that is done")
        self._busy.add(ref)
        try:
            yield
        finally:
            self._busy.discard(ref)

    def _source(self, wanted: Addition) -> Source:
        match wanted.source:
            case "hub":
                hub = HubSource(wanted.location, wanted.revision, self._hub, self._fetcher)
                return HubOrPeers(hub, PeerSource(default_ref(wanted), self._fetcher))
            case "directory":
                return DirectorySource(Path(wanted.location), self._blobs, self._threads)
            case "gguf":
                return GgufSource(Path(wanted.location), self._layout, self._blobs, self._threads)

    async def remove(self, ref: ModelRef) -> int:
        """Forget a ref with all that it has meant, and the files nobody else has; returns the bytes freed.

        Also gives up a download that was interrupted. An alias stands for its model; `org/name@1a2b3c4d` for that one
        revision, when the ref does not mean it now. Raises NotFound, or Conflict while it is being added, and while
        the store has adapters of it.
        """
        record = await self._catalog.find(ref)
        if record is not None and record.of is not None:
            return await self._forget([(record.of, record.revision)])
        target = record.ref if record else ref
        with self._alone(target):
            now = self._clock()
            claim = next((claim for claim in await self._claims.all(now) if claim.ref == str(target)), None)
            if record is None and claim is None:
                raise NotFound(f"cannot remove {ref}: the store does not have it", code="model_not_found")
            known = await self._holdings() if await self._catalog.extents() else None
            past = await self._catalog.past(target)
            unwanted = await self._catalog.remove(target)
            freed_bytes = await self._claims.give_up(claim, now) if claim else 0
            claimed = {digest for digest in await self._blobs.all() if claim and digest in claim.keys}
            freed_bytes += await self._blobs.delete(unwanted | claimed, self._adding.wanted)
            if known is not None:  # what they shared with blobs that stay is not free
                gone = {blob for blob in unwanted if not await self._blobs.size(blob)}
                freed_bytes += known.freed_bytes(gone) - sum(known.sizes[blob] for blob in gone)
            for each in past:
                await self._holding.drop_directory(each.revision)
        log.info("model removed", extra={"model": str(target), "freed_bytes": freed_bytes})
        return freed_bytes

    async def past(self, ref: ModelRef) -> tuple[PastRevision, ...]:
        """The revisions of a model, or of the one behind an alias, that are here: what it means now or meant last
        first. Raises NotFound."""
        return await self._catalog.past(await self._ref_of(ref, "list the revisions of"))

    async def move(self, ref: ModelRef, beginning: str | None = None) -> tuple[PastRevision, PastRevision]:
        """Let a ref, or the one behind an alias, mean another of its revisions: the one whose digest begins so, or
        the one that it meant before.

        Returns what it meant until now and what it means now. Doing it again takes it back. Raises NotFound,
        BadRequest for digits that say too little, and Conflict when it means that already, while it is being added,
        or, of an adapter, when its base has gone.
        """
        target = await self._ref_of(ref, "move")
        with self._alone(target):
            before, now = await self._catalog.move(target, beginning, self._clock())
        log.info("model moved", extra={"model": str(target), "before": before.revision, "revision": now.revision})
        return before, now

    async def compare(self, model: ModelRef, other: ModelRef | None, tell: Tell) -> Compared:
        """What differs from one model or revision to another.

        Without `other`: from an earlier revision (`org/name@1a2b3c4d`) to what its ref means now, and of a ref from
        what it meant before. Raises NotFound, and CorruptData for files that cannot be read.
        """
        record = await self._catalog.find(model)
        if record is None:
            raise NotFound(f"cannot compare {model}: the store does not have it", code="model_not_found")
        if other is not None or record.of is not None:
            before = kept_ref(record.of or record.ref, record.revision)
            target = other or record.of
        else:
            earlier = [past for past in await self._catalog.past(record.ref) if not past.current]
            if not earlier:
                raise NotFound(
                    f"cannot compare {model} with what it meant before: the store has only one revision of it",
                    code="revision_not_found",
                )
            before, target = kept_ref(record.ref, earlier[0].revision), record.ref
        assert target is not None
        old, new = await self._catalog.find(before), await self._catalog.find(target)
        if old is None or new is None:
            raise NotFound(f"cannot compare {model} with {target}: the store does not have it", code="model_not_found")

        def report(name: str, done_bytes: int, total_bytes: int) -> None:
            tell(Progress("compare", name, done_bytes, total_bytes))

        async with self.hold(old.revision), self.hold(new.revision):
            before_side = Side(old.manifest, self._blobs.path, await self._holding.recipes(old.manifest))
            after_side = Side(new.manifest, self._blobs.path, await self._holding.recipes(new.manifest))
            found = await difference(before_side, after_side, self._threads, report)
        return Compared(_exactly(old), _exactly(new), found)

    async def _ref_of(self, ref: ModelRef, doing: str) -> ModelRef:
        record = await self._catalog.find(ref)
        if record is None:
            raise NotFound(f"cannot {doing} {ref}: the store does not have it", code="model_not_found")
        return record.of or record.ref

    async def _forget(self, past: Iterable[tuple[ModelRef, Digest]]) -> int:
        """Let go of revisions that refs meant earlier; returns the bytes freed."""
        past = tuple(past)
        unwanted = await self._catalog.forget(past)
        freed_bytes = await self._blobs.delete(unwanted, self._adding.wanted)
        for ref, revision in past:
            await self._holding.drop_directory(revision)
            log.info("revision forgotten", extra={"model": str(ref), "revision": revision})
        return freed_bytes

    async def garbage(self, users: Mapping[str, Sequence[str]], interrupted_s: float = MAX_AGE_S) -> Plan:
        """What `collect` would remove now. `users`: who uses or is about to use which revision; what is held the
        store knows itself. `interrupted_s`: downloads interrupted for so long go."""
        found = Found(
            now=self._clock(),
            past=await self._catalog.all_past(),
            references=await self._catalog.references(),
            blobs=await self._catalog.blobs(),
            sizes=await self._blobs.sizes(),
            parts=await self._claims.parts(),
            claims=await self._claims.all(self._clock(), math.inf),
            busy=frozenset(map(str, self._busy)),
            held=frozenset(+self._holding.held) | {Digest(revision) for revision in users},
            held_blobs=self._blobs.held,
            directories=await self._revisions.all(),
            users=users,
        )
        return await self._threads.run(plan, found, self.keep, interrupted_s)

    async def _collectable_bytes(self) -> int:
        return (await self.garbage({})).freed_bytes

    async def collect(self, plan: Plan) -> int:
        """Carry out a plan just made; returns the bytes freed. What has come into use meanwhile stays.

        Raises Conflict, and removes nothing, when a ref has come to mean again what should go.
        """
        freed_bytes = await self._forget(past for past in plan.revisions if not self._holding.held[past[1]])
        now = self._clock()
        for claim in plan.claims:
            if claim.ref not in map(str, self._busy):
                freed_bytes += await self._claims.give_up(claim, now)
        claimed = {key for claim in plan.claims for key in claim.keys}
        loose = plan.blobs | {digest for digest in await self._blobs.all() if digest in claimed}
        freed_bytes += await self._blobs.delete(loose, self._adding.wanted)
        for revision in plan.directories:
            await self._holding.drop_directory(revision)
        return freed_bytes

    async def set_alias(self, alias: str, ref: ModelRef) -> ModelRef:
        """Let `alias` mean what `ref`, itself perhaps an alias, means; returns that. An alias that exists moves.

        Raises NotFound, BadRequest or Conflict.
        """
        record = await self._catalog.find(ref)
        if record is None:
            raise NotFound(f"cannot set the alias {alias}: the store does not have {ref}", code="model_not_found")
        await self._catalog.set_alias(checked_alias(alias), record.ref)
        return record.ref

    async def remove_alias(self, alias: str) -> ModelRef:
        """Forget an alias; returns the model it meant. Raises NotFound."""
        ref = await self._catalog.remove_alias(alias)
        if ref is None:
            raise NotFound(f"cannot remove the alias {alias}: there is no alias {alias} here", code="alias_not_found")
        return ref


def _exactly(record: Record) -> ModelRef:
    return kept_ref(record.of or record.ref, record.revision)


@contextmanager
def _disk_errors(what: str) -> Iterator[None]:
    """What the operating system refuses becomes an error that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise Unavailable(
                f"cannot add {what}: the disk is full; `heliosctl gc` removes what the store can do without "
                "(`heliosctl gc --dry-run` lists it with sizes), `heliosctl rm` a model",
                code="disk_full",
                retry_after_s=60.0,
            ) from error
        raise SourceFailed(f"cannot add {what}: {error}", cause=str(error)) from error
