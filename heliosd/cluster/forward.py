"""Passes one HTTP request to a peer and its answer back, chunk by chunk as it comes. Knows no engine and no policy."""

from collections.abc import AsyncIterator, Iterable
from typing import Protocol

import aiohttp
from yarl import URL

from heliosd.cluster.identity import PEER_HEADER
from heliosd.cluster.member import Member
from heliosd.core.names import PeerName
from heliosd.errors import SourceFailed, Unavailable

FORWARDED_HEADER = "x-helios-forwarded"
"""The node that passed the request on. A request that has it is served where it is, or refused."""
SERVED_BY_HEADER = "x-helios-served-by"
"""On the answer: the peer that made it."""

CONNECT_TIMEOUT_S = 2.0

_HOP_BY_HOP = frozenset(
    {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}
    | {"proxy-authenticate", "proxy-authorization"}
)
# What is between this node and its client: credentials stay here, the rest is made anew for the next hop.
_NOT_SENT = _HOP_BY_HOP | {
    "authorization",
    "x-api-key",
    "cookie",
    "host",
    "content-length",
    "expect",
    "x-request-id",
    PEER_HEADER,
    FORWARDED_HEADER,
}
_NOT_RETURNED = _HOP_BY_HOP | {"date", "server", "set-cookie", "x-request-id", SERVED_BY_HEADER}


class PassedRequest(Protocol):
    """What is passed on; `heliosd.engines.engine.Request` fits."""

    @property
    def ticket(self) -> str: ...

    @property
    def method(self) -> str: ...

    @property
    def path(self) -> str:
        """As the client sent it, percent-encoding and all."""
        ...

    @property
    def query(self) -> str: ...

    @property
    def headers(self) -> tuple[tuple[str, str], ...]: ...

    @property
    def body(self) -> bytes: ...


class Reply(Protocol):
    """Where the answer is written."""

    async def start(self, status: int, headers: list[tuple[str, str]]) -> None: ...

    async def write(self, chunk: bytes) -> None: ...


def request_target(path: str, query: str) -> str:
    """The request line's path with its query, as it is signed and sent."""
    return f"{path}?{query}" if query else path


async def forward(
    session: aiohttp.ClientSession,
    member: Member,
    request: PassedRequest,
    reply: Reply,
    *,
    me: PeerName,
    token: str,
) -> None:
    """Answer `request` with what the member answers. The session must not decompress (`auto_decompress=False`).

    Cancelling closes the connection to the peer at once. Waits for as long as the peer stays silent: a model may be
    loading. Raises Unavailable, with the cause, when nothing of an answer has come, so that nothing was started on
    `reply`; SourceFailed when the answer was cut short, after which the client's connection cannot be ended cleanly.
    """
    sent = [*_kept(request.headers, _NOT_SENT)]
    sent += [(PEER_HEADER, token), (FORWARDED_HEADER, me), ("x-request-id", request.ticket)]
    url = URL(f"{member.api_url}{request_target(request.path, request.query)}", encoded=True)
    patience = aiohttp.ClientTimeout(total=None, connect=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=None)
    try:
        response = await session.request(
            request.method,
            url,
            headers=sent,
            data=request.body or None,
            timeout=patience,
            allow_redirects=False,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        )
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise Unavailable(
            f"cannot reach node {member.name} at {member.api_url}, which holds the model: try again in a moment",
            code="peer_unreachable",
            cause=str(error) or type(error).__name__,
        ) from error
    try:
        if response.status == 401:
            raise Unavailable(
                f"cannot pass the request to node {member.name}: it does not accept this node's token. "
                "Compare the clocks of both machines and their cluster keys",
                code="peer_refused",
                cause=(await response.content.read(2000)).decode(errors="replace"),
            )
        headers = _kept(response.headers.items(), _NOT_RETURNED)
        await reply.start(response.status, [*headers, (SERVED_BY_HEADER, member.name)])
        async for chunk in _chunks(response, member):
            await reply.write(chunk)
    finally:
        # Not `release`: what is left unread must end on the peer as well. After a whole answer it changes nothing.
        response.close()


async def _chunks(response: aiohttp.ClientResponse, member: Member) -> AsyncIterator[bytes]:
    """The answer as it arrives. Only the peer's failures become SourceFailed, not those of writing to the client."""
    try:
        async for chunk in response.content.iter_any():
            yield chunk
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise SourceFailed(
            f"cannot finish the answer: the connection to node {member.name} broke; ask again",
            cause=str(error) or type(error).__name__,
        ) from error


def _kept(headers: Iterable[tuple[str, str]], dropped: frozenset[str]) -> list[tuple[str, str]]:
    """Headers without `dropped` and without those that `Connection` names as meant for this hop only."""
    pairs = list(headers)
    named = {part.strip().lower() for name, value in pairs if name.lower() == "connection" for part in value.split(",")}
    return [(name, value) for name, value in pairs if name.lower() not in dropped | named]
