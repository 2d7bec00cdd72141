"""Gives files to other nodes: which of them, and their bytes, read in threads of their own.

A file is served while it is held, so that nobody deletes it meanwhile, be it a blob of its own or kept as a recipe.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from heliosd.core.manifest import Manifest
from heliosd.core.names import Digest, ModelRef
from heliosd.errors import NotAllowed, NotFound
from heliosd.store.blobs import Blobs
from heliosd.store.catalog import Catalog
from heliosd.store.content import Content, opened
from heliosd.store.stored import Record
from heliosd.store.threads import Threads

THREADS = 4
"""Of their own: whoever fetches from here does not slow what this node does for itself."""

MayGive = Callable[[ModelRef, Mapping[str, Any]], bool]
"""Whether other nodes may have a model, from its ref and origin."""


@dataclass(frozen=True, slots=True)
class Given:
    """A model as other nodes are told of it."""

    ref: ModelRef
    revision: Digest
    manifest: Manifest
    origin: Mapping[str, Any]
    base: ModelRef | None
    created_at: float


class Served:
    """A file that is being served."""

    def __init__(self, content: Content, threads: Threads) -> None:
        self._content = content
        self._threads = threads
        self.size_bytes = content.size_bytes

    async def read(self, begin: int, size_bytes: int) -> bytes:
        """Fewer bytes only where the file was cut behind our back. Raises OSError."""
        return await self._threads.run(self._content.read, begin, size_bytes)


class Serving:
    def __init__(
        self, catalog: Catalog, blobs: Blobs, wanted: Callable[[], Awaitable[frozenset[str]]], may_give: MayGive
    ) -> None:
        """`wanted`: the blobs that are not to be deleted."""
        self._catalog = catalog
        self._wanted = wanted
        self._blobs = blobs
        self._may_give = may_give
        self._threads = Threads(THREADS)
        self._given: frozenset[Digest] | None = None
        self._changes = 0
        self.leaving: frozenset[Digest] = frozenset()
        """Files that may be let go this moment: no other node is told that they are here."""

    def changed(self) -> None:
        """What the catalog has, or who may have what, is another now."""
        self._given = None
        self._changes += 1

    def close(self) -> None:
        self._threads.close()

    async def model(self, ref: ModelRef) -> Given:
        """What other nodes may know of a model. Raises NotFound, or NotAllowed when they may not have it."""
        record = await self._catalog.find(ref)
        if record is None:
            raise NotFound(f"cannot tell of {ref}: the store does not have it", code="model_not_found")
        if not self._may_give(record.of or record.ref, record.origin):
            raise NotAllowed(
                f"cannot give {ref} to other nodes: store.share_with_peers, or the model's own, does not allow it",
                code="not_shared",
            )
        return _given(record)

    @asynccontextmanager
    async def file(self, digest: Digest, *, to_peer: bool) -> AsyncIterator[Served]:
        """A whole file of the store; it stays for the length of the block. `to_peer`: only what other nodes may have.

        Raises NotFound, OSError.
        """
        changes = self._changes
        async with AsyncExitStack() as ending:
            ending.push_async_callback(self._tidy, digest, changes)
            hold = ending.enter_context(self._blobs.hold())
            await hold.add(digest)
            if to_peer:
                known = digest in await self._given_to_peers() and digest not in self.leaving
            else:
                known = digest in hold.recipes or digest in await self._catalog.digests()
            if not known or not await self._blobs.exists(digest):
                raise NotFound(f"cannot send the file {digest}: the store does not have it", code="blob_not_found")
            files = ExitStack()
            recipe = hold.recipes.get(digest)
            content = await self._threads.run(files.enter_context, opened(digest, recipe, self._blobs.path))
            ending.push_async_callback(self._threads.run, files.close)
            yield Served(content, self._threads)

    async def _tidy(self, digest: Digest, changes: int) -> None:
        """What nobody wants any more went when its model did, but for what was held then."""
        if changes != self._changes:
            await self._blobs.delete({digest}, self._wanted)

    async def _given_to_peers(self) -> frozenset[Digest]:
        while self._given is None:
            changes = self._changes
            records = await self._catalog.records()
            found = frozenset(
                file.digest
                for record in records
                if self._may_give(record.ref, record.origin)
                for file in record.manifest.files
            )
            if changes == self._changes:
                self._given = found
        return self._given


def _given(record: Record) -> Given:
    origin = dict(record.origin)
    if origin.get("kind") != "hub":
        origin.pop("location", None)  # a path of this machine
    return Given(record.ref, record.revision, record.manifest, origin, record.base, record.created_at)
