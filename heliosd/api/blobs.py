"""For other nodes: /helios/v1/blobs, files of the store by their sha256; and what files a model is made of."""

import asyncio
from http import HTTPStatus

from aiohttp import web

from heliosd.api.asked import json_of, ref_of
from heliosd.api.byte_range import Unsatisfiable, asked_span, names
from heliosd.api.errors import HttpFault, error_response
from heliosd.api.parts import Parts, TheServed
from heliosd.api.routes import Answer, Route, Scope
from heliosd.api.stall import StallWatch
from heliosd.api.trace import TRACE
from heliosd.core.names import Digest, parse_digest
from heliosd.core.units import MiB
from heliosd.errors import BadRequest, SourceFailed, Unavailable
from heliosd.wire import FileView, ModelManifest

CHUNK_BYTES = 1 * MiB
"""Read at once: so much of each answer is in memory, and what the socket holds."""


async def send_blob(request: web.Request, parts: Parts) -> web.StreamResponse:
    digest = _digest_of(request.match_info["digest"])
    if parts.sending.locked():
        raise Unavailable(
            f"cannot send the file {digest} now: too many are being sent; ask again, or ask another node",
            code="too_many_transfers",
        )
    async with parts.sending, parts.store.serving.file(digest, to_peer=request[TRACE].peer is not None) as served:
        return await _answered(request, parts, digest, served)


async def _answered(request: web.Request, parts: Parts, digest: Digest, served: TheServed) -> web.StreamResponse:
    tag, size_bytes = f'"{digest}"', served.size_bytes
    headers = {"ETag": tag, "Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
    if names(request.headers.get("If-None-Match"), tag):
        return web.Response(status=HTTPStatus.NOT_MODIFIED, headers=headers)
    span = None
    if request.headers.get("If-Range", tag) == tag:
        try:
            span = asked_span(request.headers.get("Range"), size_bytes)
        except Unsatisfiable:
            return _unsatisfiable(digest, size_bytes, headers)
    begin, end = span or (0, size_bytes)
    if span is not None:
        headers["Content-Range"] = f"bytes {begin}-{end - 1}/{size_bytes}"
    status = HTTPStatus.OK if span is None else HTTPStatus.PARTIAL_CONTENT
    response = web.StreamResponse(status=status, headers=headers)
    response.content_length = end - begin
    await response.prepare(request)
    if request.method != "HEAD":
        await _send(request, response, served, begin, end, parts)
    await response.write_eof()
    return response


async def _send(
    request: web.Request, response: web.StreamResponse, served: TheServed, begin: int, end: int, parts: Parts
) -> None:
    """Read ahead by one chunk while the last one goes out."""

    def cut() -> None:
        if request.transport is not None:
            request.transport.abort()

    watch = StallWatch(cut, parts.stalled_s)
    try:
        data = await served.read(begin, min(CHUNK_BYTES, end - begin))
        while begin < end:
            if not data:
                raise SourceFailed("cannot send the rest of the file: it was cut on the disk")
            begin += len(data)
            async with asyncio.TaskGroup() as both:
                reading = both.create_task(served.read(begin, min(CHUNK_BYTES, end - begin)))
                with watch:
                    await response.write(data)
            parts.metrics.sent_to_peers(len(data))
            data = reading.result()
    finally:
        watch.close()


def _unsatisfiable(digest: Digest, size_bytes: int, headers: dict[str, str]) -> web.StreamResponse:
    fault = HttpFault(
        416,
        "bad_range",
        f"cannot send that range of {digest}: the file has {size_bytes} bytes",
    )
    response = error_response(fault, "")
    response.headers["Content-Range"] = f"bytes */{size_bytes}"
    response.headers["ETag"] = headers["ETag"]
    return response


def _digest_of(text: str) -> Digest:
    try:
        return parse_digest(text)
    except ValueError as error:
        raise BadRequest(str(error)[:300], code="bad_digest", param="digest") from error


async def tell_manifest(request: web.Request, parts: Parts) -> web.StreamResponse:
    given = await parts.store.serving.model(ref_of(request.match_info["ref"]))
    files = [FileView(path=file.path, digest=file.digest, size_bytes=file.size_bytes) for file in given.manifest.files]
    return json_of(
        ModelManifest(
            ref=str(given.ref),
            revision=given.revision,
            files=files,
            size_bytes=given.manifest.size_bytes,
            origin=dict(given.origin),
            base=str(given.base) if given.base else None,
            created_at=given.created_at,
        )
    )


_BLOB = "/helios/v1/blobs/{digest}"
_DETAIL = (
    "Ranges (one at a time, 206 or 416), `If-Range` and `If-None-Match` are understood; the ETag is the digest. The "
    "file stays in the store while it is sent. Nodes of the cluster get only files of models that "
    "`store.share_with_peers`, and the model's own, lets them have."
)
_ERRORS = ("bad_digest", "blob_not_found", "bad_range", "too_many_transfers")

ROUTES = (
    Route(
        "GET",
        _BLOB,
        send_blob,
        Scope.PEERS,
        "A file of the store by its sha256.",
        Answer("its bytes", media="application/octet-stream"),
        detail=_DETAIL,
        errors=_ERRORS,
    ),
    Route(
        "HEAD",
        _BLOB,
        send_blob,
        Scope.PEERS,
        "Whether the store has a file, and its size.",
        Answer("nothing", media="application/octet-stream"),
        detail=_DETAIL,
        errors=_ERRORS,
    ),
    Route(
        "GET",
        "/helios/v1/models/{ref:.+}/manifest",
        tell_manifest,
        Scope.PEERS,
        "The files that a model is made of, and where it came from.",
        Answer("the manifest", ModelManifest),
        errors=("model_not_found", "not_shared"),
    ),
)
