"""The store: models by ref, their files as blobs, verified on the way in. What the rest of Helios asks.

It decides nothing about memory or use; whoever uses a revision holds it, and then its files stay.
"""

import asyncio
import errno
import fcntl
import logging
import os
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path

from heliosd.core.manifest import Manifest
from heliosd.core.names import Digest, ModelRef
from heliosd.core.profile import ModelProfile
from heliosd.core.units import MiB
from heliosd.errors import Conflict, CorruptData, HeliosError, NotFound, SourceFailed, Unavailable
from heliosd.estimation.known import Known
from heliosd.state.database import Database
from heliosd.store.adding import Adding
from heliosd.store.blobs import Blobs
from heliosd.store.catalog import Catalog
from heliosd.store.claims import Claims
from heliosd.store.durable import make_directory
from heliosd.store.extents import Range, ranges
from heliosd.store.inspection import Inspected, inspect
from heliosd.store.joined import Additions
from heliosd.store.layout import Layout
from heliosd.store.recipe import Recipe
from heliosd.store.revisions import Revisions
from heliosd.store.sharing import Calm, Shared, Sharing, at_once
from heliosd.store.sources.bandwidth import Bandwidth
from heliosd.store.sources.directory import DirectorySource
from heliosd.store.sources.fetch import CONNECTIONS, Fetcher
from heliosd.store.sources.gguf import GgufSource
from heliosd.store.sources.hub import HubAccess, HubSource
from heliosd.store.sources.source import Source, Tell
from heliosd.store.sources.transfer import CHUNK_BYTES
from heliosd.store.sources.wanted import Patience
from heliosd.store.stored import Adapter, Addition, Record, StoredModel, checked_alias, default_ref, describe_origin
from heliosd.store.sweep import Swept, sweep
from heliosd.store.threads import Threads
from heliosd.store.tiers.tiers import TierLimits, Tiers
from heliosd.store.usage import Holdings, Usage, usage_of
from heliosd.store.whole import Whole

log = logging.getLogger("heliosd.store")

THREADS = 6
SHARED_FILE_BYTES = 64 * MiB
SHARED_RUN_BYTES = 1 * MiB


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
        clock: Callable[[], float] = time.time,
        changed: Callable[[], None] = lambda: None,
        shared_file_bytes: int = SHARED_FILE_BYTES,
        shared_run_bytes: int = SHARED_RUN_BYTES,
        tiers: TierLimits | None = None,
    ) -> None:
        """`changed` is called on the event loop right after each commit that changes what `models` tells.

        Fetches with so many `connections` at once, together at most so many bytes a second; 0: without a limit.
        `share` leaves alone smaller files than `shared_file_bytes`, and shorter runs than `shared_run_bytes`.
        """
        self._layout = Layout(root)
        self._hub = hub or HubAccess()
        self._clock = clock
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
        )
        self._sharing = Sharing(
            layout=self._layout,
            blobs=self._blobs,
            revisions=self._revisions,
            catalog=self._catalog,
            wanted=self._adding.wanted,
            tidy=self._drop_directory,
            clock=clock,
            file_bytes=shared_file_bytes,
            run_bytes=shared_run_bytes,
        )
        self.share_due = asyncio.Event()
        """Set when `share` may find something: files came, or are no longer in use. Whoever calls it clears this."""
        self.share_due.set()
        self._additions = Additions()
        self._busy: set[ModelRef] = set()
        self._held: Counter[Digest] = Counter()
        self._inspected: dict[Digest, Inspected] = {}
        self._damaged: set[Digest] = set()
        self._changed = changed
        self._lock: int | None = None

    async def open(self) -> Swept:
        """Make the folders, take the lock, and sweep up after a crash.

        Raises Conflict when another daemon uses this root, HeliosError when it cannot be written.
        """
        await self._threads.run(self._prepare)
        await self.tiers.open()
        return await sweep(
            layout=self._layout,
            blobs=self._blobs,
            revisions=self._revisions,
            catalog=self._catalog,
            claims=self._claims,
            threads=self._threads,
            now=self._clock(),
        )

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
        await self.tiers.close()
        self._threads.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @property
    def fetched_bytes(self) -> int:
        """What came from the hub since the store was made."""
        return self._bandwidth.taken_bytes

    def limit_downloads(self, bytes_per_s: int) -> None:
        """How fast all downloads together may be from now on; 0: without a limit."""
        self._bandwidth.bytes_per_s = bytes_per_s

    def _committed(self) -> None:
        self._damaged.clear()  # whoever adds a damaged model again makes it whole
        self._changed()

    async def models(self) -> tuple[StoredModel, ...]:
        """Every ref, by name."""
        return tuple([await self._stored(record) for record in await self._catalog.records()])

    async def find(self, ref: ModelRef) -> StoredModel | None:
        """The model of that ref or alias."""
        record = await self._catalog.find(ref)
        return await self._stored(record) if record else None

    async def blobs_of(self, manifests: Iterable[Manifest]) -> Mapping[Digest, frozenset[Digest]]:
        """For each file the blobs that its bytes are in: one of its own, or those of its recipe."""
        digests = {file.digest for manifest in manifests for file in manifest.files}
        recipes = await self._catalog.recipes(digests)
        return {each: recipes[each].blobs if each in recipes else frozenset({each}) for each in digests}

    async def adapters(self, base: ModelRef) -> tuple[StoredModel, ...]:
        """The adapters of a model, by name."""
        return tuple([await self._stored(record) for record in await self._catalog.adapters(base)])

    async def _stored(self, record: Record) -> StoredModel:
        seen = await self._inspect(record)
        return StoredModel(
            record.ref,
            record.revision,
            record.manifest,
            describe_origin(record.origin),
            record.created_at,
            record.aliases,
            seen.profile,
            seen.known,
            Adapter(record.base, seen.adapter.rank if seen.adapter else 0) if record.base else None,
        )

    async def _inspect(self, record: Record) -> Inspected:
        seen = self._inspected.get(record.revision)
        if seen is not None:
            return seen
        # It is still listed, so that it can be seen and removed; `directory` refuses it with the reason.
        unknown = Inspected(ModelProfile(None, record.manifest.size_bytes, *(None,) * 8), Known())
        if record.revision in self._damaged:
            return unknown
        try:
            recipes = await self._recipes(record.manifest)
            seen = await self._threads.run(inspect, record.manifest, self._blobs.path, recipes)
        except CorruptData as error:
            log.error("model is damaged", extra={"model": str(record.ref), "cause": str(error)})
            self._damaged.add(record.revision)
            return unknown
        self._inspected[record.revision] = seen
        return seen

    async def directory(self, revision: Digest) -> Path:
        """The revision as a directory that an engine loads from, its links and the blobs' sizes just checked.

        Raises NotFound for a revision that is not here, CorruptData when a blob is gone or cut.
        """
        manifest = await self._manifest(revision)
        return await self._revisions.present(manifest, await self._recipes(manifest))

    async def _recipes(self, manifest: Manifest) -> dict[Digest, Recipe]:
        return await self._catalog.recipes(file.digest for file in manifest.files)

    async def _manifest(self, revision: Digest) -> Manifest:
        manifest = await self._catalog.manifest(revision)
        if manifest is None:
            raise NotFound(f"cannot present revision {revision}: the store does not have it")
        return manifest

    @asynccontextmanager
    async def hold(self, revision: Digest, *, whole: bool = False) -> AsyncIterator[Path]:
        """The revision's directory, whose files stay for the length of the block whatever is added or removed.

        In it a file X may be kept as a recipe, `X.recipe`; with `whole` all are put together, in a directory that
        lasts as long as the block. What nobody refers to any more is deleted when the last holder leaves. Raises as
        `directory` does, OSError and sqlite3.Error on the way in, with `whole` also Unavailable for want of disk;
        nothing on the way out.
        """
        manifest = await self._manifest(revision)
        self._held[revision] += 1
        kept: set[Digest] = set()
        try:
            with self._blobs.hold() as hold:
                kept = hold.digests
                await hold.add(*(file.digest for file in manifest.files))
                # Only now is it certain that it was not removed meanwhile.
                directory = await self.directory(revision)
                recipes = await self._recipes(manifest) if whole else {}
                if recipes:
                    async with self._whole.hold(manifest, recipes) as directory:
                        yield directory
                else:
                    yield directory
        finally:
            self._held[revision] -= 1
            await self._let_go(manifest, kept)
            self.share_due.set()

    async def _let_go(self, manifest: Manifest, kept: set[Digest]) -> None:
        has_recipes = len(kept) > len({file.digest for file in manifest.files})
        try:
            if has_recipes or await self._catalog.manifest(manifest.digest) is None:
                await self._blobs.delete(kept, self._adding.wanted)
                await self._drop_directory(manifest.digest)
        except (HeliosError, OSError, sqlite3.Error) as error:
            log.error("revision not tidied up", extra={"revision": manifest.digest, "cause": str(error)})

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

        A ref that exists means the new revision afterwards. Who asks for what is being added already waits for that.
        Raises Conflict when the same ref is being added from elsewhere or removed, and what the source or the
        verification found wrong. Cancelled, it leaves nothing but what the next attempt goes on with.
        """
        ref = wanted.ref or default_ref(wanted)
        if wanted.alias is not None and checked_alias(wanted.alias) == str(ref):
            wanted = replace(wanted, alias=None)
        return await self._additions.join(ref, wanted, progress, lambda tell: self._add(ref, wanted, tell))

    async def _add(self, ref: ModelRef, wanted: Addition, progress: Tell) -> StoredModel:
        with self._alone(ref), _disk_errors(wanted.location):
            await self._catalog.check_names(ref, wanted.alias)
            before = await self._catalog.find(ref)
            seen = await self._adding.run(wanted, ref, self._source(wanted), progress)
            if before is not None:
                await self._drop_directory(before.revision)
        found = await self._catalog.find(ref)
        if found is None:
            raise Conflict(f"cannot show {ref}: it was removed just after it was added")
        self._inspected[found.revision] = seen
        self.share_due.set()
        log.info("model added", extra={"model": str(ref), "revision": found.revision})
        return await self._stored(found)

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
                return HubSource(wanted.location, wanted.revision, self._hub, self._fetcher)
            case "directory":
                return DirectorySource(Path(wanted.location), self._blobs, self._threads)
            case "gguf":
                return GgufSource(Path(wanted.location), self._layout, self._blobs, self._threads)

    async def remove(self, ref: ModelRef) -> int:
        """Forget a ref, and the files nobody else has; returns the bytes freed.

        Also gives up a download that was interrupted. An alias stands for its model. Raises NotFound, or Conflict
        while it is being added, and while the store has adapters of it.
        """
        record = await self._catalog.find(ref)
        target = record.ref if record else ref
        with self._alone(target):
            now = self._clock()
            claim = next((claim for claim in await self._claims.all(now) if claim.ref == str(target)), None)
            if record is None and claim is None:
                raise NotFound(f"cannot remove {ref}: the store does not have it", code="model_not_found")
            known = await self._holdings() if await self._catalog.extents() else None
            unwanted = await self._catalog.remove(target)
            freed_bytes = await self._claims.give_up(claim, now) if claim else 0
            claimed = {digest for digest in await self._blobs.all() if claim and digest in claim.keys}
            freed_bytes += await self._blobs.delete(unwanted | claimed, self._adding.wanted)
            if known is not None:  # what they shared with blobs that stay is not free
                gone = {blob for blob in unwanted if not await self._blobs.size(blob)}
                freed_bytes += known.freed_bytes(gone) - sum(known.sizes[blob] for blob in gone)
            if record is not None:
                await self._drop_directory(record.revision)
        log.info("model removed", extra={"model": str(target), "freed_bytes": freed_bytes})
        return freed_bytes

    async def _drop_directory(self, revision: Digest) -> None:
        """Remove the links of a revision that no ref means and nobody holds any more."""
        if await self._catalog.manifest(revision) is None:
            self._inspected.pop(revision, None)
            if not self._held[revision]:
                await self._revisions.remove(revision)

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


@contextmanager
def _disk_errors(what: str) -> Iterator[None]:
    """What the operating system refuses becomes an error that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise Unavailable(
                f"cannot add {what}: the disk is full; remove models or move the store to a larger disk",
                code="disk_full",
                retry_after_s=60.0,
            ) from error
        raise SourceFailed(f"cannot add {what}: {error}", cause=str(error)) from error
