"""Other nodes as a source of whole models, for when the hub cannot be asked or does not know the name.

Where the hub lists a model, nodes nearby are asked for its files too: the fetcher sees to that. Here they also say
what the files are.
"""

from collections.abc import Mapping
from typing import Any

from heliosd.core.manifest import ManifestFile
from heliosd.core.names import DEFAULT_REVISION, ModelRef
from heliosd.errors import HeliosError, NotFound, SourceFailed
from heliosd.store.blobs import Hold
from heliosd.store.sources.fetch import Fetcher
from heliosd.store.sources.hub import HubSource
from heliosd.store.sources.nearby import Offer
from heliosd.store.sources.source import Listing, Progress, SourceFile, Tell, Told
from heliosd.store.sources.wanted import Wanted

ASK_PEERS = frozenset({"hub_offline", "hub_unreachable", "repository_not_found"})
"""When the hub has failed so, a node that has the model will do."""
LONGEST_WORD = 500
_KEPT_OF_ORIGIN = ("kind", "location", "commit", "revision", "endpoint")


class PeerSource:
    def __init__(self, ref: ModelRef, fetcher: Fetcher) -> None:
        self._ref = ref
        self._fetcher = fetcher

    async def list(self, tell: Tell) -> Listing:
        """Ask the nodes that have the model for its list of files. Raises NotFound when there are none."""
        tell(Progress("list", str(self._ref)))
        offers = await self._offers()
        if not offers:
            raise NotFound(f"cannot fetch {self._ref}: no other node that is alive offers it", code="model_not_found")
        return Listing(offers[0].files, origin_of(offers[0], self._ref), resumable=True)

    async def _offers(self) -> tuple[Offer, ...]:
        """Of that name, or of the same repository at the commit that is asked for."""
        found = tuple(await self._fetcher.nearby.offers(self._ref))
        if found or self._ref.revision == DEFAULT_REVISION:
            return found
        others = await self._fetcher.nearby.offers(ModelRef(self._ref.name))
        return tuple(each for each in others if each.origin.get("commit") == self._ref.revision)

    async def deliver(self, file: SourceFile, hold: Hold, report: Told) -> ManifestFile:
        """Fetch one file from whoever has it. Raises as `Fetcher.fetch` does."""
        if file.digest is None:
            raise SourceFailed(f"cannot fetch {file.path}: the node did not say what its content is")
        wanted = Wanted(
            name=f"{self._ref}/{file.path}",
            url=None,
            key=file.digest,
            size_bytes=file.size_bytes,
            digest=file.digest,
            git_sha1=None,
            token=None,
        )
        digest, size_bytes = await self._fetcher.fetch(wanted, hold, report, _no_refusal)
        return ManifestFile(file.path, digest, size_bytes)

    async def close(self) -> None:
        """The connections belong to the fetcher."""


class HubOrPeers:
    """The hub, and other nodes where it has failed in one of the ways of `ASK_PEERS`."""

    def __init__(self, hub: HubSource, peers: PeerSource) -> None:
        self._hub = hub
        self._peers = peers
        self._chosen: HubSource | PeerSource = hub

    async def list(self, tell: Tell) -> Listing:
        """Raises what the hub raised when no node has it either."""
        try:
            return await self._hub.list(tell)
        except (SourceFailed, NotFound) as error:
            if error.code not in ASK_PEERS:
                raise
            try:
                listing = await self._peers.list(tell)
            except NotFound:
                raise error from None
            self._chosen = self._peers
            return listing

    async def deliver(self, file: SourceFile, hold: Hold, report: Told) -> ManifestFile:
        return await self._chosen.deliver(file, hold, report)

    async def close(self) -> None:
        await self._chosen.close()


def origin_of(offer: Offer, ref: ModelRef) -> dict[str, Any]:
    """Where a model is from that another node gave: from the hub through it, or from that node alone."""
    told = offer.origin
    origin: dict[str, Any] = {key: told[key] for key in _KEPT_OF_ORIGIN if _is_word(told.get(key))}
    if origin.get("kind") != "hub" or not _is_word(told.get("location")):
        origin = {"kind": "peer", "location": str(ref)}
    restricted = {"restricted": True} if told.get("restricted") else {}
    return origin | restricted | {"peer": offer.node}


def _is_word(value: object) -> bool:
    return isinstance(value, str) and len(value) <= LONGEST_WORD


def _no_refusal(status: int, headers: Mapping[str, str], name: str) -> HeliosError:
    return SourceFailed(f"cannot fetch {name}: the answer was {status}")
