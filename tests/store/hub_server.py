"""A hub on this machine that speaks the protocol of the real one, and misbehaves on request."""

import asyncio
import hashlib
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import lru_cache, partial

from aiohttp import web

from tests.loopback import on_loopback


@dataclass(frozen=True)
class Seen:
    """One request as it arrived."""

    method: str
    path: str
    range: str | None
    authorization: str | None

    @property
    def first_byte(self) -> int:
        return int(self.range.split("=")[1].split("-")[0]) if self.range else 0


@dataclass
class HubServer:
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """Repository to path to content."""
    log: list[Seen] = field(default_factory=list)
    token: str | None = None
    """When set, who comes without it is refused."""
    gated: bool = False
    """Listing is allowed to everybody, files only with the token."""
    cuts: int = 0
    """So many answers with a large file end in the middle."""
    served: dict[str, bytes] = field(default_factory=dict)
    """Path to the bytes that are sent instead of the listed ones."""
    ignore_range: bool = False
    sent_bytes: int = 0
    """Of files, all answers together."""
    sent_by: Counter[str] = field(default_factory=Counter)
    """The same by repository."""
    busy: int = 0
    """So many requests for files are answered 503."""
    redirect_to: str | None = None
    """Files are elsewhere."""
    commit: str | None = None
    """What the server says it serves, if not the truth."""
    stop_at: int | None = None
    """Large files stop flowing after so many bytes, until `flow` is set."""
    stopped: asyncio.Event = field(default_factory=asyncio.Event)
    flow: asyncio.Event = field(default_factory=asyncio.Event)
    rate_bytes_per_s: float = 0
    """Of each answer with a large file; 0: without a limit."""
    expired: int = 0
    """So many answers to requests for files are 403, as those of places whose address has expired."""
    most_at_once: int = 0
    """Answers with large files that were under way at the same time."""
    at_once: int = 0
    held: Callable[[str, int, int], bool] = lambda path, first, at: False
    """Whether an answer waits for `flow` before it sends on: of this path, from this byte on, at that byte."""
    prefix: str = ""
    """Before all paths, as with a mirror behind a proxy."""
    url: str = ""

    def asked(self, path: str) -> list[Seen]:
        """The requests for one file."""
        return [seen for seen in self.log if seen.method == "GET" and seen.path.endswith(path)]


def commit_of(files: dict[str, bytes]) -> str:
    content = "".join(name + git_sha1(data) for name, data in sorted(files.items())).encode()
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()


@lru_cache(maxsize=32)
def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@lru_cache(maxsize=32)
def git_sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def is_large(path: str) -> bool:
    """Kept in LFS, listed by sha256."""
    return path.endswith((".safetensors", ".bin", ".gguf"))


@asynccontextmanager
async def running(hub: HubServer) -> AsyncIterator[HubServer]:
    """Serve on a free port for the length of the block."""
    app = web.Application(middlewares=[_logging(hub)])
    app.router.add_get(hub.prefix + "/api/models/{ns}/{name}", partial(_info, hub))
    app.router.add_get(hub.prefix + "/api/models/{ns}/{name}/revision/{rev}", partial(_info, hub))
    app.router.add_get(hub.prefix + "/{ns}/{name}/resolve/{rev}/{path:.+}", partial(_resolve, hub))
    async with on_loopback(app, access_log=None, shutdown_timeout=0.1) as hub.url:
        try:
            yield hub
        finally:
            hub.flow.set()


def _logging(hub: HubServer):  # type: ignore[no-untyped-def]
    @web.middleware
    async def log(request: web.Request, handler):  # type: ignore[no-untyped-def]
        authorization = request.headers.get("Authorization")
        hub.log.append(Seen(request.method, request.path, request.headers.get("Range"), authorization))
        listing = request.path.startswith("/api/")
        if hub.token and authorization != f"Bearer {hub.token}" and not (hub.gated and listing):
            status, code = (403, "GatedRepo") if authorization else (401, "GatedRepo" if hub.gated else "RepoNotFound")
            return web.json_response({"error": "restricted"}, status=status, headers={"X-Error-Code": code})
        return await handler(request)

    return log


def _repository(hub: HubServer, request: web.Request) -> dict[str, bytes]:
    files = hub.files.get(f"{request.match_info['ns']}/{request.match_info['name']}")
    if files is None:
        raise web.HTTPNotFound(headers={"X-Error-Code": "RepoNotFound"})
    if request.match_info.get("rev", "main") not in ("main", commit_of(files)):
        raise web.HTTPNotFound(headers={"X-Error-Code": "RevisionNotFound"})
    return files


async def _info(hub: HubServer, request: web.Request) -> web.Response:
    files = _repository(hub, request)
    siblings = []
    for path, content in files.items():
        entry: dict[str, object] = {"rfilename": path, "size": len(content), "blobId": git_sha1(content)}
        if is_large(path):
            entry["lfs"] = {"sha256": sha256(content), "size": len(content), "pointerSize": 135}
        siblings.append(entry)
    name = f"{request.match_info['ns']}/{request.match_info['name']}"
    return web.json_response(
        {"_id": "0", "id": name, "modelId": name, "sha": commit_of(files), "private": False, "gated": hub.gated,
         "disabled": False, "tags": [], "downloads": 0, "likes": 0, "siblings": siblings}
    )  # fmt: skip


async def _resolve(hub: HubServer, request: web.Request) -> web.StreamResponse:
    files = _repository(hub, request)
    path = request.match_info["path"]
    headers = {"X-Repo-Commit": hub.commit or commit_of(files)}
    if path not in files:
        raise web.HTTPNotFound(headers={**headers, "X-Error-Code": "EntryNotFound"})
    if hub.redirect_to:
        raise web.HTTPFound(f"{hub.redirect_to}{request.path}", headers=headers)
    if hub.expired:
        hub.expired -= 1
        raise web.HTTPForbidden
    if hub.busy:
        hub.busy -= 1
        raise web.HTTPServiceUnavailable(headers={"Retry-After": "0"})
    content = hub.served.get(path, files[path])
    etag = sha256(content) if is_large(path) else git_sha1(content)
    headers |= {"ETag": f'"{etag}"', "Accept-Ranges": "bytes"}
    first, status = 0, 200
    asked = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range", ""))
    if asked and not hub.ignore_range:
        first, status = int(asked[1]), 206
        if first >= len(content):
            raise web.HTTPRequestRangeNotSatisfiable
        last = min(int(asked[2] or len(content) - 1), len(content) - 1)
        headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
        content = content[first : last + 1]
    hub.at_once += is_large(path)
    hub.most_at_once = max(hub.most_at_once, hub.at_once)
    try:
        return await _stream(hub, request, content, first, status, headers)
    finally:
        hub.at_once -= is_large(path)


async def _stream(
    hub: HubServer, request: web.Request, body: bytes, first: int, status: int, headers: dict[str, str]
) -> web.StreamResponse:
    large = is_large(request.path)
    response = web.StreamResponse(status=status, headers={**headers, "Content-Length": str(len(body))})
    try:
        await response.prepare(request)
    except ConnectionResetError:
        return response  # who asked is gone
    step = 1 << 16
    loop = asyncio.get_running_loop()
    began = loop.time()
    for start in range(0, len(body), step):
        if large and hub.cuts and start >= len(body) // 2:
            hub.cuts -= 1
            assert request.transport is not None
            request.transport.close()
            return response
        if large and hub.stop_at is not None and start >= hub.stop_at and not hub.flow.is_set():
            hub.stopped.set()
            await hub.flow.wait()
        if large and hub.held(request.match_info["path"], first, first + start) and not hub.flow.is_set():
            hub.stopped.set()
            await hub.flow.wait()
        if large and hub.rate_bytes_per_s:
            await asyncio.sleep(began + start / hub.rate_bytes_per_s - loop.time())
        try:
            await response.write(body[start : start + step])
            hub.sent_bytes += len(body[start : start + step])
            hub.sent_by[f"{request.match_info['ns']}/{request.match_info['name']}"] += len(body[start : start + step])
        except ConnectionResetError:
            return response  # who asked is gone
    return response
