"""One question to a peer's API, answered in time and within a size, or not at all."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import aiohttp
from yarl import URL

from heliosd.cluster.identity import PEER_HEADER
from heliosd.cluster.member import Member
from heliosd.errors import SourceFailed

T = TypeVar("T")

_TOLD_BYTES = 2000
"""Of the answer of a peer that does not answer with 200."""


@dataclass(frozen=True, slots=True)
class Question:
    target: str
    """Path and query, quoted."""
    cannot: str
    """What cannot be done without an answer, as in `list the models of`; the node's name follows."""
    timeout_s: float
    limit_bytes: int


async def ask(
    session: aiohttp.ClientSession, member: Member, question: Question, read: Callable[[bytes], T], *, token: str
) -> T:
    """What `read` makes of the answer; it may raise ValueError.

    Raises SourceFailed when the peer does not answer in time, with something else than 200, or not as it should.
    """
    cannot = f"cannot {question.cannot} node {member.name}"
    try:
        async with session.get(
            URL(f"{member.api_url}{question.target}", encoded=True),
            headers={PEER_HEADER: token, "Accept-Encoding": "identity"},
            timeout=aiohttp.ClientTimeout(total=question.timeout_s),
            allow_redirects=False,
        ) as response:
            if response.status != 200:
                said = await response.content.read(_TOLD_BYTES)
                raise SourceFailed(f"{cannot}: it answered {response.status}", cause=said.decode(errors="replace"))
            return read(await _all_of(response, question.limit_bytes))
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        raise SourceFailed(f"{cannot} at {member.api_url}", cause=str(error) or type(error).__name__) from error


async def _all_of(response: aiohttp.ClientResponse, limit_bytes: int) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > limit_bytes:
            raise ValueError(f"the answer is longer than {limit_bytes} bytes")
    return bytes(body)
