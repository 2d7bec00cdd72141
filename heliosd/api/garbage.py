"""/helios/v1/store/gc: removes what nobody needs any more."""

from collections.abc import Iterable

from aiohttp import web

from heliosd.api.asked import body_of, json_of
from heliosd.api.parts import Parts
from heliosd.api.plans import plan_of, write_step
from heliosd.api.routes import Answer, Route, Scope
from heliosd.api.users import users_of
from heliosd.core.units import format_bytes
from heliosd.store.garbage import Item, count
from heliosd.wire import ChangePlan, CollectGarbage, GarbageItem, GarbageView


async def collect(request: web.Request, parts: Parts) -> web.StreamResponse:
    asked = await body_of(request, CollectGarbage)
    plan = await parts.store.garbage(users_of(parts.node.snapshot()), asked.interrupted_s)
    freed_bytes = plan.freed_bytes
    if not asked.dry_run and plan.goes:
        freed_bytes = await parts.store.collect(plan)
        parts.metrics.collected(freed_bytes)
        for item in plan.goes:
            parts.journal.note("gc", f"{item.kind} {item.name} went: {item.why}")
        parts.journal.note("gc", f"{count(len(plan.goes), 'thing')} went, {format_bytes(freed_bytes)} are free")
    return json_of(
        GarbageView(dry_run=asked.dry_run, goes=_views(plan.goes), stays=_views(plan.stays), freed_bytes=freed_bytes)
    )


def _views(items: Iterable[Item]) -> list[GarbageItem]:
    return [GarbageItem(kind=each.kind, name=each.name, size_bytes=each.size_bytes, why=each.why) for each in items]


async def collect_plan(request: web.Request, parts: Parts) -> ChangePlan:
    asked = await body_of(request, CollectGarbage)
    plan = await parts.store.garbage(users_of(parts.node.snapshot()), asked.interrupted_s)
    steps = [write_step(each.name, each.why, what="remove", frees_bytes=each.size_bytes) for each in plan.goes]
    return plan_of(f"{count(len(plan.goes), 'thing')} would go, {len(plan.stays)} stay", steps)


ROUTES = (
    Route(
        "POST",
        "/helios/v1/store/gc",
        collect,
        Scope.ADMIN,
        "Remove what nobody needs: old revisions, old interrupted downloads, files that belong to nothing.",
        Answer("what went or would go, and what stays and why", GarbageView),
        body=CollectGarbage,
        detail="Of a model, `keep_revisions` revisions stay. What an engine uses is never removed.",
        errors=("conflict",),
        preview=collect_plan,
    ),
)
