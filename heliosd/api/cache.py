"""/helios/v1/cache: what models take on the disk, and having them share what they have in common."""

from aiohttp import web

from heliosd.api.asked import json_of
from heliosd.api.parts import Parts
from heliosd.api.plans import plan_of, write_step
from heliosd.api.routes import Answer, Route, Scope
from heliosd.core.units import format_bytes
from heliosd.wire import CachedModel, CacheView, ChangePlan, SharedView


async def usage(request: web.Request, parts: Parts) -> web.StreamResponse:
    found = await parts.store.usage()
    models = [
        CachedModel(
            ref=each.ref,
            logical_bytes=each.logical_bytes,
            alone_bytes=each.alone_bytes,
            shared_bytes=each.shared_bytes,
            frees_bytes=each.frees_bytes,
        )
        for each in found.models
    ]
    return json_of(
        CacheView(
            models=models,
            logical_bytes=found.logical_bytes,
            physical_bytes=found.physical_bytes,
            whole_bytes=found.whole_bytes,
            ratio=found.ratio,
        )
    )


async def share(request: web.Request, parts: Parts) -> web.StreamResponse:
    found = await parts.share()
    return json_of(
        SharedView(
            files=found.files,
            logical_bytes=found.logical_bytes,
            freed_bytes=found.freed_bytes,
            in_use=found.in_use,
        )
    )


async def share_plan(request: web.Request, parts: Parts) -> ChangePlan:
    found = await parts.store.usage()
    largest_bytes = sum(each.shared_bytes for each in found.models)
    why = (
        f"{format_bytes(found.whole_bytes)} in whole files are compared tensor by tensor, which tells what it frees; "
        f"{format_bytes(largest_bytes)} are shared already; what is in use is left alone"
    )
    return plan_of(
        "models would be looked through for what they have in common", [write_step("store", why, what="share")]
    )


ROUTES = (
    Route(
        "GET",
        "/helios/v1/cache",
        usage,
        Scope.ADMIN,
        "What each model takes on the disk, what it shares with others, and what removing it would free.",
        Answer("the models and their sums", CacheView),
    ),
    Route(
        "POST",
        "/helios/v1/cache/share",
        share,
        Scope.ADMIN,
        "Look through the whole store for what models have in common, and keep it once.",
        Answer("what came of it, when it is done", SharedView),
        detail="Weights in safetensors format are compared tensor by tensor. A newer file with a tenth or more in "
        "common with older ones is kept as pieces of them from then on. It waits while engines start, and leaves "
        "alone what is in use. The daemon does the same by itself after each addition, unless `store.share` is false.",
        errors=("disk_full",),
        preview=share_plan,
    ),
)
