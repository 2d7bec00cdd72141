"""The cluster as the daemon uses it: finds peers, knows what they hold, passes requests to them."""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import replace

import aiohttp

from heliosd.cluster.catalogue import CATALOGUE_TARGET, Catalogues, Holds, fetch_models
from heliosd.cluster.forward import PassedRequest, Reply, forward, request_target
from heliosd.cluster.held import HeldModel, blob_size, blob_target, fetch_manifest, manifest_target
from heliosd.cluster.identity import KEY_BYTES, sign, verify
from heliosd.cluster.member import Load, Member, MemberState, Meta, catalogue_hash
from heliosd.cluster.membership import Membership
from heliosd.core.names import Digest, ModelRef, PeerName
from heliosd.core.peer_news import PeerNews
from heliosd.errors import SourceFailed, Unavailable

log = logging.getLogger("heliosd.cluster")

REJOIN_S = 5.0


class Peers:
    """One owner of the membership, the catalogues and the connections to peers.

    `holds_changed` is called on the event loop with what routable peers hold, whenever that changes; `load_changed`
    with what they tell of their load.
    """

    def __init__(
        self,
        name: PeerName,
        membership: Membership,
        meta: Meta,
        holds_changed: Callable[[Holds], None],
        *,
        key: bytes | None,
        load_changed: Callable[[tuple[PeerNews, ...]], None] = lambda news: None,
        rejoin_s: float = REJOIN_S,
    ) -> None:
        """`key` is the cluster's; None for a node that is alone, which then trusts no peer at all."""
        self._name = name
        self._membership = membership
        self._meta = meta
        self._rejoin_s = rejoin_s
        self._key = key or secrets.token_bytes(KEY_BYTES)
        self._catalogues = Catalogues(self._fetch, holds_changed, report=load_changed)
        self._session: aiohttp.ClientSession | None = None
        self._running: asyncio.Task[None] | None = None
        self.joined = asyncio.Event()
        """Set once this node is a member, at an address that `members` then tells."""
        self._in_flight: dict[asyncio.Timeout, Member] = {}
        self.heard_at: float | None = None
        """When gossip last told anything of another node, on the event loop's clock; None: not yet."""

    @property
    def holds(self) -> Holds:
        """The models, aliases included, of each peer that requests may be passed to."""
        return self._catalogues.holds

    def advertise(self, api_url: str | None) -> None:
        """Say where peers reach this node's API, known once its socket is bound. Call before `start`."""
        self._meta = replace(self._meta, api_url=api_url)

    def start(self, tasks: asyncio.TaskGroup) -> None:
        """Join the cluster in the background. A membership that is configured wrongly ends `tasks` with ConfigError."""
        # No pool limit and no total timeout: how many requests may be under way is admission's to say.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        self._running = tasks.create_task(self._run(), name="cluster")

    def members(self) -> tuple[Member, ...]:
        """This node first, then its peers, also the recently lost ones."""
        return self._membership.members()

    async def set_catalogue(self, models: Iterable[str]) -> None:
        """Tell the peers that this node's store now has these names, aliases included: they fetch the list."""
        await self._tell(replace(self._meta, catalogue=catalogue_hash(models)))

    async def set_load(self, load: Load) -> None:
        """Tell the peers how busy this node is. Not too often: gossip carries it to everybody."""
        await self._tell(replace(self._meta, load=load))

    async def set_draining(self) -> None:
        """Tell the peers to pass no more requests to this node."""
        await self._tell(replace(self._meta, draining=True))

    async def forward(self, peer: PeerName, request: PassedRequest, reply: Reply) -> None:
        """Answer `request` with what `peer` answers, as `forward.forward` does.

        Ends at once with the same errors when the cluster declares the peer dead meanwhile: a machine without power
        closes no connection.
        """
        member = next((member for member in self.members() if member.name == peer), None)
        if member is None or not member.present or member.api_url is None or self._session is None:
            raise Unavailable(f"cannot pass the request to node {peer}: it has gone", code="peer_unreachable")
        started = _Started(reply)
        scope = asyncio.timeout(None)
        try:
            async with scope:
                self._in_flight[scope] = member
                target = request_target(request.path, request.query)
                token = self.sign(peer, request.method, target)
                await forward(self._session, member, request, started, me=self._name, token=token)
        except TimeoutError as error:
            if not scope.expired():
                raise
            message = f"cannot finish the request: node {peer} died meanwhile"
            if started.yes:
                raise SourceFailed(message) from error
            raise Unavailable(message, code="peer_unreachable") from error
        finally:
            self._in_flight.pop(scope, None)

    def verify(self, token: str, method: str, target: str) -> PeerName | None:
        """Tell which peer sent a request with this `x-helios-peer` header; None when it is not to be trusted.

        `target` is the request line's path and query, byte for byte as it arrived.
        """
        return verify(self._key, token, me=self._name, method=method, path=target, now=time.time())

    async def blob_size(self, member: Member, digest: Digest) -> int | None:
        """Bytes of a file at that peer; None when it does not have it, or does not say so in time."""
        if self._session is None:
            return None
        token = self.sign(member.name, "HEAD", blob_target(digest))
        return await blob_size(self._session, member, digest, token=token)

    async def manifest(self, member: Member, ref: ModelRef) -> HeldModel:
        """What files a peer's model is made of. Raises SourceFailed."""
        if self._session is None:
            raise SourceFailed("cannot ask peers before the cluster is started")
        token = self.sign(member.name, "GET", manifest_target(ref))
        return await fetch_manifest(self._session, member, ref, token=token)

    async def close(self) -> None:
        """Leave the cluster, then close the connections. Requests under way to peers are cut: drain first."""
        await self._membership.leave()
        if self._running is not None:
            self._running.cancel()
        if self._session is not None:
            await self._session.close()

    async def _run(self) -> None:
        while True:
            try:
                await self._membership.join(self._meta)
                self.joined.set()
                async with asyncio.TaskGroup() as fetches:
                    async for member in self._membership.events():
                        self.heard_at = asyncio.get_running_loop().time()
                        self._cut_dead(member)
                        self._catalogues.note(member, fetches)
                return
            except* Unavailable as failures:
                for failure in failures.exceptions:
                    log.warning("not in the cluster", extra={"error": str(failure), "retry_s": self._rejoin_s})
                self.joined.clear()
                self._catalogues.forget()
            await asyncio.sleep(self._rejoin_s)

    def _cut_dead(self, member: Member) -> None:
        """End what waits for a run of a peer that is over. One that left on purpose finishes what it has begun."""
        for scope, asked in list(self._in_flight.items()):
            replaced = member.present and member.epoch != asked.epoch
            died = member.state is MemberState.DEAD and member.epoch == asked.epoch
            if member.name == asked.name and (replaced or died):
                del self._in_flight[scope]
                scope.reschedule(0)

    async def _fetch(self, member: Member) -> frozenset[str]:
        if self._session is None:
            raise Unavailable("cannot ask peers before the cluster is started")
        token = self.sign(member.name, "GET", CATALOGUE_TARGET)
        return await fetch_models(self._session, member, token=token)

    def sign(self, target: PeerName, method: str, path: str) -> str:
        """The `x-helios-peer` header of one request to that peer; good for half a minute."""
        return sign(self._key, me=self._name, target=target, method=method, path=path, now=time.time())

    async def _tell(self, meta: Meta) -> None:
        if meta != self._meta:
            self._meta = meta
            await self._membership.set_meta(meta)


class _Started:
    """A reply that remembers whether it was begun."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self.yes = False

    async def start(self, status: int, headers: list[tuple[str, str]]) -> None:
        self.yes = True
        await self._reply.start(status, headers)

    async def write(self, chunk: bytes) -> None:
        await self._reply.write(chunk)
