"""The HTTP conversation about one file: from the first byte missing to the last, over as many connections as it takes.

Knows ranges, redirects, retries and what servers do wrong. Whether the bytes are the right ones is judged by the
caller, by their hash.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus

import aiohttp
from yarl import URL

from heliosd.core.names import Digest
from heliosd.core.units import MiB
from heliosd.errors import HeliosError, SourceFailed
from heliosd.store.blobs import Report
from heliosd.store.part import Part
from heliosd.store.threads import Threads

MAX_REDIRECTS = 8
WRITE_BYTES = 1 * MiB
"""Written at once; at most so much that was received is lost by a kill."""

_REDIRECTS = frozenset((301, 302, 303, 307, 308))
_REFUSED = frozenset((401, 403, 404))
_BUSY = frozenset((408, 425, 429))

Refusal = Callable[[int, Mapping[str, str], str], HeliosError]
"""From the status, the headers and the file's name of a refused request to an error that says what to do."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file to fetch. Its `digest` or `git_sha1` says what the bytes must be."""

    name: str
    """For people."""
    url: URL
    key: str
    """What its part is kept under."""
    size_bytes: int
    digest: Digest | None
    git_sha1: str | None
    token: str | None
    """Sent to the origin of `url` only, never to where it redirects."""
    commit: str | None = None
    """What the server must say it serves, where it says so."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to keep trying when connections fail."""

    attempts: int = 6
    """In a row, without `worth_bytes` of progress between them."""
    worth_bytes: int = MiB
    first_wait_s: float = 0.5
    longest_wait_s: float = 20.0
    silence_s: float = 60.0
    """A connection that says nothing for so long is cut."""

    def wait_s(self, failures: int) -> float:
        """Twice as long each time, with a random part so that many nodes do not return in step."""
        longest_s = min(self.longest_wait_s, self.first_wait_s * 2.0 ** (failures - 1))
        return longest_s * random.uniform(0.5, 1.0)


class _TryAgain(Exception):
    """This connection is lost, another may do better."""

    def __init__(self, why: str, wait_s: float = 0.0) -> None:
        super().__init__(why)
        self.wait_s = wait_s


class Transfer:
    """Fills one part up to the wanted size."""

    def __init__(
        self,
        wanted: Wanted,
        part: Part,
        etag: str | None,
        *,
        client: aiohttp.ClientSession,
        threads: Threads,
        patience: Patience,
        report: Report,
        refusal: Refusal,
        begun: Callable[[str | None], Awaitable[None]],
    ) -> None:
        self._wanted = wanted
        self._part = part
        self._etag = etag
        self._client = client
        self._threads = threads
        self._patience = patience
        self._report = report
        self._refusal = refusal
        self._begun = begun

    async def run(self) -> None:
        """Return when the part has all bytes. Raises SourceFailed, or what `refusal` makes of 401, 403 and 404."""
        failures = 0
        while self._part.size_bytes < self._wanted.size_bytes:
            before = self._part.size_bytes
            try:
                await self._attempt()
            except (_TryAgain, aiohttp.ClientError, TimeoutError) as error:
                if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.InvalidURL):
                    raise self._failed(f"{error}") from error
                if self._part.size_bytes - before >= self._patience.worth_bytes:
                    failures = 0
                failures += 1
                if failures >= self._patience.attempts:
                    why = str(error) or type(error).__name__
                    raise self._failed(
                        f"{failures} attempts in a row failed, the last with: {why}. "
                        f"{self._part.size_bytes} of {self._wanted.size_bytes} bytes are kept; ask again to go on"
                    ) from error
                asked_s = error.wait_s if isinstance(error, _TryAgain) else 0.0
                await asyncio.sleep(max(asked_s, self._patience.wait_s(failures)))

    async def _attempt(self) -> None:
        async with await self._ask() as response:
            offset = self._part.size_bytes
            etag = response.headers.get("ETag")
            if response.status == HTTPStatus.PARTIAL_CONTENT and not await self._continues(response, etag):
                raise _TryAgain("the file changed on the server")
            if response.status == HTTPStatus.OK and offset:
                # The server ignores ranges, or `If-Range` told it that ours is another file.
                await self.restart()
            self._check_length(response)
            if self._part.size_bytes == 0:
                self._etag = etag
                await self._begun(etag)
            await self._receive(response)
        if self._part.size_bytes < self._wanted.size_bytes:
            raise _TryAgain(f"the connection ended after {self._part.size_bytes} bytes")

    async def _ask(self) -> aiohttp.ClientResponse:
        """Request the missing bytes and follow redirects; returns a response of 200 or 206."""
        url = self._wanted.url
        for _ in range(MAX_REDIRECTS):
            response = await self._client.get(url, headers=self._headers(url), allow_redirects=False)
            try:
                self._check_commit(response)
                if response.status in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
                    return response
                if response.status not in _REDIRECTS:
                    raise await self._refused(response)
                url = self._redirected(url, response)
            except BaseException:
                response.close()
                raise
            response.release()
        raise self._failed(f"the server redirects more than {MAX_REDIRECTS} times")

    def _headers(self, url: URL) -> dict[str, str]:
        headers = {}
        if self._wanted.token and url.origin() == self._wanted.url.origin():
            headers["Authorization"] = f"Bearer {self._wanted.token}"
        if self._part.size_bytes:
            headers["Range"] = f"bytes={self._part.size_bytes}-{self._wanted.size_bytes - 1}"
            if self._etag and not self._etag.startswith("W/"):
                headers["If-Range"] = self._etag
        return headers

    def _redirected(self, url: URL, response: aiohttp.ClientResponse) -> URL:
        target = url.join(URL(response.headers.get("Location", "")))
        if target.scheme not in ("http", "https") or (url.scheme == "https" and target.scheme == "http"):
            raise self._failed(f"the server redirects from {url.scheme} to {target.scheme or 'nothing'}")
        return target

    async def _refused(self, response: aiohttp.ClientResponse) -> Exception:
        status = response.status
        if status in _REFUSED:
            return self._refusal(status, response.headers, self._wanted.name)
        if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            await self.restart()
            return _TryAgain("the server does not have the range that was asked for")
        if status in _BUSY or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            pause = response.headers.get("Retry-After", "")
            return _TryAgain(f"the server answers {status}", min(float(pause), 300.0) if pause.isdigit() else 0.0)
        return self._failed(f"the server answers {status}")

    def _check_commit(self, response: aiohttp.ClientResponse) -> None:
        served = response.headers.get("X-Repo-Commit")
        if served and self._wanted.commit and served != self._wanted.commit:
            raise self._failed(f"the server serves commit {served} instead of {self._wanted.commit}")

    async def _continues(self, response: aiohttp.ClientResponse, etag: str | None) -> bool:
        """Whether a partial answer is the rest of what we have; otherwise what we have is thrown away."""
        offset, size_bytes = self._part.size_bytes, self._wanted.size_bytes
        expected = f"bytes {offset}-{size_bytes - 1}/"
        given = response.headers.get("Content-Range", "")
        if not given.startswith(expected) or given.removeprefix(expected) not in (str(size_bytes), "*"):
            await self.restart()
            return False
        if self._etag and etag and self._etag != etag:
            await self.restart()
            return False
        return True

    def _check_length(self, response: aiohttp.ClientResponse) -> None:
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise self._failed("the server compresses it although it was asked not to")
        missing = self._wanted.size_bytes - self._part.size_bytes
        if response.content_length not in (None, missing):
            raise self._failed(
                f"the listing says {self._wanted.size_bytes} bytes, the server announces "
                f"{self._part.size_bytes + (response.content_length or 0)}"
            )

    async def _receive(self, response: aiohttp.ClientResponse) -> None:
        waiting = bytearray()
        try:
            async for data in response.content.iter_any():
                waiting += data
                if self._part.size_bytes + len(waiting) > self._wanted.size_bytes:
                    waiting.clear()
                    await self.restart()
                    raise self._failed(f"the server sends more than the {self._wanted.size_bytes} bytes listed")
                if len(waiting) >= WRITE_BYTES:
                    await self._write(waiting)
        finally:
            # Also when the connection was cut: what arrived need not be fetched again.
            await self._write(waiting)

    async def _write(self, waiting: bytearray) -> None:
        if waiting:
            data = bytes(waiting)
            waiting.clear()
            await self._threads.run(self._part.write, data)
            self._report(len(data))

    async def restart(self) -> None:
        """Throw away what the part has."""
        self._report(-self._part.size_bytes)
        self._etag = None
        await self._threads.run(self._part.restart)

    def _failed(self, why: str) -> SourceFailed:
        return SourceFailed(f"cannot fetch {self._wanted.name}: {why}", cause=why)
