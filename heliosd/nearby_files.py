"""Files from the other nodes of the cluster: whom the store asks for them, and who is not asked again soon."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from yarl import URL

from heliosd.cluster.held import HeldModel, blob_target
from heliosd.cluster.identity import PEER_HEADER
from heliosd.cluster.member import Member
from heliosd.cluster.peers import Peers
from heliosd.config import Settings
from heliosd.core.names import Digest, ModelRef, PeerName
from heliosd.errors import SourceFailed
from heliosd.state.journal import Journal
from heliosd.store.sources.nearby import Holder, Offer
from heliosd.store.sources.source import SourceFile
from heliosd.telemetry.metrics import Metrics

log = logging.getLogger("heliosd.cluster")

MOST_ASKED = 16
"""Nodes asked for one file; those that were found to have the last one first."""
LEFT_ALONE_S = 60.0
"""A node that did not deliver is not asked for so long."""
DISTRUSTED_S = 3600.0
"""One that delivered other bytes."""


class NearbyFiles:
    """Implements `heliosd.store.sources.nearby.Nearby` over the cluster."""

    def __init__(self, peers: Peers, journal: Journal, metrics: Metrics, now: Callable[[], float]) -> None:
        """`now`: seconds of a clock that only goes forward."""
        self._peers = peers
        self._journal = journal
        self._metrics = metrics
        self._now = now
        self._not_before: dict[PeerName, float] = {}
        self._useful: list[PeerName] = []
        """Who had a file, the latest first."""

    async def holders(self, digest: Digest, size_bytes: int) -> Sequence[Holder]:
        asked = self._present()[:MOST_ASKED]
        async with asyncio.TaskGroup() as tasks:
            looks = {each.name: tasks.create_task(self._peers.blob_size(each, digest)) for each in asked}
        found = [each for each in asked if looks[each.name].result() == size_bytes]
        names = [each.name for each in found]
        self._useful = [*names, *(name for name in self._useful if name not in names)][:MOST_ASKED]
        return tuple(self._holder(each, digest) for each in found)

    async def offers(self, ref: ModelRef) -> Sequence[Offer]:
        holds = self._peers.holds
        # Not yet known what a node holds: then it is asked.
        asked = [each for each in self._present() if str(ref) in holds.get(each.name, (str(ref),))][:MOST_ASKED]
        async with asyncio.TaskGroup() as tasks:
            answers = [(each, tasks.create_task(self._manifest(each, ref))) for each in asked]
        found = [(member, held) for member, answer in answers if (held := answer.result()) is not None]
        found.sort(key=lambda each: -each[1].created_at)
        return tuple(_offer(member, held) for member, held in found)

    def failed(self, node: str, file: str, why: str, *, lied: bool) -> None:
        self._not_before[PeerName(node)] = self._now() + (DISTRUSTED_S if lied else LEFT_ALONE_S)
        self._metrics.peer_failed(node, lied=lied)
        log.warning("peer did not deliver", extra={"peer": node, "file": file, "cause": why, "lied": lied})
        words = "is not asked for files for an hour" if lied else "is not asked for files for a minute"
        text = f"{file} was not fetched from node {node}, which {words}: {why}"
        self._journal.note("peer", text, detail={"peer": node, "file": file, "lied": lied})

    def _present(self) -> list[Member]:
        """Who can be asked, first who had the last files."""
        now = self._now()
        members = [
            each
            for each in self._peers.members()[1:]
            if each.present and each.api_url is not None and self._not_before.get(each.name, now) <= now
        ]
        rank = {name: place for place, name in enumerate(self._useful)}
        return sorted(members, key=lambda each: rank.get(each.name, len(rank)))

    def _holder(self, member: Member, digest: Digest) -> Holder:
        target = blob_target(digest)

        def proof() -> Mapping[str, str]:
            return {PEER_HEADER: self._peers.sign(member.name, "GET", target)}

        return Holder(member.name, URL(f"{member.api_url}{target}", encoded=True), proof)

    async def _manifest(self, member: Member, ref: ModelRef) -> HeldModel | None:
        try:
            return await self._peers.manifest(member, ref)
        except SourceFailed as error:
            log.info("peer offers no model", extra={"peer": member.name, "model": str(ref), "cause": error.cause})
            return None


def may_give(settings: Settings, ref: ModelRef, origin: Mapping[str, Any]) -> bool:
    """Whether other nodes may fetch a model from here, whose `origin` the store tells."""
    own = settings.models.get(str(ref)) or settings.models.get(ref.name)
    if own is not None and own.share_with_peers is not None:
        return own.share_with_peers
    return settings.store.share_with_peers and not origin.get("restricted")


def _offer(member: Member, held: HeldModel) -> Offer:
    files = tuple(SourceFile(file.path, file.size_bytes, digest=file.digest) for file in held.manifest.files)
    return Offer(member.name, files, held.origin)
