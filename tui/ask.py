"""Asks the daemon one thing: what no feed tells, and what a person wants done."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from heliosctl.client import failure_from, unreachable
from heliosctl.exits import Exit, Failure
from heliosctl.place import Place, TcpPlace, UnixPlace

LOOK_S = 20.0
"""For a question; what a person wants done, such as a load, may take as long as it takes."""


class Ask:
    """One connection a question."""

    def __init__(self, place: Place) -> None:
        self._place = place

    async def get(self, path: str) -> Any:
        """Return the JSON at `path`. Raises Failure."""
        return await self.call("GET", path, timeout_s=LOOK_S)

    async def call(self, method: str, path: str, body: object = None, *, timeout_s: float | None = None) -> Any:
        """Ask and return the JSON answered. Raises Failure, with the status where the daemon answered."""
        try:
            async with (
                session_to(self._place, timeout_s) as session,
                session.request(method, base_of(self._place) + path, json=body) as response,
            ):
                text = await response.read()
                if response.status >= 400:
                    raise failure_from(text, response.status)
                return await response.json() if text else None
        except aiohttp.ClientConnectorError as error:
            raise unreachable(self._place, error.os_error) from error
        except (OSError, ValueError, aiohttp.ClientError, TimeoutError) as error:
            raise Failure(f"cannot finish {method} {path}: {words_of(error)}", Exit.UNREACHABLE) from error


def base_of(place: Place) -> str:
    return place.url if isinstance(place, TcpPlace) else "http://localhost"


@asynccontextmanager
async def session_to(
    place: Place, total_s: float | None, silence_s: float | None = None
) -> AsyncIterator[aiohttp.ClientSession]:
    """A session to the daemon. `silence_s`: so long without a byte is taken for its death."""
    timeout = aiohttp.ClientTimeout(total=total_s, sock_connect=5, sock_read=silence_s)
    match place:
        case UnixPlace(path):
            connector: aiohttp.BaseConnector = aiohttp.UnixConnector(str(path))
            headers = {}
        case TcpPlace(_, key):
            connector = aiohttp.TCPConnector()
            headers = {"authorization": f"Bearer {key}"} if key else {}
    # A snapshot of a thousand replicas has half a megabyte: with the usual buffer it comes in a dozen pieces.
    async with aiohttp.ClientSession(
        connector=connector, timeout=timeout, headers=headers, read_bufsize=1 << 20
    ) as session:
        yield session


def words_of(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorError):
        error = error.os_error
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or type(error).__name__
