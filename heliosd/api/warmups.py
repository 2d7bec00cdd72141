"""/helios/v1/warmups: what engines compiled, to look at, and to hand from one node to another."""

import asyncio
import re
import tempfile

from aiohttp import web

from heliosd.api.asked import json_of
from heliosd.api.parts import Parts
from heliosd.api.plans import plan_of, write_step
from heliosd.api.routes import Answer, Route, Scope
from heliosd.engines.warmup_manifest import Manifest, WarmupSpoiled
from heliosd.engines.warmup_pack import Fits, pack, unpack
from heliosd.engines.warmups import Warmups
from heliosd.errors import BadRequest, NotFound
from heliosd.wire import ChangePlan, WarmupList, WarmupView

_MEDIA = "application/x-tar"
_BLOCK_BYTES = 1 << 20
_KEY = re.compile(r"[0-9a-f]{32}")


def _view(manifest: Manifest) -> WarmupView:
    return WarmupView(
        key=manifest.key, facts=dict(manifest.facts), files=len(manifest.files), size_bytes=manifest.size_bytes
    )


def _kept(parts: Parts) -> Warmups:
    if parts.warmups is None:
        raise NotFound(
            "cannot look at warm-ups: none are kept; set engines.warmup_cache and restart the daemon",
            code="warmup_not_found",
        )
    return parts.warmups


async def list_warmups(request: web.Request, parts: Parts) -> web.StreamResponse:
    kept = await asyncio.to_thread(_kept(parts).kept)
    return json_of(WarmupList(warmups=[_view(manifest) for manifest in kept.values()]))


async def export(request: web.Request, parts: Parts) -> web.StreamResponse:
    warmups = _kept(parts)
    key, _ = await _found(warmups, request.match_info["key"])
    with tempfile.TemporaryFile() as packed:
        try:
            await asyncio.to_thread(pack, warmups, key, packed)
        except (WarmupSpoiled, FileNotFoundError) as error:  # since it was listed
            raise NotFound(f"cannot pack the warm-up {key}: it is gone or spoiled", code="warmup_not_found") from error
        size_bytes = packed.tell()
        packed.seek(0)
        response = web.StreamResponse(headers={"Content-Type": _MEDIA, "Content-Length": str(size_bytes)})
        await response.prepare(request)
        while block := await asyncio.to_thread(packed.read, _BLOCK_BYTES):
            await response.write(block)
        await response.write_eof()
    return response


async def take_in(request: web.Request, parts: Parts) -> web.StreamResponse:
    warmups = _kept(parts)
    versions = [kind.version for kind in parts.engine_kinds().values() if kind.version is not None]
    devices = [account.device for account in parts.node.snapshot().devices]
    fits = Fits(versions, devices, warmups.max_bytes)
    with tempfile.TemporaryFile() as packed:
        async for block in request.content.iter_chunked(_BLOCK_BYTES):
            if packed.tell() + len(block) > 2 * warmups.max_bytes:
                why = "cannot take in the warm-up: it is larger than engines.warmup_cache"
                raise BadRequest(why, code="warmup_spoiled")
            await asyncio.to_thread(packed.write, block)
        packed.seek(0)
        try:
            manifest = await asyncio.to_thread(unpack, warmups, packed, fits)
        except WarmupSpoiled as error:
            raise BadRequest(error.message, code="warmup_spoiled") from error
    return json_of(_view(manifest))


async def remove(request: web.Request, parts: Parts) -> web.StreamResponse:
    warmups = _kept(parts)
    key, view = await _found(warmups, request.match_info["key"])
    await asyncio.to_thread(warmups.remove, key)
    return json_of(view)


async def take_in_plan(request: web.Request, parts: Parts) -> ChangePlan:
    warmups, size_bytes = _kept(parts), request.content_length or 0
    if size_bytes > 2 * warmups.max_bytes:
        raise BadRequest("cannot take in the warm-up: it is larger than engines.warmup_cache", code="warmup_spoiled")
    why = "it is unpacked and taken in only if it was made for an engine, a processor and a device as they are here"
    return plan_of("a warm-up would be taken in", [write_step("warm-up", why, what="add", takes_bytes=size_bytes)])


async def remove_plan(request: web.Request, parts: Parts) -> ChangePlan:
    key, view = await _found(_kept(parts), request.match_info["key"])
    why = "the next start that it was made for compiles again"
    step = write_step(key, why, what="remove", frees_bytes=view.size_bytes)
    return plan_of(f"the warm-up {key[:12]} would be forgotten", [step])


async def _found(warmups: Warmups, begin: str) -> tuple[str, WarmupView]:
    """The whole key that begins so, where one does, and what is kept under it. Raises NotFound."""
    kept = await asyncio.to_thread(warmups.kept)
    found = [key for key in kept if key.startswith(begin) and _KEY.fullmatch(key)]
    if len(found) != 1:
        why = f"{len(found)} are kept under keys that begin so" if found else "none is kept under it"
        raise NotFound(
            f"cannot find the warm-up {begin}: {why}; `heliosctl warmups ls` lists them", code="warmup_not_found"
        )
    return found[0], _view(kept[found[0]])


ROUTES = (
    Route(
        "GET",
        "/helios/v1/warmups",
        list_warmups,
        Scope.ADMIN,
        "What engines compiled and is kept for their next start.",
        Answer("all of it, with what it was made for", WarmupList),
        errors=("warmup_not_found",),
    ),
    Route(
        "GET",
        "/helios/v1/warmups/{key}",
        export,
        Scope.ADMIN,
        "One warm-up, packed for another node.",
        Answer("a tar file: the manifest, then the files", media=_MEDIA),
        detail="The beginning of a key suffices.",
        errors=("warmup_not_found",),
    ),
    Route(
        "POST",
        "/helios/v1/warmups",
        take_in,
        Scope.ADMIN,
        "Take in a warm-up that another node packed.",
        Answer("what was taken in", WarmupView),
        detail="The body is the tar file. It holds code that engines will run: take it from nodes that you trust. It "
        "must have been made for an engine, a processor and a device as they are here.",
        errors=("warmup_spoiled", "warmup_not_found"),
        preview=take_in_plan,
    ),
    Route(
        "DELETE",
        "/helios/v1/warmups/{key}",
        remove,
        Scope.ADMIN,
        "Forget a warm-up.",
        Answer("what was forgotten", WarmupView),
        errors=("warmup_not_found",),
        preview=remove_plan,
    ),
)
