"""Lets go of a model's weights that others have too, and brings them back when somebody wants the model.

What goes stays in the catalog, with its configuration, its tokenizer and the headers of its weights: so it is listed
and estimated as before. Nothing goes on belief: who is to have it is asked for every file right before. Two nodes that
let go at the same moment cannot both take the other for the one who keeps: a node that is about to let go of a file
says from then on that it does not have it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Literal
from weakref import WeakValueDictionary

from yarl import URL

from heliosd.core.manifest import Manifest, ManifestFile
from heliosd.core.names import Digest, kept_ref
from heliosd.core.retention import Tier
from heliosd.core.units import format_bytes
from heliosd.errors import Conflict, HeliosError, SourceFailed, Unavailable
from heliosd.store.adding import Room
from heliosd.store.away import Away, AwayFile
from heliosd.store.blobs import Blobs, Hold
from heliosd.store.claims import Claim, Claims
from heliosd.store.delivery import Delivery
from heliosd.store.selection import PICKLES
from heliosd.store.serving import Serving
from heliosd.store.sources.fetch import Fetcher
from heliosd.store.sources.hub import HubAccess, asked_of, file_url, look_up
from heliosd.store.sources.source import Listing, Progress, SourceFile, Tell, Told
from heliosd.store.sources.wanted import Wanted
from heliosd.store.stored import Record
from heliosd.store.stubs import Stubs
from heliosd.store.threads import Threads

log = logging.getLogger("heliosd.store")

AT_ONCE = 8
"""Files that others are asked about at the same time."""


class LettingGo:
    def __init__(
        self,
        *,
        away: Away,
        stubs: Stubs,
        blobs: Blobs,
        claims: Claims,
        fetcher: Fetcher,
        serving: Serving,
        hub: HubAccess,
        threads: Threads,
        room: Room,
        wanted: Callable[[], Awaitable[frozenset[str]]],
        clock: Callable[[], float],
        changed: Callable[[], None],
    ) -> None:
        self._away = away
        self._stubs = stubs
        self._blobs = blobs
        self._claims = claims
        self._fetcher = fetcher
        self._serving = serving
        self._hub = hub
        self._threads = threads
        self._room = room
        self._wanted = wanted
        self._clock = clock
        self._changed = changed
        self._turns: WeakValueDictionary[Digest, asyncio.Lock] = WeakValueDictionary()
        self.returning: dict[Digest, Progress] = {}
        """How far each revision is that is being brought back."""

    async def tidy(self) -> None:
        """Remove stubs that nothing needs any more."""
        gone = await self._away.all()
        await self._threads.run(self._stubs.tidy, gone.keys())

    async def all_away(self) -> Mapping[Digest, AwayFile]:
        """The files that were let go."""
        return await self._away.all()

    async def away(self, manifest: Manifest) -> frozenset[Digest]:
        """Those of a revision's files that were let go."""
        return await self._away.among(file.digest for file in manifest.files)

    # ---- away ------------------------------------------------------------------

    async def let_go(self, record: Record, tier: Literal[Tier.PEER, Tier.HUB]) -> int:
        """Remove the weights of a model that `tier` has too; returns the bytes freed.

        What other models need stays. Raises Conflict when a file is in use or nobody else has it, or nothing would be
        freed; what the hub raises when it cannot be asked.
        """
        name = str(record.ref)
        weights = {file.digest: file for file in record.manifest.files if _is_weights(file)}
        loose = await self._away.loose(record.revision, weights)
        if not loose:
            raise Conflict(
                f"cannot let go of {name}: none of its weights are here, or other models are made of all of them"
            )
        files = [weights[digest] for digest in sorted(loose)]
        self._serving.leaving |= loose
        try:
            self._check_unused(name, loose)
            await (self._check_peers(name, files) if tier is Tier.PEER else self._check_hub(record, files))
            for file in files:
                if file.path.endswith(".safetensors"):
                    await self._threads.run(self._stubs.keep, file.digest)
            return await self._remove(record, files, tier)
        finally:
            self._serving.leaving -= loose

    async def _remove(self, record: Record, files: list[ManifestFile], tier: Tier) -> int:
        sizes = {file.digest: file.size_bytes for file in files}
        self._check_unused(str(record.ref), frozenset(sizes))
        if not await self._away.leave(record.revision, sizes, tier, self._clock()):
            raise Conflict(f"cannot let go of {record.ref}: another model has come to need its files; ask again")
        try:
            freed_bytes = await self._blobs.delete(sizes, self._wanted)
        finally:
            # Who began to use one meanwhile keeps it.
            kept = {digest: size for digest, size in sizes.items() if await self._blobs.size(digest) == size}
            await self._away.returned(kept, self._clock())
            self._changed()
        if not freed_bytes:
            raise Conflict(f"cannot let go of {record.ref}: it is in use", code="model_in_use")
        log.info("model let go", extra={"model": str(record.ref), "tier": tier, "freed_bytes": freed_bytes})
        return freed_bytes

    def _check_unused(self, name: str, digests: frozenset[Digest]) -> None:
        if digests & self._blobs.held:
            raise Conflict(f"cannot let go of {name}: it is in use; stop it first", code="model_in_use")

    async def _check_peers(self, name: str, files: list[ManifestFile]) -> None:
        turns = asyncio.Semaphore(AT_ONCE)

        async def held(file: ManifestFile) -> bool:
            async with turns:
                return bool(await self._fetcher.nearby.holders(file.digest, file.size_bytes))

        async with asyncio.TaskGroup() as tasks:
            asked = [(file, tasks.create_task(held(file))) for file in files]
        missing = [file.path for file, answer in asked if not answer.result()]
        if missing:
            raise Conflict(
                f"cannot let go of {name}: of its {len(files)} files of weights no other node that is alive has "
                f"{len(missing)}, such as {missing[0]}",
                code="not_elsewhere",
            )

    async def _check_hub(self, record: Record, files: list[ManifestFile]) -> None:
        origin, name = record.origin, str(record.ref)
        if origin.get("kind") != "hub":
            raise Conflict(f"cannot let go of {name}: it did not come from the hub", code="not_elsewhere")
        found = await asyncio.to_thread(look_up, str(origin["location"]), origin.get("commit"), self._hub)
        listed = {file.path: (file.digest, file.size_bytes) for file in found.files}
        missing = [file.path for file in files if listed.get(file.path) != (file.digest, file.size_bytes)]
        if missing:
            raise Conflict(
                f"cannot let go of {name}: of its {len(files)} files of weights the hub no longer lists "
                f"{len(missing)} as they are here, such as {missing[0]}",
                code="not_elsewhere",
            )

    # ---- back ------------------------------------------------------------------

    async def bring_back(self, record: Record, hold: Hold, tell: Tell = lambda progress: None) -> None:
        """Fetch what of a revision is away, from other nodes or the hub; returns at once when nothing is.

        Raises Unavailable when there is no room, and as `Fetcher.fetch` does. What came before it failed or was
        cancelled is kept for the next attempt.
        """
        async with self._turns.setdefault(record.revision, asyncio.Lock()):
            gone = await self.away(record.manifest)
            if not gone:
                return
            files = {file.digest: file for file in record.manifest.files if file.digest in gone}
            await self._check_room(record, files)

            def told(progress: Progress) -> None:
                self.returning[record.revision] = progress
                tell(progress)

            name = str(kept_ref(record.of or record.ref, record.revision))
            claim = Claim(name, frozenset(files), self._clock())
            await self._claims.write(claim)
            listed = [SourceFile(file.path, file.size_bytes, digest=file.digest) for file in files.values()]
            listing = Listing(tuple(listed), record.origin, resumable=True)
            source = AgainSource(record, self._hub, self._fetcher)
            log.info("model is brought back", extra={"model": name, "files": len(files)})
            try:
                await Delivery(
                    source, listing, claim, blobs=self._blobs, claims=self._claims, hold=hold, tell=told
                ).run(listed)
            finally:
                self.returning.pop(record.revision, None)
            await self._away.returned({file.digest: file.size_bytes for file in files.values()}, self._clock())
            await self._claims.drop(name)
            self._changed()
            with suppress(OSError):
                await self.tidy()

    async def _check_room(self, record: Record, files: Mapping[Digest, ManifestFile]) -> None:
        needs_bytes = sum(file.size_bytes for file in files.values())
        has_bytes, place = await self._room(needs_bytes)
        if needs_bytes > has_bytes:
            raise Unavailable(
                f"cannot bring back {record.ref}: it needs {format_bytes(needs_bytes)} of disk and {place} has "
                f"{format_bytes(max(0, has_bytes))} to spare; remove models or move the store to a larger disk",
                code="disk_full",
                retry_after_s=60.0,
            )


class AgainSource:
    """The files of a revision that the catalog knows: from other nodes, or from the hub if it came from there."""

    def __init__(self, record: Record, hub: HubAccess, fetcher: Fetcher) -> None:
        self._record = record
        self._hub = hub
        self._fetcher = fetcher

    async def list(self, tell: Tell) -> Listing:
        """All files of the revision."""
        files = tuple(SourceFile(each.path, each.size_bytes, each.digest) for each in self._record.manifest.files)
        return Listing(files, self._record.origin, resumable=True)

    async def deliver(self, file: SourceFile, hold: Hold, report: Told) -> ManifestFile:
        """Raises as `Fetcher.fetch` does."""
        if file.digest is None:
            raise SourceFailed(f"cannot fetch {file.path}: its sha256 is not known")
        url, token = await asyncio.to_thread(self._at_hub, file.path)
        wanted = Wanted(
            name=f"{self._record.ref}/{file.path}",
            url=url,
            key=file.digest,
            size_bytes=file.size_bytes,
            digest=file.digest,
            git_sha1=None,
            token=token,
            commit=self._record.origin.get("commit"),
        )
        digest, size_bytes = await self._fetcher.fetch(wanted, hold, report, self._refusal)
        return ManifestFile(file.path, digest, size_bytes)

    def _at_hub(self, path: str) -> tuple[URL | None, str | None]:
        origin = self._record.origin
        if origin.get("kind") != "hub" or not origin.get("commit"):
            return None, None
        asked = asked_of(self._hub)
        if asked.offline:
            return None, None
        endpoint = str(origin.get("endpoint") or asked.endpoint)
        # A token is for the hub that this node is configured for, whatever a catalog says.
        token = asked.token if endpoint == asked.endpoint else None
        return URL(file_url(str(origin["location"]), path, str(origin["commit"]), endpoint), encoded=True), token

    def _refusal(self, status: int, headers: Mapping[str, Any], name: str) -> HeliosError:
        return SourceFailed(f"cannot bring back {name}: the hub answers {status}, and no other node delivers it")

    async def close(self) -> None:
        """The connections belong to the fetcher."""


def _is_weights(file: ManifestFile) -> bool:
    return file.path.endswith((".safetensors", *PICKLES))
