"""Asks a server for a range of one file: redirects, refusals, and what servers do wrong.

Whether the bytes are the right ones is judged by who receives them, by their hash.
"""

import re
from http import HTTPStatus

import aiohttp
from yarl import URL

from heliosd.errors import SourceFailed
from heliosd.store.sources.nearby import Proof
from heliosd.store.sources.wanted import Refusal, Wanted
from heliosd.store.spans import Span

MAX_REDIRECTS = 8

_REDIRECTS = frozenset((301, 302, 303, 307, 308))
_REFUSED = frozenset((401, 403, 404))
_BUSY = frozenset((408, 425, 429))
_LONGEST_PAUSE_S = 300.0
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


class TryAgain(Exception):
    """This connection is lost, another may do better."""

    def __init__(self, why: str, wait_s: float = 0.0) -> None:
        super().__init__(why)
        self.wait_s = wait_s


class Asking:
    """One file's server, and where it sends for the bytes: that is remembered, so that it is asked once."""

    def __init__(
        self, wanted: Wanted, url: URL, client: aiohttp.ClientSession, refusal: Refusal, proof: Proof | None = None
    ) -> None:
        """`proof`: the server is another node, which is shown this and may not redirect."""
        self._wanted = wanted
        self._url = url
        self._client = client
        self._refusal = refusal
        self._proof = proof
        self._there: URL | None = None

    async def ask(self, piece: Span) -> aiohttp.ClientResponse:
        """A response of 206 with that piece, or of 200 with the whole file.

        Raises TryAgain or a client error, SourceFailed, or what the refusal makes of 401, 403 and 404.
        """
        url = self._there or self._url
        for _ in range(MAX_REDIRECTS):
            remembered = url == self._there
            try:
                response = await self._client.get(url, headers=self._headers(url, piece), allow_redirects=False)
            except aiohttp.ClientError:
                self._there = None
                raise
            try:
                self._check_commit(response)
                if response.status in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
                    self._check_answer(response, piece)
                    self._there = url if url != self._url else None
                    return response
                if response.status not in _REDIRECTS:
                    self._there = None
                    raise self._refused(response, remembered=remembered)
                url = self._redirected(url, response)
            except BaseException:
                response.close()
                raise
            response.release()
        raise self.failed(f"the server redirects more than {MAX_REDIRECTS} times")

    def _headers(self, url: URL, piece: Span) -> dict[str, str]:
        headers = dict(self._proof()) if self._proof is not None else {}
        if self._proof is None and self._wanted.token and url.origin() == self._url.origin():
            headers["Authorization"] = f"Bearer {self._wanted.token}"
        if piece != (0, self._wanted.size_bytes):
            headers["Range"] = f"bytes={piece[0]}-{piece[1] - 1}"
        return headers

    def _redirected(self, url: URL, response: aiohttp.ClientResponse) -> URL:
        if self._proof is not None:
            raise self.failed("the node redirects")
        target = url.join(URL(response.headers.get("Location", ""), encoded=True))
        if target.scheme not in ("http", "https") or (url.scheme == "https" and target.scheme == "http"):
            raise self.failed(f"the server redirects from {url.scheme} to {target.scheme or 'nothing'}")
        return target

    def _refused(self, response: aiohttp.ClientResponse, *, remembered: bool) -> Exception:
        status = response.status
        if remembered and HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR:
            return TryAgain(f"the server answers {status}")  # addresses of such places expire: ask for a new one
        if status in _REFUSED:
            return self._refusal(status, response.headers, self._wanted.name)
        if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return TryAgain("the server does not have the range that was asked for")
        if status in _BUSY or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            pause = response.headers.get("Retry-After", "")
            wait_s = min(float(pause), _LONGEST_PAUSE_S) if pause.isdigit() else 0.0
            return TryAgain(f"the server answers {status}", wait_s)
        return self.failed(f"the server answers {status}")

    def _check_commit(self, response: aiohttp.ClientResponse) -> None:
        served = response.headers.get("X-Repo-Commit")
        if self._proof is None and served and self._wanted.commit and served != self._wanted.commit:
            raise self.failed(f"the server serves commit {served} instead of {self._wanted.commit}")

    def _check_answer(self, response: aiohttp.ClientResponse, piece: Span) -> None:
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise self.failed("the server compresses it although it was asked not to")
        size_bytes = self._wanted.size_bytes
        if response.status == HTTPStatus.OK:
            self._check_size(response.content_length)
            return
        given = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if given is None:
            raise TryAgain("the server does not say which range it answers with")
        self._check_size(None if given[3] == "*" else int(given[3]))
        if (int(given[1]), int(given[2]) + 1) != piece:
            raise TryAgain(f"the server answers with another range of the {size_bytes} bytes: {given[0]}")
        if response.content_length not in (None, piece[1] - piece[0]):
            raise TryAgain(f"the server announces {response.content_length} bytes for {given[0]}")

    def _check_size(self, announced_bytes: int | None) -> None:
        if announced_bytes not in (None, self._wanted.size_bytes):
            raise self.failed(
                f"the listing says {self._wanted.size_bytes} bytes, the server announces {announced_bytes}"
            )

    def failed(self, why: str) -> SourceFailed:
        """The error of this file for good."""
        return SourceFailed(f"cannot fetch {self._wanted.name}: {why}", cause=why)
