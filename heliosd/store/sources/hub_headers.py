"""Looks at a repository of the hub without fetching it: its configuration and the headers of its weights, by ranges.

A few kilobytes for each file of weights are enough to know every tensor's name, type and shape. Nothing is kept, and
nothing is verified by its hash, which would take the whole file: what is read here decides an estimate, not a load.
"""

import asyncio
import json
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any

import aiohttp
from yarl import URL

from heliosd.core.profile import ModelProfile
from heliosd.core.units import KiB, MiB, format_bytes
from heliosd.errors import BadRequest, CorruptData, NotAllowed, SourceFailed
from heliosd.estimation.headers import LENGTH_BYTES, Header, header_length, parse_header
from heliosd.estimation.known import Known, known_from
from heliosd.estimation.profile import read_profile
from heliosd.store.selection import PICKLES, choose
from heliosd.store.sources.asking import MAX_REDIRECTS
from heliosd.store.sources.hub import Found, HubAccess, file_url, look_up, refusal
from heliosd.store.sources.source import SourceFile
from heliosd.store.sources.wanted import Patience

FIRST_BYTES = 16 * KiB
"""Asked for at once of a file of weights; most shards' headers are no longer."""
MOST_CONFIG_BYTES = 8 * MiB
MOST_HEADER_BYTES = 64 * MiB
"""Of all files of a repository together."""
AT_ONCE = 8
_CONFIG = "config.json"


@dataclass(frozen=True, slots=True)
class Glance:
    """What kilobytes of a repository tell of the model in it."""

    known: Known
    profile: ModelProfile
    commit: str


async def read_hub_headers(
    repository: str, revision: str | None, access: HubAccess, patience: Patience | None = None
) -> tuple[Known, str]:
    """What estimates rest on, and the commit that `revision` is. Raises as `glance` does."""
    seen = await glance(repository, revision, access, patience)
    return seen.known, seen.commit


async def glance(repository: str, revision: str | None, access: HubAccess, patience: Patience | None = None) -> Glance:
    """Read the configuration and the headers of a revision, None: of the newest.

    Raises NotFound, NotAllowed, BadRequest for what has no configuration, CorruptData or SourceFailed.
    """
    found = await asyncio.to_thread(look_up, repository, revision, access)
    listed = {file.path: file for file in found.files}
    if _CONFIG not in listed:
        raise BadRequest(f"cannot estimate {repository}: it has no {_CONFIG}", code="bad_config", param="hub")
    patience = patience or Patience()
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=30.0, sock_read=patience.silence_s)
    # A compressed answer has other lengths and offsets than the file.
    asked = {"Accept-Encoding": "identity", "User-Agent": "helios"}
    async with aiohttp.ClientSession(timeout=timeout, trust_env=True, auto_decompress=False, headers=asked) as session:
        reader = _Reader(repository, found, session, patience)
        config = await reader.config(listed[_CONFIG])
        chosen = _chosen(found.files, repository)
        headers = await reader.headers([file for file in chosen if file.path.endswith(".safetensors")])
    known = await asyncio.to_thread(known_from, config, headers)
    pickles_bytes = sum(file.size_bytes for file in chosen if file.path.endswith(PICKLES))
    profile = read_profile(config, headers, pickled=pickles_bytes > 0)
    if pickles_bytes and not headers:  # their files' sizes stand for their tensors'
        profile = replace(profile, weights_bytes=pickles_bytes)
    return Glance(known, profile, found.commit)


def _chosen(files: tuple[SourceFile, ...], repository: str) -> tuple[SourceFile, ...]:
    """What would be fetched; nothing where there are only other formats."""
    try:
        return choose(files, repository, allow_pickle=True)
    except (BadRequest, NotAllowed):
        return ()


class _Reader:
    """Reads beginnings of files of one commit."""

    def __init__(self, repository: str, found: Found, session: aiohttp.ClientSession, patience: Patience) -> None:
        self._repository = repository
        self._found = found
        self._session = session
        self._patience = patience
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._room_bytes = MOST_HEADER_BYTES

    async def config(self, file: SourceFile) -> dict[str, Any]:
        if file.size_bytes > MOST_CONFIG_BYTES:
            raise CorruptData(f"cannot read {file.path} of {self._repository}: it has {format_bytes(file.size_bytes)}")
        text = await self._read(file, 0, file.size_bytes)
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise CorruptData(f"cannot read {file.path} of {self._repository}: {error}") from error
        if not isinstance(content, dict):
            raise CorruptData(f"cannot read {file.path} of {self._repository}: it is no JSON object")
        return content

    async def headers(self, files: list[SourceFile]) -> list[Header]:
        """Of all files, some at a time. The first failure ends the others."""
        try:
            async with asyncio.TaskGroup() as tasks:
                reading = [tasks.create_task(self._header(file)) for file in files]
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None
        return [task.result() for task in reading]

    async def _header(self, file: SourceFile) -> Header:
        async with self._turns:
            first = await self._read(file, 0, min(FIRST_BYTES, file.size_bytes))
            try:
                needed = header_length(first[:LENGTH_BYTES], file.size_bytes)
                self._room_bytes -= needed
                if self._room_bytes < 0:
                    limit = format_bytes(MOST_HEADER_BYTES)
                    raise CorruptData(f"cannot read {self._repository}: its headers are longer than {limit}")
                if needed > len(first):
                    first += await self._read(file, len(first), needed)
                return await asyncio.to_thread(parse_header, first, file.size_bytes)
            except CorruptData as error:
                if error.cause is None:
                    raise
                name = f"{self._repository}/{file.path}"
                raise CorruptData(f"cannot accept {name}: in its header, {error.cause}", cause=error.cause) from error

    async def _read(self, file: SourceFile, start: int, end: int) -> bytes:
        """Bytes `start` to `end` of a file, tried again while the hub is busy or the network fails."""
        failures = 0
        while True:
            try:
                return await self._try(file, start, end)
            except (aiohttp.ClientError, TimeoutError, asyncio.IncompleteReadError) as error:
                failures += 1
                if failures >= self._patience.attempts or isinstance(error, aiohttp.InvalidURL):
                    why = str(error) or type(error).__name__
                    raise SourceFailed(f"cannot read {self._repository}/{file.path}: {why}", cause=why) from error
            await asyncio.sleep(self._patience.wait_s(failures))

    async def _try(self, file: SourceFile, start: int, end: int) -> bytes:
        if end <= start:
            return b""
        found, name = self._found, f"{self._repository}/{file.path}"
        headers = {"Range": f"bytes={start}-{end - 1}"}
        if found.token:  # aiohttp does not pass it on to where a redirect leads
            headers["Authorization"] = f"Bearer {found.token}"
        url = URL(file_url(self._repository, file.path, found.commit, found.endpoint), encoded=True)
        async with self._session.get(url, headers=headers, max_redirects=MAX_REDIRECTS) as response:
            try:
                match response.status:
                    case HTTPStatus.PARTIAL_CONTENT:
                        given = response.headers.get("Content-Range", "")
                        if not given.startswith(f"bytes {start}-"):
                            raise aiohttp.ClientError(f"the server answers another range: {given[:60]!r}")
                        return await response.content.readexactly(end - start)
                    case HTTPStatus.OK:  # the server ignores ranges; the rest is not read
                        return (await response.content.readexactly(end))[start:]
                    case HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN | HTTPStatus.NOT_FOUND:
                        raise refusal(self._repository, found, response.status, response.headers, name)
                    case status if status in (408, 425, 429) or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                        raise aiohttp.ClientError(f"the server answers {status}")
                raise SourceFailed(f"cannot read {name}: the server answers {response.status}")
            finally:
                response.close()
